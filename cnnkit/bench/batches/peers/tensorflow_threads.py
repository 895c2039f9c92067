"""The one setting that all peers on TensorFlow share."""

from __future__ import annotations

import tensorflow as tf


def use_threads(threads: int) -> None:
    """Let TensorFlow work on `threads` threads. It must not have run yet."""
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(threads)
