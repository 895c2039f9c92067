"""The contract on a GPU: what comes in is checked and uploaded, what goes out is a copy."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any, Final, SupportsFloat, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels, Parameters, check_images, check_labels, check_order
from cnnkit.backend import EpochTotals, Program, TrainingProgram
from cnnkit.errors import DataError, OutOfMemory
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.state import TrainingState
from cnnkit_batched.engine import A
from cnnkit_batched.vector import Layout
from cnnkit_batched.workers import slices
from cnnkit_cupy.card import Card
from cnnkit_cupy.networks import Networks
from cnnkit_cupy.recipe import Source, run
from cnnkit_cupy.room import Room
from cnnkit_cupy.training import ROUNDED_TO, Trainer, gathering

T = TypeVar("T")

PREDICTED: Final = 1024
"""The most images that go through the layers at once in `predict`, so that memory does not grow with their number."""


def plain(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Images in C order and the byte order of the machine: uint8 as they are, others in `dtype`."""
    wanted = array.dtype if array.dtype == np.uint8 else dtype
    return np.require(array, wanted, ["C_CONTIGUOUS", "ALIGNED", "ENSUREARRAY"])


def predict(networks: Networks, images: Images, output: Array) -> None:
    """Write the last layer's output for each of `images` into the rows of `output`."""
    room = networks.room
    count = min(len(images), PREDICTED)
    each = plain(images[:1], room.dtype).nbytes + 8
    most = networks.reserve(count, count * each + 4 * ROUNDED_TO, learns=False)
    places = room.upload(np.arange(most))
    for part in slices(len(images), most):
        network = networks.get(part.stop - part.start, learns=False)
        source = Source(room.upload(plain(images[part], room.dtype)), None)
        run(gathering(room, network, source, places[: network.count]))
        run(network.forward)
        run(network.finish)
        output[part] = network.probabilities.get()


def give_back_with(program: Program, networks: Networks) -> None:
    """When `program` dies, give its memory back, without waiting for a collection of garbage."""

    def close() -> None:
        networks.release()
        networks.room.give_back()

    weakref.finalize(program, close).atexit = False  # the driver may be gone by then, and takes everything with it


