"""Settings that TensorFlow keeps for the whole process: left as they are, given back, or changed because that was asked.

Whether float32 products may be rounded (TF32) is held off while a program runs and given back. Three things cannot be
given back, so they are done only when they are asked for: a number of threads, deterministic operations, and, with a
GPU as the device, memory that grows as it is needed, so that other engines find some.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import tensorflow as tf

from cnnkit.errors import BackendError, BackendOptionError


class _ExactFloat32:
    """Counts who is inside: the first switches TF32 off, the last gives it back as it was."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.before = False

    def enter(self) -> None:
        with self.lock:
            if self.users == 0:
                self.before = tf.config.experimental.tensor_float_32_execution_enabled()
                tf.config.experimental.enable_tensor_float_32_execution(False)
            self.users += 1

    def leave(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                tf.config.experimental.enable_tensor_float_32_execution(self.before)


_exact_float32: Final = _ExactFloat32()


@contextmanager
def undisturbed(device: str) -> Iterator[None]:
    """Run what is inside on `device`, at once and in full precision, also while the caller traces a function.

    Raises `BackendError` inside of a `tf.Graph()`, where TensorFlow runs nothing.
    """
    _exact_float32.enter()
    try:
        with tf.init_scope(), tf.device(device):
            if not tf.executing_eagerly():
                raise BackendError(
                    "backend 'tensorflow' was called inside of a tf.Graph(), where TensorFlow records operations and "
                    "runs none. Call it outside of the graph, with eager execution on."
                )
            yield
    finally:
        _exact_float32.leave()


def find_device(device: str | None) -> tuple[str, str]:
    """TensorFlow's name for `device`, and why it is not there, or nothing. None is the CPU."""
    if device in (None, "cpu"):
        return "/CPU:0", ""
    number = int(re.sub(r"\D", "", str(device)) or 0)
    gpus = tf.config.get_visible_devices("GPU")
    if number >= len(gpus):
        how_many = "no GPU" if not gpus else f"{len(gpus)} GPU{'s' if len(gpus) > 1 else ''}, numbered from 0"
        return "", f"TensorFlow {tf.__version__} sees {how_many}"
    for gpu in gpus:  # TensorFlow wants all of them alike
        try:
            tf.config.experimental.set_memory_growth(gpu, enable=True)
        except RuntimeError:
            break  # TensorFlow runs already, with the memory that whoever began it has chosen
    return f"/GPU:{number}", ""


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
