"""The way through all steps, there and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import final

import torch
from cnnkit.arrays import Images
from cnnkit.plan import ActivationOp, Conv2DOp, DenseOp, MaxPool2DOp, Operation, Plan
from torch import Tensor

from cnnkit_torch.steps import Back, Context, Step, cross_entropy, make_step, overwritable
from cnnkit_torch.vector import DTYPES


def quicker(operations: Sequence[Operation]) -> list[Operation]:
    """The same computation with less to do.

    ReLU and max pooling change places: neither changes which of two numbers is larger, so the same maximum wins, and
    where it is not positive no gradient passes either way; but fewer numbers are left for the ReLU.
    """
    found: list[Operation] = []
    for op in operations:
        before = found[-1] if found else None
        if isinstance(op, MaxPool2DOp) and isinstance(before, ActivationOp) and before.function == "relu":
            found[-1:] = [op, replace(before, input_shape=op.output_shape, output_shape=op.output_shape)]
        else:
            found.append(op)
    return found


@final
class Network:
    """The steps of a plan. To learn it runs all but the last, the softmax, which the cross-entropy stands for.

    What a step of training has worked with is kept until the next one works out the same thing. Otherwise the C library
    hands most of the memory back to the operating system after each step and fetches it again, page by page, which can
    take a fourth of the time. So two calls of `learn` must not overlap.
    """

    def __init__(self, plan: Plan, context: Context) -> None:
        self.dtype = DTYPES[context.dtype.name]
        self.is_image = len(plan.input_shape) == 3
        self.gives_image = len(plan.output_shape) == 3
        self.steps: list[Step] = []
        self.first = 0
        """The first step that learns; the way back ends there."""
        learns, owned = False, False
        for place, op in enumerate(quicker(plan.operations)):
            self.steps.append(make_step(op, context, goes_on=learns, owned=owned))
            if isinstance(op, (Conv2DOp, DenseOp)) and not learns:
                learns, self.first = True, place
            owned = overwritable(op)
        self.ways_back: list[Back | None] = [None] * len(self.steps)
        self.passed: list[Tensor | None] = [None] * len(self.steps)
        """By step, the gradient that it has given to the one before it."""

    def received(self, images: Images) -> Tensor:
        """`images` as PyTorch has them. The memory may still be the caller's: nothing writes into it."""
        x = torch.from_numpy(images).to(self.dtype)
        return x.permute(0, 3, 1, 2) if self.is_image else x  # (batch, channels, height, width)

    def predict(self, images: Images) -> Tensor:
        """The last layer's output, in cnnkit's order of axes."""
        x = self.received(images)
        for step in self.steps:
            x, _ = step(x)
        return x.permute(0, 2, 3, 1) if self.gives_image else x

    def learn(self, images: Images, labels: Tensor) -> float:
        """The mean loss; the gradients are written where the context says."""
        x = self.received(images)
        for place, step in enumerate(self.steps[:-1]):
            for reader in range(place, min(place + 3, len(self.steps))):
                self.ways_back[reader] = (
                    None  # the step, the next one, and the one after a ReLU in place know its output
                )
            x, self.ways_back[place] = step(x)
        loss, dy = cross_entropy(x, labels)
        for place in reversed(range(self.first, len(self.steps) - 1)):
            back = self.ways_back[place]
            assert back is not None  # noqa: S101 - set above
            self.passed[place] = None
            self.passed[place] = dy = back(dy)
        return float(loss)