@final
class CupyProgram(Program):
    """Predicts, a slice of the images at a time."""

    def __init__(self, plan: Plan, parameters: Parameters, card: Card) -> None:
        self.plan, self.card = plan, card
        with card.use():
            room = Room(card)
            vector = room.upload(Layout(plan).pack(parameters, card.dtype))
            self.networks = Networks(room, plan, vector, None)
        give_back_with(self, self.networks)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is not as one might expect, such as a convolution that cuDNN does not do."""
        return tuple(self.card.remarks)

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.card.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.card.dtype)
        if len(images):
            with self.card.use():
                predict(self.networks, images, output)
        return output


@final
class Loss:
    """The mean loss of a batch, on the GPU until `float()` waits for it."""

    def __init__(self, card: Card, number: A) -> None:
        self._card, self._number = card, number

    def __float__(self) -> float:
        with self._card.use():
            return float(self._number.get()[0])

    def __repr__(self) -> str:
        return f"Loss({float(self)!r})"


@final
class _Data:
    """The images and labels of the last epoch on the GPU, kept for the next one if the same arrays come again."""

    def __init__(self) -> None:
        self.arrays: tuple[weakref.ref[Any], ...] = ()
        self.source: Source | None = None

    def on_gpu(self, trainer: Trainer, images: Images, labels: Labels) -> Source:
        """The source of `images` and `labels`, which have been checked."""
        arrays = (images, labels)
        same = bool(self.arrays) and all(ref() is array for ref, array in zip(self.arrays, arrays, strict=True))
        if self.source is None or not same:
            self.release(trainer)  # so that old and new need not both be there
            room = trainer.room
            self.source = Source(room.upload_once(plain(images, room.dtype)), room.upload(labels.astype(np.int32)))
            self.arrays = tuple(weakref.ref(array) for array in arrays)
        return self.source

    def release(self, trainer: Trainer) -> None:
        """Let go of them."""
        trainer.forget(self.source)
        self.source = None


@final
class CupyTrainingProgram(TrainingProgram):
    """Trains. A step waits for nothing on the GPU: its loss stays there until it is wanted."""

    def __init__(self, plan: Plan, state: TrainingState, optimizer: Optimizer, card: Card, *, graphs: bool) -> None:
        self.plan, self.optimizer, self.card = plan, optimizer, card
        with card.use():
            self.trainer = Trainer(card, plan, state, optimizer, graphs=graphs)
        self.data = _Data()
        self.batch: Source | None = None
        self.every: A = None
        """0, 1, 2... as the order of a batch that is taken as it comes."""
        give_back_with(self, self.trainer.networks)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is not as one might expect, such as steps that could not be recorded as a CUDA graph."""
        return tuple(self.card.remarks)

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.card.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.card.dtype)
        if len(images):
            with self.card.use():
                predict(self.trainer.networks, images, output)
        return output

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        with self.card.use():
            gradient = self._with_batch(images, labels, self.trainer.learn)
            layout = self.trainer.networks.layout
            return float(self.trainer.loss.get()[0]), layout.unpack(gradient.get())

    def step(self, images: Images, labels: Labels) -> SupportsFloat:
        images, labels = self._checked(images, labels)
        with self.card.use():
            room = self.trainer.room
            loss = room.empty((1,), np.float64)  # the next step overwrites the other
            self._with_batch(images, labels, self.trainer.step)
            room.copy(self.trainer.loss, loss)()
            return Loss(self.card, loss)

    def state(self) -> TrainingState:
        trainer = self.trainer
        unpack = trainer.networks.layout.unpack
        with self.card.use():
            slots = zip(self.optimizer.slot_names, trainer.slots, strict=True)
            found = {name: unpack(slot.get()) for name, slot in slots}
            return TrainingState(unpack(trainer.vector.get()), found, trainer.steps, trainer.seed)

    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        """As the contract says. Arrays that come again are taken to be unchanged."""
        images = check_images(images, self.plan.input_shape, self.card.dtype)
        labels = check_labels(labels, len(images), self.plan.classes)
        places = check_order(order, len(images), batch_size).astype(np.int64)
        if len(places) == 0:
            return EpochTotals(0.0, 0)
        with self.card.use():
            ready = self._epoch_on_gpu(images, labels, places, batch_size)
            if ready is None:
                return super().epoch(images, labels, order, batch_size)
            source, on_gpu = ready
            trainer = self.trainer
            trainer.loss_sum.data.memset_async(0, trainer.loss_sum.nbytes, self.card.stream)
            for start in range(0, len(places), batch_size):
                trainer.step(source, on_gpu[start : start + batch_size])
            return EpochTotals(float(trainer.loss_sum.get()[0]), len(places))

    # ------------------------------------------------------------------------------------------------------ the pieces

    def _checked(self, images: Images, labels: Labels) -> tuple[Images, Labels]:
        images = check_images(images, self.plan.input_shape, self.card.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        return images, check_labels(labels, len(images), self.plan.classes)

    def _with_batch(self, images: Images, labels: Labels, work: Callable[[Source, A], T]) -> T:
        """Do `work` with a batch. Where it does not fit, all that can be spared is given back first."""
        images, labels = plain(images, self.card.dtype), labels.astype(np.int32)
        try:
            ready = self._batch_on_gpu(images, labels)
        except OutOfMemory:
            self._release()
            try:
                ready = self._batch_on_gpu(images, labels)
            except OutOfMemory as error:
                self._release()
                raise self.trainer.saying_what_fits(error, len(images), images[0].nbytes) from error
        return work(*ready)

    def _batch_on_gpu(self, images: Images, labels: Labels) -> tuple[Source, A]:
        """A batch where the last one of its size was, whose recipe then serves again; and its order, which is as it comes."""
        trainer, room, there = self.trainer, self.trainer.room, self.batch
        if there is None or (there.images.shape, there.images.dtype) != (images.shape, images.dtype):
            trainer.forget(there)
            self.batch = self.every = there = None
            there = Source(room.empty(images.shape, images.dtype), room.empty(labels.shape, labels.dtype))
            self.batch, self.every = there, room.upload(np.arange(len(labels)))
        room.copy(room.upload(images), there.images)()
        room.copy(room.upload(labels), there.labels)()
        trainer.recipe(there, len(labels))
        return there, self.every

    def _epoch_on_gpu(
        self, images: Images, labels: Labels, places: NDArray[np.int64], batch_size: int
    ) -> tuple[Source, A] | None:
        """The data of an epoch and its order, with all that the steps take; None where the data are too large for that."""

        def ready() -> tuple[Source, A]:
            source = self.data.on_gpu(self.trainer, images, labels)
            order = self.trainer.room.upload(places)
            counts = {min(batch_size, len(places)), len(places) % batch_size or batch_size}
            for count in sorted(counts, reverse=True):
                self.trainer.recipe(source, count)
            return source, order

        try:
            return ready()
        except OutOfMemory:
            self._release()
        try:
            return ready()
        except OutOfMemory as error:
            self._release()
            self.card.remark(
                f"an epoch goes to the GPU batch by batch, which takes longer, for its data do not fit: {error}"
            )
            return None

    def _release(self) -> None:
        self.data.release(self.trainer)
        self.trainer.forget(self.batch)
        self.batch = self.every = None
        self.trainer.release()
