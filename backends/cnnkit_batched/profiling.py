"""Where the time of a training step goes on `numpy-batched`: `python -m cnnkit_batched.profiling d`.

Every call of a network is timed by itself, on one thread, in many rounds; the quickest time counts, so that what else the
machine does falls out. Products are also given as a part of what one large product of matrices reaches here.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

import numpy as np

from cnnkit.bench.batches import MODELS
from cnnkit.blas import single_threaded_blas
from cnnkit.optimizers import Adam
from cnnkit.state import initial_state
from cnnkit_batched.backend import BatchedBackend
from cnnkit_batched.engine import Call

ROUNDS: Final = 25
KINDS: Final = {
    "matmul": "products",
    "copyto": "patches and copies",
    "maximum": "maxima (pooling, ReLU)",
    "less": "the way back of pooling and ReLU",
    "greater": "the way back of pooling and ReLU",
    "logical_not": "the way back of pooling and ReLU",
    "multiply": "the way back of pooling and ReLU",
}
"""What the calls of NumPy's functions are for, in nearly all networks; the rest is "other"."""


def profile(name: str, rounds: int = ROUNDS) -> dict[str, tuple[float, float]]:
    """For each kind of call, microseconds an image, and the multiplications and additions of products in them.

    "one large product" is such a pair too, for one product and no image: their quotient is what the machine can do.
    """
    model = MODELS[name]()
    optimizer = Adam()
    program = BatchedBackend().compile_training(model.plan(), initial_state(model, optimizer), optimizer)
    generator, count = np.random.default_rng(0), program.workers.most
    images = generator.integers(0, 256, (count, *model.input_shape), dtype=np.uint8)
    labels = generator.integers(0, model.plan().classes, count)
    program.gradients(images, labels)
    network = program.workers.members[0].network(count, learns=True)
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    with single_threaded_blas, np.errstate(all="ignore"):
        for call, seconds in _quickest([*network.forward, *network.backward], rounds):
            kind = KINDS.get(_function(call), "other")
            spent, work = found[kind]
            found[kind] = spent + seconds / count * 1e6, work + _operations(call) / count
        square = generator.random((2048, 2048), dtype=np.float32)
        ((_, seconds),) = _quickest([lambda: np.matmul(square, square)], rounds)
    found["one large product"] = seconds * 1e6, 2.0 * 2048**3
    return dict(found)


def _quickest(calls: list[Call], rounds: int) -> Iterable[tuple[Call, float]]:
    best = [float("inf")] * len(calls)
    for _ in range(rounds):
        for index, call in enumerate(calls):
            begin = time.perf_counter()
            call()
            best[index] = min(best[index], time.perf_counter() - begin)
    return zip(calls, best, strict=True)


def _function(call: Any) -> str:
    return getattr(getattr(call, "func", call), "__name__", "")


def _operations(call: Any) -> float:
    """Multiplications and additions of a product."""
    if _function(call) != "matmul":
        return 0.0
    left, _, out = call.args
    return float(2 * out.size * left.shape[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the profiles of the models that the command line names, or of a, b, c and d."""
    parser = argparse.ArgumentParser(
        "python -m cnnkit_batched.profiling", description="Where a training step spends its time."
    )
    parser.add_argument("models", nargs="*", type=_known, default=["a", "b", "c", "d"], help=", ".join(MODELS))
    for name in parser.parse_args(arguments).models:
        found = profile(name)
        spent, work = found.pop("one large product")
        rate = work / spent
        total = sum(seconds for seconds, _ in found.values())
        print(f"{name}: {total:,.1f} us an image in layers, forward and back, on one thread")  # noqa: T201 - a command
        for kind, (seconds, operations) in sorted(found.items(), key=lambda item: -item[1][0]):
            said = ""
            if operations:
                reached = operations / seconds
                said = f"  {reached / 1e3:.0f} GFLOP/s, {reached / rate:.0%} of one large product ({rate / 1e3:.0f})"
            print(f"  {seconds:8.1f} us  {seconds / total:4.0%}  {kind}{said}")  # noqa: T201 - a command


def _known(name: str) -> str:
    if name not in MODELS:
        raise argparse.ArgumentTypeError(f"there is no model {name!r}. Use one of {', '.join(MODELS)}.")
    return name


if __name__ == "__main__":
    main()
