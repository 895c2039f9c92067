"""What a training program has on the GPU, and its steps: nothing here waits for the GPU before somebody wants a number."""

from __future__ import annotations

import math
from functools import partial
from typing import Final, final

import numpy as np

from cnnkit.errors import OutOfMemory
from cnnkit.optimizers import Optimizer
from cnnkit.plan import DropoutOp, Plan
from cnnkit.randomness import dropout_kept
from cnnkit.state import TrainingState
from cnnkit_batched.engine import A, Calls
from cnnkit_batched.network import Network
from cnnkit_batched.vector import Layout
from cnnkit_batched.workers import slices
from cnnkit_cupy.card import Card
from cnnkit_cupy.networks import Networks
from cnnkit_cupy.recipe import Recipe, Source, run
from cnnkit_cupy.room import Room
from cnnkit_cupy.update import Update

MOST_RECIPES: Final = 8
"""Recipes for so many sizes of batches are kept, each with its graph."""

ROUNDED_TO: Final = 512
"""CuPy's pool takes memory in multiples of so many bytes."""

UPLOADS: Final = 16
"""At most so many arrays are on their way at once."""


def gathering(room: Room, network: Network, source: Source, places: A) -> Calls:
    """The calls that bring the images of `source` at `places` into a network, rescaled."""
    images, pixels = network.images, network.images.size // network.count
    name = "gather_images_bytes" if source.images.dtype == np.uint8 else "gather_images_reals"
    return [
        room.kernel(
            name, source.images, places, images, network.count, pixels, float(network.scale), float(network.offset)
        )
    ]


