"""The contract on ONNX Runtime: a plan becomes a file of ONNX in memory, which a session runs on the CPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, final

import numpy as np
import onnxruntime
from cnnkit.arrays import Array, Images, Parameters, check_images, dtype_of
from cnnkit.backend import Backend, Program
from cnnkit.exchange.to_onnx import INPUT, to_onnx
from cnnkit.parameters import check_parameters
from cnnkit.plan import Plan

from cnnkit_onnxruntime.rewriting import exact

CHUNK: Final = 256
"""Images that go through the layers at once, so that memory does not grow with the batch."""

ERRORS_ONLY: Final = 3
"""ONNX Runtime's own number for how much it writes to the terminal."""


@final
@dataclass
class OnnxRuntimeBackend(Backend):
    """Predicts with every model that a plan can describe. `threads` is None for as many as ONNX Runtime chooses."""

    precision: str = "float32"
    threads: int | None = None

    def compile(self, plan: Plan, parameters: Parameters) -> OnnxRuntimeProgram:
        check_parameters(plan, parameters)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = ERRORS_ONLY
        options.intra_op_num_threads = self.threads or 0
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # threads that wait leave the CPU alone
        model = exact(to_onnx(plan.model, parameters, self.precision))
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
        )
        return OnnxRuntimeProgram(plan, dtype_of(self.precision), session)


@final
class OnnxRuntimeProgram(Program):
    """Predicts. A session may be run by several threads at once."""

    def __init__(self, plan: Plan, dtype: np.dtype[Any], session: onnxruntime.InferenceSession) -> None:
        self.plan, self.dtype, self.session = plan, dtype, session

    def predict(self, images: Images) -> Array:
        images = check_images(images, self.plan.input_shape, self.dtype)
        output = np.empty((len(images), *self.plan.output_shape), self.dtype)
        for start in range(0, len(images), CHUNK):
            part = slice(start, start + CHUNK)
            [output[part]] = self.session.run(None, {INPUT: np.ascontiguousarray(images[part], self.dtype)})
        return output
