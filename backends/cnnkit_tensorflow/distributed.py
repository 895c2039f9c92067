"""Training by many as if by one: each replica works on its part of every batch, and all take the same step.

A batch is cut into nearly equal pieces, in the order of the replicas. The mean gradient of a piece, times its share of the
batch, is what a replica hands in; the sum of these is the same in every process. Clipping and the update are worked out
from that, in every process alike, so parameters are the same everywhere without being sent. A mask of dropout is drawn for
the whole batch and cut as the images are.

Two things keep workers from drifting apart unseen. Before training each tells the others where it stands. And every sum
carries a checksum of what each worker gave it: step, images, labels, and now and then parameters.
"""

from __future__ import annotations

import json
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from hashlib import sha256
from typing import Any, Final, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels, check_images, check_labels
from cnnkit.backend import TrainingProgram
from cnnkit.errors import BackendError, DataError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.state import TrainingState
from cnnkit_tensorflow.distributed_team import Team
from cnnkit_tensorflow.graphs import graphs_of
from cnnkit_tensorflow.masks import Masks
from cnnkit_tensorflow.program import Place, TensorFlowProgram
from cnnkit_tensorflow.settings import as_written
from cnnkit_tensorflow.update import update

LANES: Final = 8
"""Numbers below 16 that make a checksum: so small that sums of their squares are exact in float32, of thousands of them."""

STEPS_BETWEEN_LOOKS: Final = 32
"""How many steps lie between two that compare parameters too."""


@dataclass(frozen=True)
class _Standing:
    """Where training stands, on the first device of this process."""

    vector: Any
    slots: tuple[Any, ...]
    step: int


@final
class TeamTrainingProgram(TrainingProgram):
    """Trains with a team. All workers call the same methods with the same arguments, but `predict` and `state`, which need nobody."""

    def __init__(self, plan: Plan, state: TrainingState, optimizer: Optimizer, place: Place, team: Team) -> None:
        self.plan, self.optimizer, self.team = plan, optimizer, team
        self.places = [replace(place, device=device) for device in team.devices]
        self.place = self.places[0]
        self.seed = int(state.seed)
        self.graphs = [graphs_of(plan, optimizer, place.precision, at.device, xla=place.xla) for at in self.places]
        self.masks = Masks(self.graphs[0].dropouts, self.seed)
        self.update = _update_of(optimizer, place.xla)
        self.lock = threading.Lock()
        layout = self.graphs[0].layout
        packed = [
            layout.pack(part, place.dtype)
            for part in (state.parameters, *(state.slots[name] for name in optimizer.slot_names))
        ]
        with team.beginning, self.place.undisturbed():
            _compare(team, _standing(plan, state.step, self.seed, optimizer, place.precision, packed))
            self.add_up = team.new_sum()
            self._sum([tf.zeros(layout.size + 1, place.dtype) for _ in self.places], b"")  # numbered while others wait
            vector, *slots = map(tf.constant, packed)
            self.standing = _Standing(vector, tuple(slots), int(state.step))

    @as_written
    def predict(self, images: Images) -> Array:
        at = self.standing
        return TensorFlowProgram(self.plan, self._copied(at.vector), self.place).predict(images)

    @as_written
    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        with self.lock:
            loss, gradient = self._gradients(self.standing, images, labels, "gradients")
            return loss, self._copied(gradient)

    @as_written
    def step(self, images: Images, labels: Labels) -> float:
        images, labels = self._checked(images, labels)
        with self.lock:
            at = self.standing
            loss, gradient = self._gradients(at, images, labels, "step")
            with self.place.undisturbed():
                coefficients = tf.constant(np.array(self.optimizer.coefficients(at.step), self.place.dtype))
                vector, slots = self.update(at.vector, at.slots, gradient, coefficients)
            self.standing = _Standing(vector, slots, at.step + 1)
            return loss

    epoch = as_written(TrainingProgram.epoch)

    def state(self) -> TrainingState:
        at = self.standing
        slots = {name: self._copied(slot) for name, slot in zip(self.optimizer.slot_names, at.slots, strict=True)}
        return TrainingState(self._copied(at.vector), slots, at.step, self.seed)

    # ------------------------------------------------------------------------------------------------------ the pieces

    def _gradients(self, at: _Standing, images: Images, labels: Labels, call: str) -> tuple[float, Any]:
        """The mean loss of the whole batch and its gradient, a vector."""
        masks = self.masks.draw(at.step, len(images), len(images))

        def hand_in(number: int) -> Any:
            piece = self.team.pieces(len(images))[number]
            return self._share(
                number, at.vector, images[piece], labels[piece], [mask[piece] for mask in masks], len(images)
            )

        numbers = range(len(self.places))
        threads = self.team.threads
        shares = list(threads.map(hand_in, numbers) if threads else map(hand_in, numbers))
        with self.place.undisturbed():
            total = self._sum(shares, self._what_is_done(at, images, labels, call))
            return float(total[-1]), total[:-1]

    def _share(
        self, number: int, vector: Any, images: Images, labels: Labels, masks: Sequence[NDArray[np.bool_]], count: int
    ) -> Any:
        """The gradient and the loss of a piece, as far as they count in a batch of `count` images."""
        place, graphs = self.places[number], self.graphs[number]
        with place.undisturbed():
            if len(images) == 0:  # it has no mean; and it must not have one, for NaN would spread
                return tf.zeros(graphs.layout.size + 1, place.dtype)
            batch = tf.constant(np.ascontiguousarray(images)), tf.constant(labels.astype(np.int32))
            loss, gradient = graphs.gradients(tf.identity(vector), *batch, [tf.constant(mask) for mask in masks])
            return tf.concat([gradient, [loss]], 0) * (len(images) / count)  # (parameters + 1,)

    def _sum(self, shares: Sequence[Any], what_is_done: bytes) -> Any:
        """The sum of the shares of all replicas, who must all have said that they do the same."""
        number = zlib.crc32(what_is_done)
        lanes = [number >> 4 * lane & 15 for lane in range(LANES)]
        check = tf.constant([*lanes, *(lane * lane for lane in lanes)], shares[0].dtype)
        total = self.add_up([tf.concat([share, check], 0) for share in shares])
        sums = total[-2 * LANES :].numpy().astype(np.int64)
        # By Cauchy and Schwarz: (sum of x)**2 is as large as size * (sum of x**2) only where all x are the same.
        if (sums[:LANES] ** 2 != self.team.size * sums[LANES:]).any():
            raise BackendError(
                f"backend 'tensorflow': the workers do not do the same. At step {self.standing.step} they have other "
                "images, labels, parameters or calls. Start all of them with the same data, seed and arguments."
            )
        return total[: -2 * LANES]

    def _what_is_done(self, at: _Standing, images: Images, labels: Labels, call: str) -> bytes:
        if self.team.cluster is None:
            return b""
        parts = [f"{at.step} {call} {images.shape} {images.dtype}".encode()]
        parts += [_crc(images), _crc(labels.astype(np.int64))]
        if at.step % STEPS_BETWEEN_LOOKS == 0:
            parts.append(_crc(at.vector.numpy()))
        return b" ".join(parts)

    def _copied(self, vector: Any) -> dict[str, Array]:
        return {name: view.copy() for name, view in self.graphs[0].layout.unpack(vector.numpy()).items()}

    def _checked(self, images: Images, labels: Labels) -> tuple[Images, Labels]:
        images = check_images(images, self.plan.input_shape, self.place.dtype)
        if len(images) == 0:
            raise DataError("the batch has 0 images, which have no mean loss. Give at least one image.")
        return images, check_labels(labels, len(images), self.plan.classes)


