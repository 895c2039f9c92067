"""The task, as every contestant gets it: model, images, labels, order, initial parameters, optimizer and threads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Images, Labels, Parameters
from cnnkit.model import Model
from cnnkit.optimizers import Adam
from cnnkit.parameters import initial_parameters
from cnnkit.randomness import epoch_order

LEARNING_RATE: Final = 1e-3
"""Of Adam, whose other numbers are those of its paper."""
_PART: Final = 256  # images that are drawn at once, so that drawing them needs no memory to speak of


@dataclass(frozen=True)
class Workload:
    """`count` images in batches of `batch_size`, on `threads` threads. All numbers follow from `seed`.

    Each image is noise and a pattern of its class, and a quarter of the labels are drawn anew: the loss falls
    in the first epoch, so that who learns less is found out, and does not reach zero in many.
    """

    model: Model
    count: int = 4096
    batch_size: int = 64
    threads: int = 2
    seed: int = 0

    @cached_property
    def _drawn(self) -> tuple[Images, Labels]:
        generator = np.random.default_rng(self.seed)
        classes, shape = self.model.plan().classes, self.model.input_shape
        patterns = generator.integers(0, 256, (classes, *shape), dtype=np.uint8)
        shown = generator.integers(0, classes, self.count)
        images = np.empty((self.count, *shape), np.uint8)
        for start in range(0, self.count, _PART):
            pattern = patterns[shown[start : start + _PART]]
            noise = generator.integers(0, 256, pattern.shape, dtype=np.uint8)
            images[start : start + _PART] = noise // 2 + pattern // 2
        redrawn = generator.random(self.count) < 1 / 4
        return images, np.where(redrawn, generator.integers(0, classes, self.count), shown)

    @property
    def images(self) -> Images:
        """uint8, `(count, *input_shape)`."""
        return self._drawn[0]

    @property
    def labels(self) -> Labels:
        """int64, `(count,)`."""
        return self._drawn[1]

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """In which order an epoch goes through the images, `(count,)`: the one of the first epoch of `fit`."""
        return epoch_order(self.seed, 0, self.count)

    @property
    def parameters(self) -> Parameters:
        """Where training begins; drawn anew at each call."""
        return initial_parameters(self.model, self.seed)

    @property
    def optimizer(self) -> Adam:
        """Adam as its paper has it."""
        return Adam(learning_rate=LEARNING_RATE)

    def to_dict(self) -> dict[str, Any]:
        """What another process makes the same workload of."""
        return {
            "model": self.model.to_dict(),
            "count": self.count,
            "batch_size": self.batch_size,
            "threads": self.threads,
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Workload:
        """The workload that `to_dict` has written down."""
        return cls(**{**data, "model": Model.from_dict(data["model"])})
