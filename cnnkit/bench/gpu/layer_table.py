"""One layer by all contestants: microseconds forward and back, and a comparison of what comes out."""

from __future__ import annotations

from collections.abc import Sequence

from cnnkit.bench.gpu.budget import Deadline
from cnnkit.bench.gpu.models import LayerTask, disagreements
from cnnkit.bench.gpu.results import LayerCell
from cnnkit.bench.gpu.rounds import Asked, Runner, compare, go_round, let_go


def measure_layer(
    task: LayerTask, asked: Sequence[Asked], rounds: int, deadline: Deadline
) -> tuple[list[LayerCell], bool]:
    """One layer by all contestants, whose results are compared; and whether there was time for all rounds."""
    runners = [Runner(process, rounds={"forward": [], "backward": []}) for process in asked]

    def prepare(runner: Runner) -> None:
        options = dict(runner.contestant.options)
        runner.results = runner.process.ask("layer", task=task.to_dict(), options=options)["results"]

    def once(runner: Runner) -> None:
        for way, found in runner.rounds.items():
            found.append(runner.process.ask("measure", way=way)["microseconds"])

    for runner in runners:
        runner.attempt(prepare)
    compare(runners, lambda one, other: disagreements(one.results, other.results))
    whole = go_round(runners, rounds, deadline, once)
    let_go(runners)
    return [
        LayerCell(
            **runner.measured(),
            layer=task.name,
            batch=task.batch,
            forward_rounds=tuple(runner.rounds["forward"]),
            backward_rounds=tuple(runner.rounds["backward"]),
        )
        for runner in runners
    ], whole
