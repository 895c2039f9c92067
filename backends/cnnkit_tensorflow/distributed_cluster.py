"""Who trains together: what TF_CONFIG says of the workers, and the meeting at which all of them are there.

TensorFlow would wait for a worker that never comes for as long as it takes, and say nothing. So the workers meet on plain
sockets first: each tells the first one who it is, and that one lets all of them go on, or tells each what is wrong. This
module imports no TensorFlow: a mistake in TF_CONFIG is known before TensorFlow is loaded.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from cnnkit.errors import BackendError, BackendOptionError

EXAMPLE: Final = (
    'TF_CONFIG=\'{"cluster": {"worker": ["host0:2222", "host1:2222"]}, "task": {"type": "worker", "index": 0}}\''
)
LONGEST: Final = 1 << 16
"""The bytes of the longest message at the meeting."""


@dataclass(frozen=True)
class Member:
    """One worker, as TF_CONFIG has it."""

    job: str
    index: int
    address: str

    def __str__(self) -> str:
        name = self.job if self.job == "chief" else f"{self.job} {self.index}"
        return f"{name} ({self.address})"

    @property
    def place(self) -> tuple[str, int]:
        """The host and the port."""
        host, _, port = self.address.rpartition(":")
        return host.strip("[]"), int(port)


@dataclass(frozen=True)
class Cluster:
    """All workers in the order that TensorFlow gives them, and which of them this process is."""

    members: tuple[Member, ...]
    rank: int

    @property
    def me(self) -> Member:
        """The member that this process is."""
        return self.members[self.rank]

    @property
    def others(self) -> list[Member]:
        """All members but this process."""
        return [member for member in self.members if member != self.me]


# ---------------------------------------------------------------------------------------------------------- TF_CONFIG


def cluster_from(environment: Mapping[str, str]) -> Cluster:
    """What TF_CONFIG says; a `BackendOptionError` where it is not there, cannot be read, or contradicts itself."""
    text = environment.get("TF_CONFIG", "")
    if not text.strip():
        _refuse("TF_CONFIG is not set, which says who the workers are", f"Set it in each worker, as in {EXAMPLE}")
    try:
        config = json.loads(text)
    except ValueError as error:
        _refuse(f"TF_CONFIG is not JSON ({error}): {text[:80]!r}", f"Write it as in {EXAMPLE}")
    if not isinstance(config, dict) or not all(isinstance(config.get(name), dict) for name in ("cluster", "task")):
        _refuse("TF_CONFIG lacks the table 'cluster' or 'task'", f"Write it as in {EXAMPLE}")
    members = _members(config["cluster"])
    return Cluster(members, _rank(members, config["task"]))


def _members(cluster: Mapping[str, Any]) -> tuple[Member, ...]:
    strange = sorted(set(cluster) - {"chief", "worker"})
    if strange:
        _refuse(
            f"the cluster in TF_CONFIG has {', '.join(map(repr, strange))}",
            "List those that train under 'worker', and at most one of them under 'chief'; judge in a process of its own",
        )
    members = []
    for job in ("chief", "worker"):
        addresses = cluster.get(job, [])
        if not isinstance(addresses, list):
            _refuse(f"cluster.{job} in TF_CONFIG is {addresses!r}", "Give a list of addresses, such as ['host0:2222']")
        members += [Member(job, index, _address(job, index, each)) for index, each in enumerate(addresses)]
    if not members:
        _refuse("the cluster in TF_CONFIG is empty", f"List the addresses of all workers, as in {EXAMPLE}")
    if sum(member.job == "chief" for member in members) > 1:
        _refuse("the cluster in TF_CONFIG has more than one chief", "List the others under 'worker'")
    for place, member in enumerate(members):
        for before in members[:place]:
            if before.address == member.address:
                _refuse(
                    f"{before} and {member} have the same address in TF_CONFIG",
                    "Give each worker an address of its own",
                )
    return tuple(members)


def _address(job: str, index: int, address: Any) -> str:
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        _refuse(f"cluster.{job}[{index}] in TF_CONFIG is {address!r}", "Write host:port, such as 'host0:2222'")
    return str(address)


def _rank(members: tuple[Member, ...], task: Mapping[str, Any]) -> int:
    job, index = task.get("type"), task.get("index")
    if isinstance(index, str) and index.isdecimal():  # TensorFlow takes it as well, and shells write it
        index = int(index)
    if isinstance(index, bool) or not isinstance(index, int):
        _refuse(f"task.index in TF_CONFIG is {index!r}", "Give the number of this worker, counted from 0")
    for rank, member in enumerate(members):
        if (member.job, member.index) == (job, index):
            return rank
    known = ", ".join(f"{member.job} {member.index}" for member in members)
    return _refuse(
        f"the task in TF_CONFIG is {job} {index}, but the cluster has {known}", "Give each worker its own of these"
    )


def _refuse(what: str, fix: str) -> NoReturn:
    raise BackendOptionError(f"backend 'tensorflow', strategy 'multi-worker': {what}. {fix}.")


# -------------------------------------------------------------------------------------------------------- the meeting


def meet(cluster: Cluster, about: Mapping[str, Any], timeout: float) -> None:
    """Wait until all workers are there; a `BackendError` where one is not after `timeout` seconds, or differs in `about`.

    The port of this process is free again when this returns.
    """
    deadline = time.monotonic() + timeout
    addresses = [member.address for member in cluster.members]
    hello = {"rank": cluster.rank, "about": {"addresses": addresses, **about}}
    with _own_port(cluster.me) as server:
        if cluster.rank == 0:
            _let_all_in(cluster, server, hello, deadline, timeout)
            return
    _ask_to_go_on(cluster, hello, deadline, timeout)


def wait_for_servers(cluster: Cluster, timeout: float) -> None:
    """Wait until something listens at the addresses of all others; a `BackendError` where it does not in `timeout` seconds."""
    deadline = time.monotonic() + timeout
    for member in cluster.others:
        while True:
            try:
                socket.create_connection(member.place, 1).close()
                break
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise BackendError(
                        f"{member} came, but {cluster.me} could not reach it within {timeout:g} s: {error}. See whether it "
                        "has ended, and that each worker reaches every address in TF_CONFIG; start all of them again."
                    ) from error
                time.sleep(0.1)


def _own_port(me: Member) -> socket.socket:
    _, port = me.place
    try:
        return socket.create_server(("", port))
    except OSError as error:
        raise BackendError(
            f"{me} cannot listen on port {port} of this machine: {error.strerror}. End what uses the port, or give this "
            "worker another one in the TF_CONFIG of all workers."
        ) from error


def _let_all_in(
    cluster: Cluster, server: socket.socket, hello: Mapping[str, Any], deadline: float, timeout: float
) -> None:
    waiting: dict[int, socket.socket] = {}
    answer: dict[str, Any] = {"go": True}
    try:
        _wait_for_all(cluster, server, hello, waiting, deadline, timeout)
    except BackendError as error:
        answer = {"error": str(error)}
        raise
    finally:
        for seat in waiting.values():
            with seat:
                _send(seat, answer)


def _wait_for_all(
    cluster: Cluster,
    server: socket.socket,
    hello: Mapping[str, Any],
    waiting: dict[int, socket.socket],
    deadline: float,
    timeout: float,
) -> None:
    while len(waiting) < len(cluster.others):
        server.settimeout(min(1.0, max(deadline - time.monotonic(), 0.001)))
        try:
            guest, _ = server.accept()
        except TimeoutError:
            guest = None
        for rank in [rank for rank, seat in waiting.items() if _has_left(seat)]:
            waiting.pop(rank).close()
        if guest is not None:
            _seat(cluster, guest, hello, waiting)
        elif time.monotonic() >= deadline:
            missing = [str(each) for rank, each in enumerate(cluster.members) if rank and rank not in waiting]
            raise BackendError(
                f"{', '.join(missing)} did not come within {timeout:g} s. Start all workers with the same TF_CONFIG "
                "but for the task, see that they reach each other, or wait longer with timeout=SECONDS."
            )


def _seat(cluster: Cluster, guest: socket.socket, hello: Mapping[str, Any], waiting: dict[int, socket.socket]) -> None:
    """Put a guest among those who wait. Whoever is no worker is sent away; a worker that differs ends the meeting."""
    said = _receive(guest, time.monotonic() + 2)
    rank: Any = said.get("rank")
    if rank not in range(len(cluster.members)) or not isinstance(said.get("about"), dict):
        guest.close()
        return
    error = ""
    differing = [name for name, value in hello["about"].items() if said["about"].get(name) != value]
    if differing:
        theirs, ours = ({name: about.get(name) for name in differing} for about in (said["about"], hello["about"]))
        error = (
            f"a worker with the number {rank} came with {_listed(theirs)}, but {cluster.me} has {_listed(ours)}. All "
            "workers need the same TF_CONFIG but for the task, the same versions, and as many devices."
        )
    elif rank == 0 or rank in waiting:
        error = f"two processes say that they are {cluster.members[rank]}. Give each worker its own task in TF_CONFIG."
    if error:
        with guest:
            _send(guest, {"error": error})
        raise BackendError(error)
    waiting[rank] = guest


def _ask_to_go_on(cluster: Cluster, hello: Mapping[str, Any], deadline: float, timeout: float) -> None:
    first = cluster.members[0]
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(first.place, max(deadline - time.monotonic(), 0.001)) as seat:
                _send(seat, hello)
                answer = _receive(seat, deadline)
        except OSError:  # it is not there yet, nor perhaps its name
            answer = {}
        if answer.get("go"):
            return
        if "error" in answer:
            raise BackendError(str(answer["error"]))
        time.sleep(0.1)
    raise BackendError(
        f"{first} did not let {cluster.me} begin within {timeout:g} s: it is not there, cannot be reached, or waits for "
        "others. Start all workers with the same TF_CONFIG but for the task, see that they reach each other, or wait "
        "longer with timeout=SECONDS."
    )


def _send(peer: socket.socket, message: Mapping[str, Any]) -> None:
    try:
        peer.sendall(json.dumps({"cnnkit": "meeting", **message}).encode() + b"\n")
    except OSError:  # it has left: whoever waits for its answer will see that
        return


def _receive(peer: socket.socket, deadline: float) -> dict[str, Any]:
    """The message that a peer sends; empty where it leaves, sends none before `deadline`, or speaks something else."""
    data = b""
    try:
        while not data.endswith(b"\n") and len(data) < LONGEST:
            peer.settimeout(max(deadline - time.monotonic(), 0.001))
            more = peer.recv(LONGEST)
            if not more:
                return {}
            data += more
        message = json.loads(data)
    except (OSError, ValueError):
        return {}
    return message if isinstance(message, dict) and message.get("cnnkit") == "meeting" else {}


def _has_left(seat: socket.socket) -> bool:
    """Whether nobody is at the other end: those who wait say nothing, so that only the end can be heard."""
    readable, _, _ = select.select([seat], [], [], 0)
    return bool(readable)


def _listed(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items())
