"""Jitted JAX: `lax.conv_general_dilated` on NHWC, and Adam by hand on donated buffers.

All images lie on the device, out of which each step takes its batch: one call a step, or one call for all whole batches
of an epoch, with `lax.scan` over them.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib import import_module
from typing import Any, Final, NamedTuple, final

import numpy as np

from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.learner import Learner, predict_in_parts, quickest, refuse
from cnnkit.bench.batches.workload import LEARNING_RATE, Workload
from cnnkit.optimizers import Adam
from cnnkit.plan import (
    ActivationOp,
    Conv2DOp,
    DenseOp,
    DropoutOp,
    FlattenOp,
    MaxPool2DOp,
    Pair,
    RescaleOp,
)

jax: Final[Any] = import_module("jax")  # a checker of types need not have it
jnp, lax = jax.numpy, jax.lax

_WITHOUT_YNNPACK: Final = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""With it a convolution ran on one thread and took 4 to 5 times as long as Eigen's on two (jaxlib 0.10)."""
_ACTIVATIONS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
}


def make(workload: Workload, *, loop: bool) -> Learner:
    """The learner; `loop` puts the loop over an epoch's whole batches into one call."""
    # JAX has no option for threads. XLA reads this when it makes its pool, with the first array.
    os.environ["NPROC"] = str(workload.threads)
    return _Jax(workload, loop=loop)


def _compiler_options() -> Mapping[str, str]:
    """Those that this XLA has and needs."""
    if jax.default_backend() != "cpu":
        return {}
    try:
        jax.jit(jnp.negative, compiler_options=_WITHOUT_YNNPACK)(0.0)
    except jax.errors.JaxRuntimeError as error:
        if "No such compile option" not in str(error):
            raise
        return {}  # it is older than YNNPACK in XLA, and its convolutions are Eigen's anyway
    return _WITHOUT_YNNPACK


class _State(NamedTuple):
    """What a step gets and returns; `steps` is how many there were."""

    parameters: Any
    m: Any
    v: Any
    steps: Any


@final
class _Jax(Learner):
    def __init__(self, workload: Workload, *, loop: bool) -> None:
        super().__init__(workload)
        parameters = {name: jnp.array(array) for name, array in workload.parameters.items()}
        m, v = (jax.tree.map(jnp.zeros_like, parameters) for _ in "mv")
        self.state = _State(parameters, m, v, jnp.zeros((), jnp.int32))
        self.images = jnp.array(workload.images)
        self.labels = jnp.array(workload.labels, jnp.int32)
        whole = workload.count - workload.count % workload.batch_size if loop else 0
        order = workload.order.astype(np.int32)
        self.whole_batches = jnp.array(order[:whole].reshape(-1, workload.batch_size))
        starts = range(whole, workload.count, workload.batch_size)
        self.batches = [jnp.array(order[start : start + workload.batch_size]) for start in starts]
        self.options = _compiler_options()
        jit = partial(jax.jit, compiler_options=self.options)
        self.step = jit(self._step, donate_argnums=0)
        self.steps = jit(self._steps, donate_argnums=0)
        self.probabilities = jit(self._probabilities)
        self.size = 0

    @property
    def versions(self) -> Mapping[str, str]:
        return {"jax": jax.__version__, "jaxlib": import_module("jaxlib").__version__}

    @property
    def remarks(self) -> Sequence[str]:
        threads, device = self.workload.threads, jax.default_backend()
        found = [f"jax works on the {device}", f"jax predicts {self.size} images at once"]
        if device == "cpu":
            found.append(f"jax has no option threads; NPROC={threads} in its process's environment limits XLA's pool")
        if self.options:
            found.append("jax is compiled without YNNPACK, whose convolutions are slower than Eigen's")
        return found

    def train(self) -> float:
        sums = []
        if len(self.whole_batches):
            self.state, loss_sum = self.steps(self.state, self.images, self.labels, self.whole_batches)
            sums.append(loss_sum)
        for rows in self.batches:
            self.state, loss_sum = self.step(self.state, self.images, self.labels, rows)
            sums.append(loss_sum)
        jax.block_until_ready(self.state)  # calls return before their work is done, and the last update belongs to it
        return sum(float(loss_sum) for loss_sum in sums) / self.workload.count

    def predict(self) -> Array:
        self.size = self.size or quickest(self._predict)
        return self._predict(self.size)

    def _predict(self, size: int) -> Array:
        work = partial(self.probabilities, self.state.parameters)
        return predict_in_parts(lambda part: np.asarray(work(part)), self.workload.images, size)

    def parameters(self) -> Parameters:
        return {name: np.array(array) for name, array in self.state.parameters.items()}

    # ------------------------------------------------------------------------------------------------- what is traced

    def _scores(self, parameters: Any, images: Any, key: Any = None) -> Any:
        """Without a `key` nothing is dropped."""
        x = images.astype(jnp.float32)
        for operation in self.workload.model.plan().operations[:-1]:
            match operation:
                case RescaleOp():
                    x = x * operation.scale + operation.offset
                case Conv2DOp():
                    x = _convolution(x, parameters[operation.kernel], operation)
                    x = x if operation.bias is None else x + parameters[operation.bias]
                case MaxPool2DOp():
                    x = _max_pool(x, operation)
                case FlattenOp():
                    x = x.reshape(len(x), -1)
                case DenseOp():
                    x = x @ parameters[operation.kernel]
                    x = x if operation.bias is None else x + parameters[operation.bias]
                case ActivationOp():
                    x = _ACTIVATIONS[operation.function](x)
                case DropoutOp():
                    x = x if key is None else _dropped(x, operation, key)
                case _:
                    raise refuse("jax", operation.layer, self.workload.model.layers[operation.layer])
        return x

    def _probabilities(self, parameters: Any, images: Any) -> Any:
        return jax.nn.softmax(self._scores(parameters, images))

    def _loss(self, parameters: Any, images: Any, labels: Any, key: Any) -> Any:
        logarithms = jax.nn.log_softmax(self._scores(parameters, images, key))
        return -jnp.take_along_axis(logarithms, labels[:, None], axis=1).mean()

    def _step(self, state: _State, images: Any, labels: Any, rows: Any) -> tuple[_State, Any]:
        """The state after a step on the images `rows`, and the sum of their losses before it."""
        key = jax.random.fold_in(jax.random.key(self.workload.seed), state.steps)
        loss, gradients = jax.value_and_grad(self._loss)(state.parameters, images[rows], labels[rows], key)
        return _updated(self.workload.optimizer, state, gradients), loss * len(rows)

    def _steps(self, state: _State, images: Any, labels: Any, batches: Any) -> tuple[_State, Any]:
        """As many steps as `batches` `(steps, batch)` has rows."""
        state, sums = lax.scan(lambda state, rows: self._step(state, images, labels, rows), state, batches)
        return state, sums.sum()


