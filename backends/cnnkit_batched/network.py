"""All layers for a slice of so many images, as rows of calls: forward, to the output, and back."""

from __future__ import annotations

from typing import final

import numpy as np

from cnnkit.arrays import Shape
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
from cnnkit.rewriting import simplified
from cnnkit_batched import layers
from cnnkit_batched.engine import A, Arena, Calls, Engine, Head
from cnnkit_batched.layers import Dropping, Layer, Site
from cnnkit_batched.vector import Layout


@final
class Network:
    """The layers of `plan` for `count` images on `engine`, with weights and their gradient in vectors.

    Fill `images` with pixels times `scale` plus `offset` (a Rescale that comes first is left to whoever copies them),
    make the calls of `forward`; then `output` holds what the layers before a Softmax give, and `finish` writes
    probabilities into `probabilities`, which is `output` where there is no Softmax. Where there is a `gradient` to learn,
    fill in what `droppings` keep and the `head`, and `backward` writes it. Make the calls of `reset` before the first
    pass, and again when another network has used the memory of `arena`.
    """

    def __init__(
        self, engine: Engine, arena: Arena, plan: Plan, layout: Layout, vector: A, gradient: A | None, count: int
    ) -> None:
        self.arena, self.count = arena, count
        self.learns = gradient is not None
        self.forward: Calls = []
        self.reset: Calls = []
        self.droppings: list[Dropping] = []
        self.scale, self.offset = 1.0, 0.0
        self.images = arena.keep((count, *plan.input_shape))
        self.turns = {"y": 0, "dy": 0}
        self.shapes: dict[tuple[int, type[Operation]], Shape] = {}
        """What the layers made for operations give, without the batch axis."""

        operations = simplified(plan.operations)
        match operations:
            case [RescaleOp(scale=scale, offset=offset), *operations]:
                self.scale, self.offset = scale, offset
        built: list[Layer] = []
        x, dx, learned = self.images, None, False
        while operations:
            op = operations.pop(0)
            if isinstance(op, SoftmaxOp):
                break
            learned = learned or (self.learns and op.layer in layout.places)
            site = Site(engine, arena, x, dx, self._output, self._gradient if learned else None)
            layer = self._layer(site, op, operations, layout, vector, gradient)
            self.forward += layer.forward
            self.reset += layer.reset
            built.append(layer)
            self.shapes[op.layer, type(op)] = layer.y.shape[1:]
            x, dx = layer.y, layer.dy
        self.output = x
        self.finish: Calls = []
        self.probabilities = x
        self.backward: Calls = []
        if plan.is_classifier:
            self.probabilities = arena.keep(x.shape)
            self.finish = engine.softmax(x, self.probabilities)
        if self.learns:
            self.head = Head(arena.keep((count,), np.int32), arena.keep((count,), np.float64))
            self.backward = engine.cross_entropy(x, self.head, dx)
            for layer in reversed(built):
                self.backward += layer.backward

    def _output(self, shape: Shape) -> A:
        """An array for a layer's output. Without a way back it is needed only until the layer after has read it."""
        if self.learns:
            return self.arena.keep(shape)
        return self.arena.scratch(self._other("y"), shape)

    def _gradient(self, shape: Shape) -> A:
        """An array for the gradient of a layer's output, which is needed only until the layer has gone back."""
        return self.arena.scratch(self._other("dy"), shape)

    def _other(self, what: str) -> str:
        """Two scratches change places, so that a layer reads one and writes the other."""
        self.turns[what] = 1 - self.turns[what]
        return f"{what}{self.turns[what]}"

    def _layer(
        self, site: Site, op: Operation, coming: list[Operation], layout: Layout, vector: A, gradient: A | None
    ) -> Layer:
        """The layer of `op`. An activation after weights, or a ReLU after a maximum, becomes part of it and leaves `coming`."""
        match op:
            case Conv2DOp() | DenseOp():
                follower, function = coming[0] if coming else None, None
                if (
                    isinstance(op, Conv2DOp)
                    and isinstance(follower, MaxPool2DOp)
                    and layers.can_pool(site, op, follower)
                ):
                    coming.pop(0)
                    weights = layout.weights(site.engine, op.layer, vector, gradient)
                    return self._with_relu(site, layers.pooled_convolution(site, op, follower, weights), coming)
                if isinstance(follower, ActivationOp):
                    coming.pop(0)
                    function = follower.function
                weights = layout.weights(site.engine, op.layer, vector, gradient)
                if own := site.engine.layer(site, op, weights, function):
                    return own
                if isinstance(op, Conv2DOp):
                    return layers.convolution(site, op, weights, function)
                return layers.dense(site, op, weights, function)
            case MaxPool2DOp():
                return self._with_relu(site, layers.max_pool(site, op), coming)
            case ActivationOp():
                return layers.activation(site, op, in_place=False)
            case AvgPool2DOp():
                return layers.avg_pool(site, op)
            case FlattenOp():
                return layers.flatten(site, op)
            case RescaleOp():
                return layers.rescale(site, op)
            case GrayscaleOp():
                return site.engine.layer(site, op, None, None) or layers.grayscale(site, op)
            case DropoutOp():
                return self._dropout(site, op)
        raise AssertionError(f"{type(op).__name__} has no layer")

    def _with_relu(self, site: Site, layer: Layer, coming: list[Operation]) -> Layer:
        """A layer of maxima, and the ReLU that follows it if one does, which then leaves `coming`."""
        follower = coming[0] if coming else None
        if isinstance(follower, ActivationOp) and follower.function == "relu":
            coming.pop(0)
            # In place: where the maximum is not positive the pool's way back gets no gradient to hand on.
            after = Site(site.engine, site.arena, layer.y, layer.dy, site.output, site.gradient)
            relu = layers.activation(after, follower, in_place=True)
            layer.forward += relu.forward
            layer.backward = [*relu.backward, *layer.backward]
        return layer

    def _dropout(self, site: Site, op: DropoutOp) -> Layer:
        if not self.learns:
            return Layer(site.x)
        layer, dropping = layers.dropout(site, op)
        self.droppings.append(dropping)
        return layer
