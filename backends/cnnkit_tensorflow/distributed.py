"""Training by many as if by one: each replica works on its part of every batch, and all take the same step.

A replica is a device that learns: a GPU or a share of the CPU of this process (MirroredStrategy), or those of other
processes too (MultiWorkerMirroredStrategy). A batch is cut into nearly equal pieces, in the order of the replicas. The
mean gradient of a piece, times its share of the batch, is what a replica hands in; TensorFlow adds these up, and gives
every process the same sum. Clipping and the update are worked out from that, in every process alike, so parameters are
the same everywhere without being sent. A mask of dropout is drawn for the whole batch and cut as the images are.

Two things keep workers from drifting apart unseen. Before training each tells the others where it stands. And every sum
carries a checksum of what each worker gave it: step, images, labels, and now and then parameters.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256
from typing import Any, Final, final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from tensorflow.python.eager import context

import cnnkit
from cnnkit.arrays import Array, Images, Labels, check_images, check_labels
from cnnkit.backend import TrainingProgram
from cnnkit.errors import BackendError, BackendOptionError, DataError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.randomness import dropout_mask
from cnnkit.state import TrainingState
from cnnkit_tensorflow.distributed_cluster import Cluster, meet, wait_for_servers
from cnnkit_tensorflow.graphs import graphs_of
from cnnkit_tensorflow.program import Place, TensorFlowProgram

GROUP: Final = 1_000_000
"""The number under which TensorFlow knows all replicas; its strategies count theirs from 1."""

LANES: Final = 4
"""Numbers below 256 that make a checksum: small enough that their sums are exact in float32, for up to 255 replicas."""

RECORD: Final = 4096
"""Bytes in which a worker says where it stands."""

STEPS_BETWEEN_LOOKS: Final = 32
"""How many steps lie between two that compare parameters too."""


@final
class Team:
    """The replicas that train as one, of which `devices` are in this process.

    Args:
        strategy: TensorFlow's, which has made the cluster and chosen the devices.
        cluster: The workers; None where there is only this process.
        timeout: How many seconds a worker waits for another that is alive.
    """

    def __init__(self, strategy: tf.distribute.Strategy, cluster: Cluster | None, timeout: float) -> None:
        self.strategy, self.cluster, self.timeout = strategy, cluster, timeout
        self.devices: tuple[str, ...] = tuple(strategy.extended.worker_devices)
        self.first = cluster.rank * len(self.devices) if cluster else 0
        self.size: int = strategy.num_replicas_in_sync
        self.beginning = threading.Lock()
        """Held while a program begins: its sums are numbered in the order in which workers make them."""
        self.threads = ThreadPoolExecutor(len(self.devices)) if len(self.devices) > 1 else None
        self.sums = 0
        self.broken: str | None = None
        self.compare = self.new_sum()

    @property
    def leads(self) -> bool:
        """Whether this process is the first, or the only one."""
        return self.cluster is None or self.cluster.rank == 0

    def pieces(self, count: int) -> list[slice]:
        """Which of `count` images are those of each replica in this process. Some may be empty."""
        numbers = range(self.first, self.first + len(self.devices))
        return [slice(each * count // self.size, (each + 1) * count // self.size) for each in numbers]

    def new_sum(self) -> Callable[[Sequence[Any]], Any]:
        """A function that adds up vectors of one size, one from each replica, and gives all processes the same sum.

        Every worker must make its sums in the same order, and call each as often. Calls of two of them may cross.
        """
        self.sums += 1
        traced = tf.function(self._add if self.cluster is None else self._add_with_others(self.sums), autograph=False)

        def add_up(vectors: Sequence[Any]) -> Any:
            if self.broken:
                raise BackendError(self.broken)
            try:
                return traced(list(vectors))
            except tf.errors.OpError as error:
                self.broken = self._what_happened(error)
                raise BackendError(self.broken) from error

        return add_up

    def _add(self, vectors: list[Any]) -> Any:
        parts = self.strategy.experimental_distribute_values_from_function(
            lambda context: vectors[context.replica_id_in_sync_group]
        )
        return self.strategy.reduce(tf.distribute.ReduceOp.SUM, parts, axis=None)

    def _add_with_others(self, number: int) -> Callable[[list[Any]], Any]:
        """The operation under `MultiWorkerMirroredStrategy.reduce`, which numbers calls as they come.

        Two threads would be given each other's numbers where their calls come in another order on another worker.
        """
        on_gpus = "GPU" in self.devices[0]
        how = {
            "group_size": self.size,
            "group_key": GROUP,
            "instance_key": number,
            "ordering_token": [],
            "merge_op": "Add",
            "final_op": "Id",
            "communication_hint": "auto" if on_gpus else "ring",
            "timeout_seconds": float(self.timeout),
        }

        def add(vectors: list[Any]) -> Any:
            sums = []
            for device, vector in zip(self.devices, vectors, strict=True):
                with tf.device(device):
                    sums.append(tf.raw_ops.CollectiveReduceV2(input=vector, **how))
            return sums[0]

        return add

    def exchange(self, text: str) -> list[str]:
        """The texts of all workers, in their order."""
        if self.cluster is None:
            return [text]
        encoded = text.encode()
        if len(encoded) > RECORD:
            raise BackendError(f"a worker has {len(encoded)} bytes to say, but there is room for {RECORD}.")
        mine = np.zeros((len(self.cluster.members), RECORD), np.float32)
        mine[self.cluster.rank, : len(encoded)] = list(encoded)
        others = tf.zeros(mine.size)
        total = self.compare([tf.constant(mine.ravel()), *(others for _ in self.devices[1:])])
        rows = total.numpy().reshape(mine.shape).astype(np.uint8)
        return [bytes(row).rstrip(b"\0").decode() for row in rows]

    def _what_happened(self, error: tf.errors.OpError) -> str:
        said = error.message.strip()
        who = "another worker"
        if self.cluster is not None:
            named = {(job, int(index)) for job, index in re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", said)}
            lost = [str(each) for each in self.cluster.others if (each.job, each.index) in named]
            who = ", ".join(lost) or (str(self.cluster.others[0]) if len(self.cluster.others) == 1 else who)
        what = f"{who} has ended, or cannot be reached any more; what it printed last may say why"
        if isinstance(error, tf.errors.DeadlineExceededError):
            what = f"{who} is alive but did not come to the same step within {self.timeout:g} s"
        reason = next((line for line in said.splitlines() if "abort" in line or "timed out" in line), said[:200])
        return (
            f"backend 'tensorflow': training cannot go on, since {what}. The last checkpoint of the run, if "
            "there is one, is kept: start all workers again and resume it (`cnnkit train --resume RUN`, or resume=True). "
            f"TensorFlow says: {reason}"
        )


# ------------------------------------------------------------------------------------------------------ making a team


_teams: dict[str, Team] = {}
_making = threading.Lock()


def mirrored(device: str | None, replicas: int | None) -> Team:
    """The team of all GPUs of this process, of the first `replicas` of them, or of so many shares of the CPU."""
    if device not in (None, "cpu"):
        names = [f"/GPU:{number}" for number in range(len(tf.config.get_visible_devices("GPU")))]
        if replicas is not None and replicas > len(names):
            raise BackendOptionError(
                f"backend 'tensorflow': replicas is {replicas}, but TensorFlow sees {len(names)} GPUs. Ask for no more, "
                "or leave replicas out for all of them."
            )
        names = names[:replicas]
    else:
        names = [f"/CPU:{number}" for number in range(replicas or 1)]
        _split_the_cpu(len(names))
    key = "mirrored " + " ".join(names)
    with _making:
        if key not in _teams:
            _teams[key] = Team(tf.distribute.MirroredStrategy(names), None, 0)
        return _teams[key]


def _split_the_cpu(count: int) -> None:
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        there = len(tf.config.list_logical_devices("CPU"))
        if there < count:
            raise BackendOptionError(
                f"backend 'tensorflow': replicas is {count}, but TensorFlow runs already in this process, on "
                f"{there} CPU{'s' if there > 1 else ''}, as it calls them, and that is set once for all. Create the "
                "backend before TensorFlow is first used, in a process of its own."
            ) from error


def multi_worker(cluster: Cluster, device: str | None, timeout: float) -> Team:
    """The team of all workers of `cluster`, made when all are there. A process can be in one cluster only."""
    key = f"multi-worker {cluster} {device or 'cpu'}"
    with _making:
        if key not in _teams:
            _require_nothing_running()
            if device in (None, "cpu"):
                tf.config.set_visible_devices([], "GPU")  # TensorFlow's strategy takes all that it sees
            devices = len(tf.config.get_visible_devices("GPU")) or 1
            about = {"replicas": devices, "tensorflow": tf.__version__, "cnnkit": cnnkit.__version__}
            meet(cluster, about, timeout)
            _teams[key] = Team(_strategy(cluster, timeout, on_gpus=device not in (None, "cpu")), cluster, timeout)
        return _teams[key]


def _require_nothing_running() -> None:
    """Raise `BackendOptionError` where TensorFlow runs already, for a cluster must be there before."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()])
    except RuntimeError as error:
        raise BackendOptionError(
            "backend 'tensorflow': strategy is 'multi-worker', but TensorFlow runs already in this process, and joins a "
            "cluster only before. Create the backend before TensorFlow is first used, in a process of its own."
        ) from error