def _convolve(
    x: Any,
    kernel: Any,
    padding: Sequence[Pair],
    *,
    strides: Pair = (1, 1),
    spread: Pair = (1, 1),
    dilation: Pair = (1, 1),
) -> Any:
    """`spread` is the dilation of `x`."""
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        padding,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def _convolved(x: Any, kernel: Any, operation: Conv2DOp) -> Any:
    return _convolve(x, kernel, operation.padding, strides=operation.strides, dilation=operation.dilation)


def _convolved_and_kept(x: Any, kernel: Any, operation: Conv2DOp) -> tuple[Any, Any]:
    return _convolved(x, kernel, operation), (x, kernel)


def _convolved_back(operation: Conv2DOp, kept: tuple[Any, Any], dy: Any) -> tuple[Any, Any]:
    """The gradients of both, as convolutions with axes in the order that Eigen takes."""
    x, kernel = kept
    to_x, to_kernel = [], []
    sides = zip(x.shape[1:3], dy.shape[1:3], kernel.shape[:2], operation.strides, operation.dilation, strict=True)
    for (size, outputs, window, stride, dilation), (before, _) in zip(sides, operation.padding, strict=True):
        reach, spread = (window - 1) * dilation, (outputs - 1) * stride
        to_x.append((reach - before, size - 1 - spread + before))
        to_kernel.append((before, reach + spread + 1 - size - before))
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    dx = _convolve(dy, turned, to_x, spread=operation.strides, dilation=operation.dilation)
    dkernel = _convolve(
        x.transpose(3, 1, 2, 0),
        dy.transpose(1, 2, 0, 3),
        to_kernel,
        strides=operation.dilation,
        dilation=operation.strides,
    )
    return dx, dkernel.transpose(1, 2, 0, 3)


_convolution: Final = jax.custom_vjp(_convolved, nondiff_argnums=(2,))
"""XLA brings what JAX would derive into that form by itself, but not in a loop, where a step took 15 times as long."""
_convolution.defvjp(_convolved_and_kept, _convolved_back)


def _max_pool(x: Any, operation: MaxPool2DOp) -> Any:
    """Windows that fill the image side by side are axes of their own: the way back of `reduce_window` takes far longer.

    With it a whole training step took 1.2 to 5.6 times as long. Among equal maxima the gradient is shared out,
    instead of going to the first; under a ReLU those are zeros, which pass nothing on.
    """
    if operation.strides != operation.pool_size or operation.padding != ((0, 0), (0, 0)):
        window, strides, padding = (1, *operation.pool_size, 1), (1, *operation.strides, 1), operation.padding
        return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), *padding, (0, 0)))
    (height, width), (rows, columns, channels) = operation.pool_size, operation.output_shape
    inside = x[:, : rows * height, : columns * width]
    return inside.reshape(-1, rows, height, columns, width, channels).max((2, 4))


def _dropped(x: Any, operation: DropoutOp, key: Any) -> Any:
    kept = jax.random.bernoulli(jax.random.fold_in(key, operation.layer), 1 - operation.rate, x.shape)
    return jnp.where(kept, x / (1 - operation.rate), 0)


def _updated(adam: Adam, state: _State, gradients: Any) -> _State:
    """One step of Adam, its corrections exact also where a power of beta is close to 1."""
    steps = state.steps + 1
    correction_1, correction_2 = (-jnp.expm1(steps * math.log(beta)) for beta in (adam.beta_1, adam.beta_2))
    rate = LEARNING_RATE / correction_1
    m = jax.tree.map(lambda m, g: adam.beta_1 * m + (1 - adam.beta_1) * g, state.m, gradients)
    v = jax.tree.map(lambda v, g: adam.beta_2 * v + (1 - adam.beta_2) * g * g, state.v, gradients)
    parameters = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v / correction_2) + adam.epsilon), state.parameters, m, v
    )
    return _State(parameters, m, v, steps)