@lru_cache(maxsize=64)
def _update_of(optimizer: Optimizer, xla: bool) -> Callable[..., tuple[Any, tuple[Any, ...]]]:
    """The graph of an update, as `Graphs` has it in its step."""
    graph: Callable[..., tuple[Any, tuple[Any, ...]]] = tf.function(
        partial(update, optimizer), autograph=False, jit_compile=xla or None
    )
    return graph


def _crc(array: NDArray[Any]) -> bytes:
    return str(zlib.crc32(np.ascontiguousarray(array).data)).encode()


# ------------------------------------------------------------------------------------------------ where workers stand


def _standing(
    plan: Plan, step: int, seed: int, optimizer: Optimizer, precision: str, packed: Sequence[Array]
) -> dict[str, Any]:
    """What must be the same on all workers before they train; short, for it goes to all of them."""
    parameters, *slots = (_digest(array.tobytes()) for array in packed)
    return {
        "model": f"{plan.model.title} ({_digest(json.dumps(plan.model.to_dict()).encode())})",
        "optimizer": repr(optimizer),
        "precision": precision,
        "seed": seed,
        "step": int(step),
        "parameters": parameters,
        "slots": " ".join(slots),
    }


def _digest(data: bytes) -> str:
    return sha256(data).hexdigest()[:12]


def _compare(team: Team, mine: Mapping[str, Any]) -> None:
    """Raise `BackendError` on every worker unless all stand where this one stands."""
    if team.cluster is None:
        return
    standings = [json.loads(text) for text in team.exchange(json.dumps(mine))]
    for name in mine:
        values = [standing[name] for standing in standings]
        if any(value != values[0] for value in values):
            said = ", ".join(f"{value} on {member}" for value, member in zip(values, team.cluster.members, strict=True))
            fix = "Start all workers with the same model, data, seed and settings"
            if name in ("step", "parameters", "slots"):
                fix = (
                    "Where a run is resumed, all must have the same checkpoint: give all the same folder, or copy "
                    "checkpoint.safetensors from the worker with the highest step to the others' folders"
                )
            raise BackendError(f"backend 'tensorflow': the workers differ in {name}: {said}. {fix}.")