def _strategy(cluster: Cluster, timeout: float, *, on_gpus: bool) -> tf.distribute.Strategy:
    """TensorFlow's strategy for workers who have met.

    While TensorFlow makes a cluster it holds Python up, and the first worker would wait an hour for one that was lost
    since the meeting. So it begins when TensorFlow answers in all others, who wait no longer than `timeout` for it.
    """
    if cluster.rank == 0:
        wait_for_servers(cluster, timeout)
    jobs = [member.job for member in cluster.members]
    tasks = [context.coordination_config_pb2.CoordinatedJob(name=job, num_tasks=jobs.count(job)) for job in set(jobs)]
    first = cluster.members[0]
    # TensorFlow's strategy would do this itself, but leaves out the timeout; there is no public way to give it.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader=f"/job:{first.job}/replica:0/task:{first.index}",
        cluster_register_timeout_in_ms=int(1000 * timeout),
        coordinated_jobs=tasks,
    )
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.AUTO if on_gpus else communication.RING, timeout_seconds=timeout
    )
    try:
        strategy = tf.distribute.MultiWorkerMirroredStrategy(communication_options=options)
    except (tf.errors.OpError, RuntimeError) as error:
        raise BackendError(
            f"backend 'tensorflow': all workers were there, but they could not be made a cluster: "
            f"{str(error).splitlines()[0]}. See that each worker reaches every address in TF_CONFIG, and start all of "
            "them again."
        ) from error
    if threading.current_thread() is threading.main_thread():
        # TensorFlow takes SIGTERM for a note that the machine will go; it should end the process, as before.
        before = signal.getsignal(signal.SIGTERM)
        if before is not None:
            signal.signal(signal.SIGTERM, before)
    return strategy


