"""The network of the seed as it was written: patch by patch, kernel by kernel, in plain loops over NumPy arrays.

It is the baseline of `cnnkit bench`, and computes what the preset `seed-numpy` computes: rescale, grey, one convolution
with ReLU, one max pooling, one dense layer with softmax, stochastic gradient descent with one image a step.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnkit.arrays import Array, Parameters


class SeedLoops:
    """The seed's network for one image at a time. `parameters` are those of the preset, which are copied."""

    def __init__(self, parameters: Parameters, learning_rate: float) -> None:
        names = {name.partition(".")[0] for name in parameters}
        first, second = sorted(names, key=int)
        # One small array for each kernel, as the seed had them: (filters, kernel_height, kernel_width).
        self.kernels = np.ascontiguousarray(parameters[f"{first}.kernel"][:, :, 0, :].transpose(2, 0, 1))
        self.biases = parameters[f"{first}.bias"].copy()
        self.weights = parameters[f"{second}.kernel"].copy()
        self.offsets = parameters[f"{second}.bias"].copy()
        self.learning_rate = learning_rate

    def patches(self, image: Array, size: int, stride: int) -> Iterator[tuple[Array, int, int]]:
        """Every patch with its place in the output."""
        for row in range((image.shape[0] - size) // stride + 1):
            for col in range((image.shape[1] - size) // stride + 1):
                top, left = row * stride, col * stride
                yield image[top : top + size, left : left + size], row, col

    def forward(self, image: Any) -> Array:
        """The class probabilities `(classes,)` of one image `(height, width, channels)`, uint8."""
        self.image = (image.astype(np.float32) * np.float32(1 / 255) - np.float32(0.5)).mean(axis=2)
        size = self.kernels.shape[1]
        height, width = self.image.shape[0] - size + 1, self.image.shape[1] - size + 1
        self.features = np.zeros((height, width, len(self.kernels)), np.float32)
        for patch, row, col in self.patches(self.image, size, 1):
            self.features[row, col] = np.sum(patch * self.kernels, axis=(1, 2)) + self.biases
        self.features = np.maximum(self.features, 0)
        self.pooled = np.zeros((height // 2, width // 2, len(self.kernels)), np.float32)
        for patch, row, col in self.patches(self.features, 2, 2):
            self.pooled[row, col] = np.amax(patch, axis=(0, 1))
        scores = self.pooled.reshape(-1) @ self.weights + self.offsets
        exponentials = np.exp(scores - scores.max())
        probabilities: Array = exponentials / exponentials.sum()
        return probabilities

    def gradients(self, image: Any, label: int) -> tuple[float, dict[str, Array]]:
        """The loss of one image and the gradients of `kernels`, `biases`, `weights` and `offsets`."""
        dscores = self.forward(image)
        loss = -float(np.log(dscores[label]))
        dscores[label] -= 1
        dweights = np.outer(self.pooled.reshape(-1), dscores)
        dpooled = (self.weights @ dscores).reshape(self.pooled.shape)
        dfeatures = np.zeros_like(self.features)
        for patch, row, col in self.patches(self.features, 2, 2):
            for kernel in range(patch.shape[2]):
                self._give_to_first_maximum(dfeatures, patch, dpooled, row, col, kernel)
        dfeatures[self.features <= 0] = 0
        dkernels = np.zeros_like(self.kernels)
        for patch, row, col in self.patches(self.image, self.kernels.shape[1], 1):
            for kernel in range(len(self.kernels)):
                dkernels[kernel] += patch * dfeatures[row, col, kernel]
        dbiases = dfeatures.sum(axis=(0, 1))
        return loss, {"kernels": dkernels, "biases": dbiases, "weights": dweights, "offsets": dscores}

    def _give_to_first_maximum(
        self, dfeatures: Array, patch: Array, dpooled: Array, row: int, col: int, kernel: int
    ) -> None:
        highest = self.pooled[row, col, kernel]
        for y in range(patch.shape[0]):
            for x in range(patch.shape[1]):
                if patch[y, x, kernel] == highest:
                    dfeatures[2 * row + y, 2 * col + x, kernel] = dpooled[row, col, kernel]
                    return

    def step(self, image: Any, label: int) -> float:
        """One step of gradient descent; the loss before it."""
        loss, gradients = self.gradients(image, label)
        rate = np.float32(self.learning_rate)
        self.kernels -= rate * gradients["kernels"]
        self.biases -= rate * gradients["biases"]
        self.weights -= rate * gradients["weights"]
        self.offsets -= rate * gradients["offsets"]
        return loss
