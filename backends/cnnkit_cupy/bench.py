"""Single layers on the GPU, for the table of layers of `cnnkit bench --gpu`: made as a network makes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, final

from cnnkit.arrays import Array
from cnnkit.bench.gpu.contestant import LayerCalls
from cnnkit.bench.gpu.models import LayerTask
from cnnkit.plan import ActivationOp, Conv2DOp, DenseOp, MaxPool2DOp
from cnnkit_batched import layers
from cnnkit_batched.engine import A, Arena, Calls
from cnnkit_batched.layers import Layer, Site
from cnnkit_batched.memory import Block, Loose
from cnnkit_batched.vector import Layout
from cnnkit_cupy.backend import CupyBackend
from cnnkit_cupy.card import Card
from cnnkit_cupy.engine import CudaEngine
from cnnkit_cupy.paper import Paper
from cnnkit_cupy.room import Room
from cnnkit_cupy.target import Target


def layer_calls(backend: CupyBackend, task: LayerTask) -> LayerCalls:
    """The layer of `task` on the GPU of `backend`. Raises `OutOfMemory` where it does not fit."""
    card = backend.card
    with card.use():
        paper, room = Paper(card.dtype, card.convolution), Room(card)
        needed = Loose(CudaEngine(paper, card.block))
        _Single.made(card, paper, needed, task)
        single = _Single.made(card, room, Block(room.empty((needed.bytes,), "uint8"), needed, card.dtype), task)

    def forward() -> None:
        single.run(single.layer.forward)

    def backward() -> None:
        single.run(single.layer.backward)

    return LayerCalls(forward, backward, single.results, room.stream)


@final
@dataclass(frozen=True)
class _Single:
    """A layer by itself, and the arrays that have its results."""

    card: Card
    target: Target
    layout: Layout
    layer: Layer
    gradient: A
    dx: A | None

    @classmethod
    def made(cls, card: Card, target: Target, arena: Arena, task: LayerTask) -> _Single:
        """The layer of `task` on `target`, whose buffers come from `arena`."""
        plan, engine = task.plan, CudaEngine(target, card.block)
        op, *rest = plan.operations
        function = next((it.function for it in rest if isinstance(it, ActivationOp)), None)
        layout = Layout(plan)
        x, dy = (target.upload(it.astype(card.dtype)) for it in (task.x, task.dy))
        dx = target.empty(x.shape) if task.input_gradient else None
        gradient = target.empty((max(1, layout.size),))
        site = Site(engine, arena, x, dx, arena.keep, lambda _: dy)
        if isinstance(op, MaxPool2DOp):
            return cls(card, target, layout, layers.max_pool(site, op), gradient, dx)
        assert isinstance(op, (Conv2DOp, DenseOp))  # noqa: S101 - there are no others in the table
        vector = target.upload(layout.pack(task.parameters, card.dtype))
        weights = layout.weights(engine, op.layer, vector, gradient)
        layer = engine.layer(site, op, weights, function)
        if layer is None and isinstance(op, Conv2DOp):
            layer = layers.convolution(site, op, weights, function)
        elif layer is None and isinstance(op, DenseOp):
            layer = layers.dense(site, op, weights, function)
        assert layer is not None  # noqa: S101 - it is one of the two
        return cls(card, target, layout, layer, gradient, dx)

    def run(self, calls: Calls) -> None:
        """Give work to the stream."""
        with self.card.use():
            for call in calls:
                call()

    def results(self) -> dict[str, Array]:
        """What came out, on the host."""
        with self.card.use():
            found: dict[str, Any] = {"output": self.layer.y.get()}
            parameters = self.layout.unpack(self.gradient.get())
            found |= dict(zip(("kernel", "bias"), parameters.values(), strict=False))
            return found if self.dx is None else {**found, "input": self.dx.get()}