# ----------------------------------------------------------------------------------------------------------- training


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

    def predict(self, images: Images) -> Array:
        at = self.standing
        return TensorFlowProgram(self.plan, self._copied(at.vector), self.place).predict(images)

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        images, labels = self._checked(images, labels)
        with self.lock:
            loss, gradient = self._gradients(self.standing, images, labels, "gradients")
            return loss, self._copied(gradient)

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

    def state(self) -> TrainingState:
        at = self.standing
        slots = {name: self._copied(slot) for name, slot in zip(self.optimizer.slot_names, at.slots, strict=True)}
        return TrainingState(self._copied(at.vector), slots, at.step, self.seed)

    # ------------------------------------------------------------------------------------------------------ the pieces

    def _gradients(self, at: _Standing, images: Images, labels: Labels, call: str) -> tuple[float, Any]:
        """The mean loss of the whole batch and its gradient, a vector."""
        masks = [
            dropout_mask(self.seed, at.step, op.layer, (len(images), *op.output_shape), op.rate) != 0
            for op in self.graphs[0].dropouts
        ]

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
        lanes = [number >> 8 * lane & 255 for lane in range(LANES)]
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
    """The graph of an update: clipping as in `Graphs`, then the optimizer's rule."""

    def update(vector: Any, slots: tuple[Any, ...], gradient: Any, coefficients: Any) -> tuple[Any, tuple[Any, ...]]:
        limit = optimizer.clip_global_norm
        if limit is not None:
            norm = tf.sqrt(tf.reduce_sum(tf.square(tf.cast(gradient, tf.float64))))
            gradient *= tf.cast(tf.where(norm > limit, limit / norm, tf.ones_like(norm)), gradient.dtype)
        vector, slots = optimizer.apply(vector, gradient, slots, tf.unstack(coefficients))
        return vector, tuple(slots)

    graph: Callable[..., tuple[Any, tuple[Any, ...]]] = tf.function(update, autograph=False, jit_compile=xla or None)
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