@final
class Trainer:
    """Parameters, slots and steps of one run. All of it works inside of `card.use()`."""

    def __init__(self, card: Card, plan: Plan, state: TrainingState, optimizer: Optimizer, *, graphs: bool) -> None:
        self.card, self.plan, self.optimizer, self.graphs = card, plan, optimizer, graphs
        self.steps, self.seed = int(state.step), int(state.seed)
        self.dropouts = [op for op in plan.operations if isinstance(op, DropoutOp)]
        self.room, layout = Room(card), Layout(plan)
        room = self.room
        self.vector = room.upload(layout.pack(state.parameters, card.dtype))
        self.slots = tuple(room.upload(layout.pack(state.slots[name], card.dtype)) for name in optimizer.slot_names)
        self.gradient = room.zeros((layout.size,))
        self.total: A = None
        """The sum of the gradients of several slices."""
        self.loss, self.loss_sum = room.zeros((1,), np.float64), room.zeros((1,), np.float64)
        self.networks = Networks(room, plan, self.vector, self.gradient)
        self.update = Update(room, optimizer, self.vector, self.slots)
        self.places: A = None
        self.masks: dict[int, A] = {}

    # -------------------------------------------------------------------------------------------------------- a step

    def learn(self, source: Source, order: A) -> A:
        """The gradient of the mean loss of the images at `order`, which is in `loss`; nothing else changes."""
        recipe = self._prepared(source, order)
        run(recipe.learn)
        return recipe.gradient

    def step(self, source: Source, order: A) -> None:
        """One step on the images at `order`. The mean loss before it is in `loss`; `loss_sum` grows by that of all images."""
        recipe = self._prepared(source, order)
        self.update.prepare(self.steps)
        recipe.run(self.card, graphs=self.graphs)
        self.update.apply(recipe.gradient, self.steps)
        self.steps += 1
        self.update.done(self.steps)

    def _prepared(self, source: Source, order: A) -> Recipe:
        """The recipe for a batch, with `order` and the masks of the coming step where it reads them."""
        count = len(order)
        recipe = self.recipe(source, count)
        self.room.copy(order, self.places[:count])()
        for op in self.dropouts:
            shape = (count, *op.output_shape)
            kept = dropout_kept(self.seed, self.steps, op.layer, shape, op.rate).view(np.uint8)
            self.room.copy(self.room.upload(kept), self.masks[op.layer][:count])()
        return recipe

    # ------------------------------------------------------------------------------------------------------- a recipe

    def recipe(self, source: Source, count: int) -> Recipe:
        """How batches of `count` images of `source` are learned, with all the memory that it takes."""
        self._reserve_batch(count)
        recipes, key = self.networks.recipes, (count, id(source))
        if key not in recipes:
            most = self.networks.reserve(count, self._spare(count, source.images[0].nbytes), learns=True)
            if len(recipes) >= MOST_RECIPES:
                recipes.clear()
            recipes[key] = self._new_recipe(source, count, most), source
        return recipes[key][0]

    def forget(self, source: Source | None) -> None:
        """Let go of `source`, which will not come again."""
        recipes = self.networks.recipes
        for key in [key for key, (_, its) in recipes.items() if its is source]:
            del recipes[key]

    def _reserve_batch(self, count: int) -> None:
        """Room for the places and masks of a batch."""
        if self.places is not None and len(self.places) >= count:
            return
        self.networks.recipes.clear()
        self.places, self.masks = None, {}
        self.places = self.room.empty((count,), np.int64)
        self.masks = {op.layer: self.room.empty((count, *op.output_shape), np.uint8) for op in self.dropouts}

    def _new_recipe(self, source: Source, count: int, most: int) -> Recipe:
        parts, room = slices(count, most), self.room
        if len(parts) > 1 and self.total is None:
            self.total = room.zeros(self.gradient.shape)
        learn: Calls = []
        for number, part in enumerate(parts):
            network = self.networks.get(part.stop - part.start, learns=True)
            head, places = network.head, self.places[part]
            learn += gathering(room, network, source, places)
            learn.append(room.kernel("gather_labels", source.labels, places, head.labels, network.count))
            learn.append(partial(setattr, head, "weight", 1 / count))
            learn += [room.copy(self.masks[one.op.layer][part], one.kept) for one in network.droppings]
            learn += [*network.forward, *network.backward]
            learn.append(room.kernel("sum_losses", head.losses, self.loss, network.count, 1 / count, int(number > 0)))
            if len(parts) > 1:
                summed = room.add if number else room.copy
                learn.append(summed(self.gradient, self.total))
        gradient = self.gradient if len(parts) == 1 else self.total
        update = self.update.calls(gradient)
        update.append(room.kernel("sum_losses", self.loss, self.loss_sum, 1, float(count), 1))
        return Recipe(learn, update, gradient)

    # ------------------------------------------------------------------------------------------------------- memory

    def release(self) -> None:
        """Give back all but parameters and slots."""
        self.networks.release()
        self.places, self.masks, self.total = None, {}, None
        self.room.give_back()

    def _spare(self, count: int, image_bytes: int) -> int:
        """The bytes that each step on a batch of `count` images takes on the way: images, labels, places and masks."""
        return int(self.gradient.nbytes) + count * (image_bytes + 4 + 8 + self._mask_bytes) + UPLOADS * ROUNDED_TO

    @property
    def _mask_bytes(self) -> int:
        return sum(math.prod(op.output_shape) for op in self.dropouts)

    def largest_batch(self, image_bytes: int) -> int | None:
        """The most images of `image_bytes` that a batch may have, once `release` was called; None if there are none."""
        least = self.networks.sizes.measured(1, learns=True).bytes + self._spare(0, image_bytes)
        kept = image_bytes + 4 + 8 + 8 + self._mask_bytes
        pieces = UPLOADS + len(self.dropouts)
        each = kept + self._spare(1, image_bytes) - self._spare(0, image_bytes)
        count = (self.card.free - least - pieces * ROUNDED_TO) // each
        return int(count) if count > 0 else None

    def saying_what_fits(self, error: OutOfMemory, count: int, image_bytes: int) -> OutOfMemory:
        """`error` about a batch of `count` images, with the largest that fits."""
        self.release()
        batch = self.largest_batch(image_bytes)
        advice = f"The largest batch that fits is {batch}." if batch else "Not even a batch of one image fits."
        return OutOfMemory(f"a batch of {count} images does not fit: {error} {advice}", error.asked, error.free, batch)
