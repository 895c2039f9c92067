"""The replicas that train as one, how they are brought together, and how they add up what each has worked out.

A replica is a device that learns: a GPU or a share of the CPU of this process (MirroredStrategy), or those of other
processes too (MultiWorkerMirroredStrategy).
"""

from __future__ import annotations

import re
import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, final

import numpy as np
import tensorflow as tf
from tensorflow.python.eager import context

import cnnkit
from cnnkit.errors import BackendError, BackendOptionError
from cnnkit_tensorflow.distributed_cluster import Cluster, meet, wait_for_servers

GROUP: Final = 1_000_000
"""The number under which TensorFlow knows all replicas; its strategies count theirs from 1."""

RECORD: Final = 4096
"""Bytes in which a worker says where it stands."""


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
                if self.cluster is None:
                    raise
                self.broken = self._what_happened(error, self.cluster)
                raise BackendError(self.broken) from error

        return add_up

    def _add(self, vectors: list[Any]) -> Any:
        parts = self.strategy.experimental_distribute_values_from_function(
            lambda replica: vectors[replica.replica_id_in_sync_group]
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

    def _what_happened(self, error: tf.errors.OpError, cluster: Cluster) -> str:
        said = error.message.strip()
        named = {(job, int(index)) for job, index in re.findall(r"/job:(\w+)/(?:replica:0/)?task:(\d+)", said)}
        lost = [str(each) for each in cluster.others if (each.job, each.index) in named]
        who = ", ".join(lost) or (str(cluster.others[0]) if len(cluster.others) == 1 else "another worker")
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
    tasks = [
        context.coordination_config_pb2.CoordinatedJob(name=job, num_tasks=jobs.count(job))
        for job in dict.fromkeys(jobs)
    ]
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
