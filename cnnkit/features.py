"""Feature ids: what a model, an optimizer and a precision ask of a backend, such as `conv2d.dilation`.

A backend that refuses something names it by its id, in `Unsupported`, in `UnsupportedModel` and in its ledger alike.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cnnkit.optimizers import SGD, Optimizer, Schedule
from cnnkit.plan import (
    ActivationOp,
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    DropoutOp,
    FlattenOp,
    GrayscaleOp,
    MaxPool2DOp,
    Operation,
    Plan,
    RescaleOp,
    SoftmaxOp,
)

FEATURES: Final[Mapping[str, str]] = {
    "conv2d": "`Conv2D`",
    "conv2d.strides": "`Conv2D` with a stride above 1",
    "conv2d.dilation": "`Conv2D` with a dilation above 1",
    "conv2d.padding": "`Conv2D` with any padding",
    "conv2d.padding.uneven": "`Conv2D` with more padding on one side than on the opposite one",
    "conv2d.no_bias": "`Conv2D` without a bias",
    "pool.max": "`MaxPool2D`",
    "pool.max.padding": "`MaxPool2D` with any padding",
    "pool.max.overlap": "`MaxPool2D` whose windows overlap: a stride below the window's size",
    "pool.max.gaps": "`MaxPool2D` whose windows leave pixels out: a stride above the window's size",
    "pool.avg": "`AvgPool2D`",
    "pool.avg.padding": "`AvgPool2D` with any padding",
    "pool.avg.overlap": "`AvgPool2D` whose windows overlap: a stride below the window's size",
    "pool.avg.gaps": "`AvgPool2D` whose windows leave pixels out: a stride above the window's size",
    "activation.relu": "ReLU, as a layer or as an activation",
    "activation.tanh": "tanh, as a layer or as an activation",
    "activation.sigmoid": "sigmoid, as a layer or as an activation",
    "flatten": "`Flatten`",
    "dense": "`Dense`",
    "dense.no_bias": "`Dense` without a bias",
    "softmax": "`Softmax`",
    "dropout": "`Dropout`",
    "rescale": "`Rescale`",
    "grayscale": "`Grayscale`",
    "training": "any training",
    "optimizer.sgd": "training with `SGD`",
    "optimizer.sgd.momentum": "training with `SGD` and momentum",
    "optimizer.sgd.nesterov": "training with `SGD` and Nesterov's momentum",
    "optimizer.sgd.weight_decay": "training with `SGD` and weight decay",
    "optimizer.adam": "training with `Adam`",
    "optimizer.adamw": "training with `AdamW`",
    "optimizer.clip_global_norm": "training with gradients that are clipped",
    "optimizer.schedule": "training with a learning rate that changes from step to step",
    "precision.float64": "anything in float64",
}
"""Every feature id and what needs it. An optimizer of somebody's own is called by its class: `optimizer.mine`."""

ESSENTIAL = ("conv2d", "pool.max", "activation.relu", "flatten", "dense", "softmax")
"""A backend of which no case passes that needs one of these has not shown that it runs convolutional networks."""


def features_of(plan: Plan, optimizer: Optimizer | None = None, precision: str = "float32") -> frozenset[str]:
    """What it takes to run `plan` in `precision`, and with an `optimizer` to train it."""
    found = {feature for op in plan.operations for feature in _of_operation(op)}
    if precision != "float32":
        found.add(f"precision.{precision}")
    if optimizer is not None:
        found |= {"training", *_of_optimizer(optimizer)}
    return frozenset(found)


def feature_of(op: Operation) -> str:
    """The one feature that every operation of its kind has: `conv2d` for each convolution, dilated or not."""
    return _of_operation(op)[0]


def _of_operation(op: Operation) -> list[str]:
    match op:
        case Conv2DOp(strides=strides, padding=padding, dilation=dilation, bias=bias):
            named = {
                "strides": strides != (1, 1),
                "dilation": dilation != (1, 1),
                "padding": padding != ((0, 0), (0, 0)),
                "padding.uneven": any(before != after for before, after in padding),
                "no_bias": bias is None,
            }
            return ["conv2d", *(f"conv2d.{name}" for name, there in named.items() if there)]
        case (
            MaxPool2DOp(pool_size=size, strides=strides, padding=padding)
            | AvgPool2DOp(pool_size=size, strides=strides, padding=padding)
        ):
            kind = "pool.max" if isinstance(op, MaxPool2DOp) else "pool.avg"
            named = {
                "padding": padding != ((0, 0), (0, 0)),
                "overlap": strides[0] < size[0] or strides[1] < size[1],
                "gaps": strides[0] > size[0] or strides[1] > size[1],
            }
            return [kind, *(f"{kind}.{name}" for name, there in named.items() if there)]
        case DenseOp(bias=bias):
            return ["dense", *(["dense.no_bias"] if bias is None else [])]
        case ActivationOp(function=function):
            return [f"activation.{function}"]
        case RescaleOp():
            return ["rescale"]
        case GrayscaleOp():
            return ["grayscale"]
        case FlattenOp():
            return ["flatten"]
        case DropoutOp():
            return ["dropout"]
        case SoftmaxOp():
            return ["softmax"]
    raise AssertionError(f"{type(op).__name__} has no feature id")


def _of_optimizer(optimizer: Optimizer) -> list[str]:
    kind = f"optimizer.{type(optimizer).__name__.lower()}"
    named = {
        "momentum": isinstance(optimizer, SGD) and bool(optimizer.momentum),
        "nesterov": isinstance(optimizer, SGD) and optimizer.nesterov,
        "weight_decay": isinstance(optimizer, SGD) and bool(optimizer.weight_decay),
    }
    found = [kind, *(f"{kind}.{name}" for name, there in named.items() if there)]
    found += ["optimizer.clip_global_norm"] if optimizer.clip_global_norm is not None else []
    found += ["optimizer.schedule"] if isinstance(optimizer.learning_rate, Schedule) else []
    return found
