"""Settings that TensorFlow keeps for the whole process: left as they are, given back, or changed because that was asked.

Whether float32 products may be rounded (TF32) is decided while a program runs, and given back. What cannot be given back
is done only when it is asked for: a number of threads, and deterministic operations. One thing is done unasked: GPUs that
TensorFlow sees are given memory as it is needed. Else TensorFlow takes nearly all memory of all of them as soon as it
runs anything, on the CPU too, and other engines find none.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import tensorflow as tf

from cnnkit.errors import BackendError, BackendOptionError

Method = TypeVar("Method", bound=Callable[..., Any])


class _Rounding:
    """TensorFlow's one switch for TF32, held for all who need it as it is; who needs it the other way waits for a turn.

    Where nobody is left, the switch is given back as it was found.
    """

    def __init__(self) -> None:
        self.turn = threading.Condition()
        self.queue: deque[object] = deque()  # in the order of arrival, or those who come without pause take every turn
        self.tf32 = False
        self.users = 0
        self.before = False
        self.own = threading.local()  # its `depth`: how often this thread is inside

    def enter(self, tf32: bool) -> None:
        depth = getattr(self.own, "depth", 0)
        with self.turn:
            if depth == 0:
                self._wait(tf32)
            elif self.tf32 != tf32:
                raise BackendError(
                    "backend 'tensorflow': a call with TF32 and one without are inside of each other in one thread. "
                    "Let the outer call return first."
                )
            if self.users == 0:
                self.before = tf.config.experimental.tensor_float_32_execution_enabled()
                tf.config.experimental.enable_tensor_float_32_execution(tf32)
                self.tf32 = tf32
            self.users += 1
        self.own.depth = depth + 1

    def _wait(self, tf32: bool) -> None:
        place = object()
        self.queue.append(place)
        try:
            self.turn.wait_for(lambda: self.queue[0] is place and (self.users == 0 or self.tf32 == tf32))
        finally:  # also where Ctrl-C ends the waiting
            self.queue.remove(place)
            self.turn.notify_all()

    def leave(self) -> None:
        self.own.depth -= 1
        with self.turn:
            self.users -= 1
            if self.users == 0:
                tf.config.experimental.enable_tensor_float_32_execution(self.before)
                self.turn.notify_all()


_rounding: Final = _Rounding()


class _Process:
    """The process that TensorFlow runs in. A fork copies none of its threads, and a call in the copy would wait for them."""

    def __init__(self) -> None:
        self.number: int | None = None

    def require_this(self) -> None:
        """From the first time on it is this one. A `BackendError` in a fork of it."""
        if self.number is None:
            self.number = os.getpid()
        elif self.number != os.getpid():
            raise BackendError(
                "backend 'tensorflow' was called in a fork of a process in which it had run already, where TensorFlow "
                "never returns. Start processes afresh, with multiprocessing.get_context('spawn'), or use the backend "
                "only after the fork."
            )


_process: Final = _Process()


@contextmanager
def undisturbed(device: str, *, tf32: bool = False) -> Iterator[None]:
    """Run what is inside on `device`, at once and in full precision, also while the caller traces a function.

    With `tf32` float32 products may be rounded to TF32 inside. The two kinds exclude each other between threads.
    Raises `BackendError` where TensorFlow runs nothing: inside of a `tf.Graph()`, and in a fork of a process that it runs in.
    """
    _process.require_this()
    _rounding.enter(tf32)
    try:
        with tf.init_scope(), tf.device(device):
            if not tf.executing_eagerly():
                raise BackendError(
                    "backend 'tensorflow' was called inside of a tf.Graph(), where TensorFlow records operations and "
                    "runs none. Call it outside of the graph, with eager execution on."
                )
            yield
    finally:
        _rounding.leave()


def as_written(method: Method) -> Method:
    """`method`, run as Python where a caller traces a function: AutoGraph would make tensors of its numbers."""
    return cast("Method", tf.autograph.experimental.do_not_convert(method))


def find_device(device: str | None) -> tuple[str, str]:
    """TensorFlow's name for `device`, and why it is not there, or nothing. None is the CPU."""
    gpus = tf.config.get_visible_devices("GPU")
    let_memory_grow(gpus)
    if device in (None, "cpu"):
        return "/CPU:0", ""
    number = int(re.sub(r"\D", "", str(device)) or 0)
    if number < len(gpus):
        return f"/GPU:{number}", ""
    how_many = "no GPU" if not gpus else f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}, numbered from 0"
    return "", f"TensorFlow {tf.__version__} sees {how_many}"


def let_memory_grow(gpus: Sequence[Any]) -> None:
    """Leave memory of `gpus` to other engines, where it is not too late: TensorFlow wants to be told of all of them alike."""
    for gpu in gpus:
        try:
            tf.config.experimental.set_memory_growth(gpu, enable=True)
        except (RuntimeError, ValueError):
            return  # it runs already, or has been given its limits: with the memory that whoever did that has chosen


def why_no_tf32(place: str) -> str:
    """Why TF32 is not to be had at `place`, TensorFlow's name of a device; nothing where it is."""
    if not place.startswith("/GPU:"):
        return "a CPU has no TF32"
    gpu = tf.config.get_visible_devices("GPU")[int(place.removeprefix("/GPU:"))]
    about = tf.config.experimental.get_device_details(gpu)
    capability = about.get("compute_capability")
    if capability is not None and capability >= (8, 0):
        return ""
    which = "unknown" if capability is None else ".".join(map(str, capability))
    return f"TF32 came with compute capability 8.0, and that of {about.get('device_name', 'the GPU')} is {which}"


def use_threads(threads: int) -> None:
    """Let TensorFlow work on `threads` threads, in this whole process; a `BackendOptionError` where it runs already."""
    threading_config = tf.config.threading
    try:
        threading_config.set_intra_op_parallelism_threads(threads)
        threading_config.set_inter_op_parallelism_threads(threads)
    except RuntimeError as error:
        now = threading_config.get_intra_op_parallelism_threads() or "as many as there are cores"
        raise BackendOptionError(
            f"backend 'tensorflow': threads is {threads}, but TensorFlow runs already in this process, on {now}, and "
            "its threads are set once for all. Create the backend before TensorFlow is first used, in a process of "
            "its own, or leave threads out."
        ) from error


def be_deterministic() -> None:
    """Make every operation of TensorFlow give the same bits again, in this whole process, from now on."""
    tf.config.experimental.enable_op_determinism()
