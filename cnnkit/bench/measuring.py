"""The measurements of `cnnkit bench`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cnnkit.arrays import Images, Labels
from cnnkit.bench.seed_loops import SeedLoops
from cnnkit.bench.torch_peer import torch_contestants
from cnnkit.optimizers import SGD
from cnnkit.plugins import get_backend
from cnnkit.presets import load_preset
from cnnkit.state import initial_state


@dataclass(frozen=True)
class Timing:
    """The best of all rounds, in microseconds an image (or a call)."""

    name: str
    train: float | None
    predict: float | None


def measure_import(rounds: int = 15) -> tuple[float, float]:
    """Seconds that `import numpy` and `import cnnkit` take in a fresh interpreter, the best of `rounds` each."""
    program = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    best = {"numpy": float("inf"), "cnnkit": float("inf")}
    for _ in range(rounds):
        for module in best:
            command = [sys.executable, "-c", program.format(module)]
            spent = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)  # noqa: S603 - our own interpreter
            best[module] = min(best[module], spent)
    return best["numpy"], best["cnnkit"]


def measure_seed(
    backends: Sequence[str], images: int = 256, rounds: int = 7, options: Mapping[str, object] | None = None
) -> tuple[list[Timing], str]:
    """Time the preset `seed-numpy` on 28 x 28 grey images, batch size 1: the seed's loops, `backends`, and PyTorch.

    Returns the timings, and a sentence about the peer: its version and threads, or that it is not installed.
    """
    preset = load_preset("seed-numpy").for_data((28, 28, 1), 10)
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (images, 28, 28, 1), dtype=np.uint8)
    labels = generator.integers(0, 10, images)
    optimizer = SGD(learning_rate=0.005)
    state = initial_state(preset.model, optimizer)
    contestants: dict[str, tuple[Callable[[], object], Callable[[], object], int]] = {}

    loops = SeedLoops(state.parameters, 0.005)
    few = max(1, images // 32)  # the loops are slow enough to be timed on a few images
    contestants["seed loops"] = (
        lambda: [loops.step(pixels[index], int(labels[index])) for index in range(few)],
        lambda: [loops.forward(pixels[index]) for index in range(few)],
        few,
    )
    order = np.arange(images)
    for name in backends:
        backend = get_backend(name, **(options or {}))
        program = backend.compile_training(preset.model.plan(), state, optimizer)
        contestants[name] = (_training(program, pixels, labels, order), _predicting(program, pixels), images)
    peers, remark = torch_contestants(state.parameters, pixels, labels, learning_rate=0.005)
    contestants.update(peers)

    best: dict[tuple[str, int], float] = {}
    for _ in range(rounds):
        for name, (*runs, count) in contestants.items():
            for kind, run in enumerate(runs):
                begin = time.perf_counter()
                run()  # type: ignore[operator] # the last member, the count, is taken off above
                spent = (time.perf_counter() - begin) / count  # type: ignore[operator] # as above
                best[name, kind] = min(best.get((name, kind), float("inf")), spent)
    timings = [Timing(name, 1e6 * best[name, 0], 1e6 * best[name, 1]) for name in contestants]
    return timings, remark


def _training(program: object, pixels: Images, labels: Labels, order: np.ndarray) -> Callable[[], object]:
    return lambda: program.epoch(pixels, labels, order, 1)  # type: ignore[attr-defined]


def _predicting(program: object, pixels: Images) -> Callable[[], object]:
    return lambda: [program.predict(pixels[index : index + 1]) for index in range(len(pixels))]  # type: ignore[attr-defined]
