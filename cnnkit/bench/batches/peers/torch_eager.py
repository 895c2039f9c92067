"""Eager PyTorch: `nn.Sequential`, `CrossEntropyLoss` and its Adam, with images in either memory format."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import nn

from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.learner import Learner, predict_in_parts, quickest, refuse
from cnnkit.bench.batches.workload import LEARNING_RATE, Workload
from cnnkit.plan import ActivationOp, Conv2DOp, DenseOp, DropoutOp, FlattenOp, MaxPool2DOp, Operation, RescaleOp


def make(workload: Workload, *, channels_last: bool) -> Learner:
    """The learner; `channels_last` is PyTorch's memory format of that name."""
    torch.set_num_threads(workload.threads)
    torch.manual_seed(workload.seed)
    return _Torch(workload, torch.channels_last if channels_last else torch.contiguous_format)


@final
class _Torch(Learner):
    def __init__(self, workload: Workload, memory_format: Any) -> None:
        super().__init__(workload)
        self.network: Any = nn.Sequential()
        self.places: dict[str, tuple[Any, Callable[[Any], Any]]] = {}
        """By name of a parameter, PyTorch's, and how its axes become cnnkit's and back."""
        self.rescale = 1.0, 0.0
        rows: Any = None
        for operation in workload.model.plan().operations[:-1]:
            if isinstance(operation, RescaleOp) and not len(self.network):
                self.rescale = operation.scale, operation.offset
                continue
            if isinstance(operation, FlattenOp):
                height, width, channels = operation.input_shape
                # PyTorch flattens channels first: where each of its features stands in cnnkit's order.
                rows = np.arange(height * width * channels).reshape(height, width, channels).transpose(2, 0, 1).ravel()
            layer = self._layer(operation, rows)
            if isinstance(operation, DenseOp):
                rows = None
            self.network.append(layer)
        self._load(workload.parameters)
        self.network.to(memory_format=memory_format)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(),
            lr=LEARNING_RATE,
            eps=workload.optimizer.epsilon,
        )
        self.loss_of = nn.CrossEntropyLoss()
        images = torch.from_numpy(workload.images).permute(0, 3, 1, 2)  # (count, channels, height, width)
        self.images = images.contiguous(memory_format=memory_format)
        self.labels, self.order = torch.from_numpy(workload.labels), torch.from_numpy(workload.order)
        self.size = 0

    @property
    def versions(self) -> Mapping[str, str]:
        return {"torch": torch.__version__}

    @property
    def remarks(self) -> Sequence[str]:
        return [f"torch predicts {self.size} images at once"]

    def train(self) -> float:
        self.network.train()
        losses = []
        for rows in torch.split(self.order, self.workload.batch_size):
            self.optimizer.zero_grad()
            loss = self.loss_of(self._scores(self.images[rows]), self.labels[rows])
            loss.backward()
            self.optimizer.step()
            losses.append(loss.detach() * len(rows))
        return float(sum(losses)) / len(self.order)

    def predict(self) -> Array:
        self.network.eval()
        self.size = self.size or quickest(self._predict)
        return self._predict(self.size)

    def _predict(self, size: int) -> Array:
        with torch.inference_mode():
            return predict_in_parts(lambda part: torch.softmax(self._scores(part), 1).numpy(), self.images, size)

    def _scores(self, images: Any) -> Any:
        scale, offset = self.rescale
        return self.network(images.float() * scale + offset)

    def parameters(self) -> Parameters:
        return {name: back(tensor.detach().numpy()).copy() for name, (tensor, back) in self.places.items()}

    def _load(self, parameters: Parameters) -> None:
        with torch.no_grad():
            for name, (tensor, back) in self.places.items():
                # `back` only moves numbers: where it takes each of them from is where each has to go.
                sources = back(np.arange(tensor.numel()).reshape(tensor.shape))
                values = np.empty(tensor.numel(), np.float32)
                values[sources.ravel()] = parameters[name].ravel()
                tensor.copy_(torch.from_numpy(values.reshape(tensor.shape)))

    def _layer(self, operation: Operation, rows: Any) -> Any:
        match operation:
            case Conv2DOp():
                layer = nn.Conv2d(
                    operation.input_shape[-1],
                    operation.filters,
                    operation.kernel_size,
                    operation.strides,
                    self._even(operation),
                    operation.dilation,
                    bias=operation.bias is not None,
                )
                self._place(operation, layer, lambda kernel: kernel.transpose(2, 3, 1, 0))
                return layer
            case MaxPool2DOp():
                return nn.MaxPool2d(operation.pool_size, operation.strides, self._even(operation))
            case FlattenOp():
                return nn.Flatten()
            case DenseOp():
                layer = nn.Linear(operation.input_shape[0], operation.units, bias=operation.bias is not None)
                order = None if rows is None else np.argsort(rows)
                self._place(operation, layer, lambda kernel: kernel.T if order is None else kernel.T[order])
                return layer
            case ActivationOp():
                return {"relu": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}[operation.function]()
            case DropoutOp():
                return nn.Dropout(operation.rate)
        raise refuse("torch", operation.layer, self.workload.model.layers[operation.layer])

    def _place(self, operation: Conv2DOp | DenseOp, layer: Any, back: Callable[[Any], Any]) -> None:
        self.places[operation.kernel] = layer.weight, back
        if operation.bias is not None:
            self.places[operation.bias] = layer.bias, lambda bias: bias

    def _even(self, operation: Conv2DOp | MaxPool2DOp) -> tuple[int, int]:
        (top, bottom), (left, right) = operation.padding
        if top != bottom or left != right:
            raise refuse("torch", operation.layer, self.workload.model.layers[operation.layer])
        return top, left
