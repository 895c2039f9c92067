"""The same computation with less to do: what a backend may put in place of a plan's operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cnnkit.plan import ActivationOp, GrayscaleOp, MaxPool2DOp, Operation


def simplified(operations: Sequence[Operation]) -> list[Operation]:
    """Operations with the same results, to the last bit where no number is NaN, and fewer numbers on the way.

    ReLU and max pooling change places: neither changes which of two numbers is larger, so the same maximum wins, and
    where it is not positive no gradient passes either way; but fewer numbers are left for the ReLU. And the mean of
    one channel is that channel.
    """
    steps: list[Operation] = []
    for op in operations:
        if isinstance(op, GrayscaleOp) and op.weights == (1.0,):
            continue
        before = steps[-1] if steps else None
        if isinstance(op, MaxPool2DOp) and isinstance(before, ActivationOp) and before.function == "relu":
            steps[-1:] = [op, replace(before, input_shape=op.output_shape, output_shape=op.output_shape)]
        else:
            steps.append(op)
    return steps
