"""Single layers by torch.nn.functional, channels_last, forward and back by autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from cnnkit.arrays import Array
from cnnkit.bench.gpu.contestant import LayerCalls
from cnnkit.bench.gpu.models import LayerTask
from cnnkit.plan import Conv2DOp, DenseOp, MaxPool2DOp


def calls_of(task: LayerTask, device: torch.device) -> LayerCalls:
    """The layer of `task` on `device`. The way back is autograd's, of the last output forward."""
    op = task.plan.operations[0]
    relu = len(task.plan.operations) > 1  # an activation is an operation of its own in a plan
    x, dy = (_channels_last(torch.from_numpy(it).to(device)) for it in (task.x, task.dy))
    x.requires_grad_(task.input_gradient)
    weights = [_weight(torch.from_numpy(it).to(device)).requires_grad_() for it in task.parameters.values()]

    def forward() -> Any:
        match op:
            case Conv2DOp():
                (top, _), (left, _) = op.padding
                y = functional.conv2d(x, *weights, stride=op.strides, padding=(top, left))
            case MaxPool2DOp():
                y = functional.max_pool2d(x, op.pool_size, op.strides)
            case DenseOp():
                y = functional.linear(x, *weights)
        held[0] = functional.relu(y) if relu else y

    wanted = dict(zip(("kernel", "bias"), weights, strict=False))
    if task.input_gradient:
        wanted["input"] = x
    held: list[Any] = [None]
    gradients: list[Any] = []

    def backward() -> None:
        gradients[:] = torch.autograd.grad(held[0], list(wanted.values()), dy, retain_graph=True)

    def results() -> dict[str, Array]:
        found = dict(zip(wanted, gradients, strict=True))
        given = {name: _host(it, name == "kernel") for name, it in found.items()}
        return {"output": _host(held[0].detach(), kernel=False), **given}

    stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else 0
    return LayerCalls(forward, backward, results, stream)


def _channels_last(array: Any) -> Any:
    """(batch, height, width, channels) as PyTorch numbers the axes, with the same memory; other arrays as they are."""
    return array.permute(0, 3, 1, 2) if array.ndim == 4 else array


def _weight(array: Any) -> Any:
    """A kernel, or bias, as PyTorch has it."""
    if array.ndim == 4:  # (kernel_height, kernel_width, in_channels, filters)
        return array.permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)
    return array.T.contiguous() if array.ndim == 2 else array


def _host(tensor: Any, kernel: bool) -> Array:
    """In NumPy, with the axes as cnnkit has them."""
    if tensor.ndim == 4:
        tensor = tensor.permute(2, 3, 1, 0) if kernel else tensor.permute(0, 2, 3, 1)
    elif kernel:
        tensor = tensor.T
    found: Array = tensor.cpu().numpy()
    return found
