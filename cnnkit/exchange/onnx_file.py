"""The format `onnx`: files of ONNX, which ONNX Runtime and many other programs run and write, in float32."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from cnnkit.arrays import Array, Parameters
from cnnkit.exchange.from_onnx import read_onnx
from cnnkit.exchange.to_onnx import to_onnx
from cnnkit.files import write_whole
from cnnkit.model import Model

LOADED_WITH: Final = "session = onnxruntime.InferenceSession({path})"


def write(model: Model, parameters: Parameters, path: Path) -> None:
    """Write a file of ONNX, the same bytes for the same model. Raises `ModelError` for one that is too large."""
    write_whole(path, to_onnx(model, parameters).SerializeToString(deterministic=True))


def read(path: Path) -> tuple[Model, dict[str, Array]]:
    """The model in a file of ONNX, and its parameters; `read_onnx` says what is read and what is raised."""
    return read_onnx(path)
