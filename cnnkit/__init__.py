"""Convolutional networks as data, run by interchangeable backends that a shared suite proves right.

Each name is imported when it is first used, so that `import cnnkit` is quick and a command pays for what it uses; the
stub beside this file says the same to type checkers, and a test holds the two together.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_CONTENTS = {
    "backend": ("Backend", "EpochTotals", "MemoryEstimate", "Program", "Selection", "TrainingProgram"),
    "checkpoints": ("Checkpoint", "load", "save"),
    "datasets": ("Dataset", "load_dataset", "load_folder"),
    "display": ("TrainingDisplay",),
    "errors": (
        "BackendError",
        "BackendNotFound",
        "BackendOptionError",
        "BackendUnavailable",
        "CheckpointError",
        "CnnkitError",
        "DataError",
        "DatasetNotFound",
        "DownloadError",
        "MissingDependency",
        "ModelError",
        "NonFiniteLoss",
        "OptionError",
        "OutOfMemory",
        "Problem",
        "TrainingError",
        "TrainingNotSupported",
        "UnsupportedModel",
    ),
    "evaluation": ("Classification", "classify", "evaluate", "predict"),
    "history": ("EarlyStopping", "EpochRecord", "History", "Progress", "Run"),
    "metrics": ("Metrics",),
    "model": (
        "AvgPool2D",
        "Conv2D",
        "Dense",
        "Dropout",
        "Flatten",
        "Grayscale",
        "MaxPool2D",
        "Model",
        "ReLU",
        "Rescale",
        "Sigmoid",
        "Softmax",
        "Tanh",
    ),
    "optimizers": ("SGD", "Adam", "AdamW", "ConstantRate", "CosineDecay", "Optimizer", "StepDecay"),
    "parameters": ("initial_parameters",),
    "plan": ("Plan",),
    "plugins": ("BackendStatus", "backends", "get_backend"),
    "presets": ("Preset", "load_preset", "preset_names"),
    "randomness": ("dropout_mask",),
    "state": ("TrainingState", "fresh_state", "initial_state"),
    "tracing": ("Trace", "trace"),
    "training": ("fit", "iter_fit"),
}
_HOME = {name: module for module, names in _CONTENTS.items() for name in names}
_SUBMODULES = (
    "arrays",
    "bench",
    "blas",
    "conformance",
    "diagnosis",
    "exchange",
    "features",
    "files",
    "layerwise",
    "loggers",
    "mistakes",
    "patches",
    "plot",
    "randomness",
    "report",
    "rewriting",
    "running",
    "scaffold",
    "sklearn",
    "summary",
    "tables",
    "worked",
    *_CONTENTS,
)

__all__ = sorted(_HOME)  # noqa: PLE0605 - the stub spells it out


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = getattr(importlib.import_module(f"cnnkit.{_HOME[name]}"), name)
        globals()[name] = value
        return value
    if name in _SUBMODULES:
        return importlib.import_module(f"cnnkit.{name}")
    flat = f"{name[:-2]}2D"
    hint = (
        f"; a sequence is an image of one row: use {flat} with sizes (1, n)"
        if name.endswith("1D") and flat in _HOME
        else ""
    )
    raise AttributeError(f"module 'cnnkit' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})
