"""The whole run on a card: part after part within the time that there is, and a report after each of them."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import numpy as np

import cnnkit
from cnnkit import plugins
from cnnkit.bench.batches.process import Failed
from cnnkit.bench.batches.report import machine
from cnnkit.bench.batches.workload import Workload
from cnnkit.bench.gpu import suite
from cnnkit.bench.gpu.budget import WORTH_IT, Budget, Deadline
from cnnkit.bench.gpu.contestant import Contestant
from cnnkit.bench.gpu.driver import CardFacts, Driver
from cnnkit.bench.gpu.layer_table import measure_layer
from cnnkit.bench.gpu.models import LAYERS, LayerTask, whole
from cnnkit.bench.gpu.remote import Remote
from cnnkit.bench.gpu.results import Card, GpuReport, LayerCell, Part, PartName, StepCell
from cnnkit.bench.gpu.rounds import Begin, Told, processes
from cnnkit.bench.gpu.step_table import measure_inference, measure_training
from cnnkit.bench.gpu.targets import LARGE, SMALL, judge
from cnnkit.bench.gpu.ways import (
    check_device,
    inference_contestants,
    layer_contestants,
    step_contestants,
    torch_missing,
)
from cnnkit.errors import CnnkitError

PARTS: Final[tuple[PartName, ...]] = ("conformance", "layers", "steps", "inference")


@dataclass(frozen=True)
class Extent:
    """How much is measured. Sizes come in the order of what the targets need, in case the time ends before they do."""

    images: int = 50_000
    sizes: tuple[int, ...] = (LARGE, SMALL, 512, 256, 128, 32)
    rounds: int = 3
    layer_rounds: int = 5
    suite_seconds: float = float("inf")


WHOLE: Final = Extent()
QUICK: Final = Extent(images=8_192, sizes=(LARGE, SMALL), rounds=2, layer_rounds=2, suite_seconds=45.0)


@dataclass(frozen=True)
class Ask:
    """What is asked for."""

    backend: str
    device: str = "gpu:0"
    budget: float = 480.0
    quick: bool = False
    command: str = "cnnkit bench --gpu"

    @property
    def extent(self) -> Extent:
        """How much is measured."""
        return QUICK if self.quick else WHOLE


def run(ask: Ask, save: Callable[[GpuReport], object], told: Told = lambda _: None) -> GpuReport:
    """Do everything. `save` gets the report after each part, so that what was measured is kept whatever comes.

    Raises `OptionError` where there is no card for the backend, before anything is run.
    """
    index = check_device(ask.backend, ask.device)
    return Run(
        ask, Driver(index).card(), lambda contestant: Remote(contestant, index), save, told, missing_peer()
    ).all()


def missing_peer() -> str:
    """Why PyTorch does not take part; empty if it does. It is asked in a process of its own."""
    reason = torch_missing()
    if reason:
        return reason
    done = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.stdout.strip() == "True":
        return ""
    last = done.stderr.strip().rpartition("\n")[2]
    return f"PyTorch finds no GPU{f' ({last})' if last else ''}, so there is nothing to compare with"


@dataclass
class Run:
    """A run on `card`: `begin` begins a contestant's process, and `no_peer` says why PyTorch does not take part, if so."""

    ask: Ask
    card: CardFacts
    begin: Begin
    save: Callable[[GpuReport], object] = lambda _: None
    told: Told = lambda _: None
    no_peer: str = ""
    budget: Budget = field(init=False)
    parts: dict[PartName, Part] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.budget = Budget(self.ask.budget)
        self.made = datetime.now(UTC).isoformat(timespec="seconds")
        self.machine = machine()

    def all(self) -> GpuReport:
        """Every part, in its order."""
        works = {
            "conformance": self.conformance,
            "layers": self.layers,
            "steps": self.steps,
            "inference": self.inference,
        }
        for name in PARTS:
            self.parts[name] = self.part(name, works[name])
            self.save(self.report())
        return self.report()

    def part(self, name: PartName, work: Callable[[Deadline], str]) -> Part:
        """Do one part; `work` returns what was left out, in a sentence, or nothing."""
        deadline, before = self.budget.deadline(name), self.budget.spent
        if deadline.left < WORTH_IT:
            return Part(name=name, outcome="skipped", seconds=0.0, why="The time was up before it began.")
        self.told(f"{name}: {deadline.left:.0f} s at most")
        try:
            why = work(deadline)
        except (CnnkitError, Failed) as error:
            return Part(name=name, outcome="failed", seconds=self.budget.spent - before, why=str(error))
        return Part(name=name, outcome="incomplete" if why else "done", seconds=self.budget.spent - before, why=why)

    def conformance(self, deadline: Deadline) -> str:
        """The suite on the device."""
        most = deadline.clock() + self.ask.extent.suite_seconds
        soon = Deadline(min(deadline.moment, most), deadline.clock)
        self.found["conformance"], whole_suite = suite.judge(self.ask.backend, self.ask.device, soon, self.told)
        return "" if whole_suite or self.ask.quick else "Not all cases were tried in the time that there was."

    def layers(self, deadline: Deadline) -> str:
        """Layer after layer."""
        cells: list[LayerCell] = []
        left_out: list[str] = []
        with self.processes(layer_contestants) as asked:
            for name in LAYERS:
                if deadline.left < WORTH_IT:
                    left_out.append(name)
                    continue
                self.told(f"layer {name}")
                more, all_rounds = measure_layer(LayerTask(name, LARGE), asked, self.ask.extent.layer_rounds, deadline)
                cells += more
                self.found["layers"] = tuple(cells)
                left_out += [] if all_rounds else [f"rounds of {name}"]
        return _left_out(left_out)

    def steps(self, deadline: Deadline) -> str:
        """Training at one batch size after the other."""
        return self.by_size("steps", step_contestants, self.ask.extent.sizes, measure_training, deadline)

    def inference(self, deadline: Deadline) -> str:
        """Prediction at a large and a small batch size."""
        return self.by_size("inference", inference_contestants, (LARGE, SMALL), measure_inference, deadline)

    def by_size(
        self, name: str, who: Callable[..., list[Contestant]], sizes: Sequence[int], measure: Any, deadline: Deadline
    ) -> str:
        """The table `name`, one batch size after the other, as long as another one would end in time."""
        cells: list[StepCell] = []
        left_out: list[str] = []
        longest = WORTH_IT
        with self.processes(who) as asked:
            for size in sizes:
                if not deadline.allows(longest):
                    left_out.append(f"batch {size}")
                    continue
                before, extent = deadline.clock(), self.ask.extent
                workload = Workload(whole(), extent.images, size)
                more, all_rounds = measure(workload, asked, extent.rounds, deadline, self.told)
                cells += more
                self.found[name] = tuple(sorted(cells, key=lambda cell: cell.batch))
                left_out += [] if all_rounds else [f"rounds at batch {size}"]
                longest = max(longest, deadline.clock() - before)
            for process in asked:
                self.versions.update(process.versions)
        return _left_out(left_out)

    def processes(self, who: Callable[..., list[Contestant]]) -> Any:
        """The processes of the contestants that `who` names."""
        return processes(who(self.ask.backend, self.ask.device, torch=not self.no_peer), self.begin)

    def report(self) -> GpuReport:
        """What there is by now."""
        parts = [
            self.parts.get(name) or Part(name=name, outcome="skipped", seconds=0.0, why="The run ended before it.")
            for name in PARTS
        ]
        own = {"cnnkit": cnnkit.__version__, "numpy": np.__version__, "python": platform.python_version()}
        return GpuReport(
            made=self.made,
            command=self.ask.command,
            seconds=self.budget.spent,
            budget=self.ask.budget,
            quick=self.ask.quick,
            backend=self.ask.backend,
            device=self.ask.device,
            card=Card(**asdict(self.card)),
            machine=self.machine,
            versions={**own, **plugins.status(self.ask.backend).versions, **self.versions},
            parts=tuple(parts),
            targets=judge(self.found.get("steps", ()), self.ask.backend, self.card.name, quick=self.ask.quick),
            remarks=(f"{self.no_peer}.",) if self.no_peer else (),
            **self.found,
        )


def _left_out(names: Sequence[str]) -> str:
    return f"There was no time for {', '.join(names)}." if names else ""
