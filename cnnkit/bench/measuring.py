"""The measurements of `cnnkit bench`."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cnnkit.arrays import Images, Labels
from cnnkit.backend import TrainingProgram
from cnnkit.bench.contestant import Contestant
from cnnkit.bench.seed_loops import SeedLoops
from cnnkit.bench.torch_peer import torch_contestants
from cnnkit.optimizers import SGD
from cnnkit.plugins import get_backend, naming_alternatives
from cnnkit.presets import load_preset
from cnnkit.state import initial_state


@dataclass(frozen=True)
class Timing:
    """The best of all rounds, in microseconds an image."""

    name: str
    train: float
    predict: float


IMPORTS = ("numpy", "cnnkit", "cnnkit and all of its names")


def measure_import(rounds: int = 15) -> dict[str, float]:
    """Seconds that imports take in a fresh interpreter, by `IMPORTS`, the best of `rounds` each.

    Byte code is kept, as it is for every user who has not switched it off; the first round writes it.
    """
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    statements = dict(zip(IMPORTS, ("import numpy", "import cnnkit", "from cnnkit import *"), strict=True))
    best = dict.fromkeys(IMPORTS, math.inf)
    for _ in range(rounds):
        for name, seconds in best.items():
            code = f"import time; t = time.perf_counter()\n{statements[name]}\nprint(time.perf_counter() - t)"
            command = [sys.executable, "-c", code]
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)  # noqa: S603 - our own interpreter
            best[name] = min(seconds, float(done.stdout))
    return best


def measure_seed(
    backends: Sequence[str], images: int = 256, rounds: int = 7, options: Mapping[str, Any] | None = None
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
    loops = SeedLoops(state.parameters, 0.005)
    few = max(1, images // 32)  # the loops are slow enough to be timed on a few images
    contestants = {
        "seed loops": Contestant(
            lambda: [loops.step(pixels[index], int(labels[index])) for index in range(few)],
            lambda: [loops.forward(pixels[index]) for index in range(few)],
            few,
        )
    }
    for name in backends:
        backend = get_backend(name, **(options or {}))
        with naming_alternatives(backend, preset.model.plan()):
            program = backend.compile_training(preset.model.plan(), state, optimizer)
        contestants[name] = _backend_contestant(program, pixels, labels)
    peers, remark = torch_contestants(state.parameters, pixels, labels, learning_rate=0.005)
    contestants.update(peers)

    best = dict.fromkeys(contestants, (math.inf, math.inf))
    for _ in range(rounds):
        for name, contestant in contestants.items():
            spent = (_seconds(contestant.train) / contestant.count, _seconds(contestant.predict) / contestant.count)
            best[name] = (min(best[name][0], spent[0]), min(best[name][1], spent[1]))
    timings = [Timing(name, 1e6 * train, 1e6 * predict) for name, (train, predict) in best.items()]
    return timings, remark


def _backend_contestant(program: TrainingProgram, pixels: Images, labels: Labels) -> Contestant:
    order = np.arange(len(pixels))
    return Contestant(
        lambda: program.epoch(pixels, labels, order, 1),
        lambda: program.predict(pixels),
        len(pixels),
    )


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin
