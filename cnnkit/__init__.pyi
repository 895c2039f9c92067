# What cnnkit offers, for type checkers and readers. `__init__.py` imports each name when it is first used.
from cnnkit.backend import Backend, EpochTotals, MemoryEstimate, Program, Selection, TrainingProgram
from cnnkit.checkpoints import Checkpoint, load, save
from cnnkit.datasets import Dataset, load_dataset, load_folder
from cnnkit.display import TrainingDisplay
from cnnkit.errors import (
    BackendError,
    BackendNotFound,
    BackendOptionError,
    BackendUnavailable,
    CheckpointError,
    CnnkitError,
    DataError,
    DatasetNotFound,
    DownloadError,
    MissingDependency,
    ModelError,
    NonFiniteLoss,
    OptionError,
    OutOfMemory,
    Problem,
    TrainingError,
    TrainingNotSupported,
    UnsupportedModel,
)
from cnnkit.evaluation import Classification, classify, evaluate, predict
from cnnkit.history import EarlyStopping, EpochRecord, History, Progress, Run
from cnnkit.metrics import Metrics
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.optimizers import SGD, Adam, AdamW, ConstantRate, CosineDecay, Optimizer, StepDecay
from cnnkit.parameters import initial_parameters
from cnnkit.plan import Plan
from cnnkit.plugins import BackendStatus, backends, get_backend
from cnnkit.presets import Preset, load_preset, preset_names
from cnnkit.randomness import dropout_mask
from cnnkit.state import TrainingState, fresh_state, initial_state
from cnnkit.tracing import Trace, trace
from cnnkit.training import fit, iter_fit

__version__: str

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "AvgPool2D",
    "Backend",
    "BackendError",
    "BackendNotFound",
    "BackendOptionError",
    "BackendStatus",
    "BackendUnavailable",
    "Checkpoint",
    "CheckpointError",
    "Classification",
    "CnnkitError",
    "ConstantRate",
    "Conv2D",
    "CosineDecay",
    "DataError",
    "Dataset",
    "DatasetNotFound",
    "Dense",
    "DownloadError",
    "Dropout",
    "EarlyStopping",
    "EpochRecord",
    "EpochTotals",
    "Flatten",
    "Grayscale",
    "History",
    "MaxPool2D",
    "MemoryEstimate",
    "Metrics",
    "MissingDependency",
    "Model",
    "ModelError",
    "NonFiniteLoss",
    "Optimizer",
    "OptionError",
    "OutOfMemory",
    "Plan",
    "Preset",
    "Problem",
    "Program",
    "Progress",
    "ReLU",
    "Rescale",
    "Run",
    "Selection",
    "Sigmoid",
    "Softmax",
    "StepDecay",
    "Tanh",
    "Trace",
    "TrainingDisplay",
    "TrainingError",
    "TrainingNotSupported",
    "TrainingProgram",
    "TrainingState",
    "UnsupportedModel",
    "backends",
    "classify",
    "dropout_mask",
    "evaluate",
    "fit",
    "fresh_state",
    "get_backend",
    "initial_parameters",
    "initial_state",
    "iter_fit",
    "load",
    "load_dataset",
    "load_folder",
    "load_preset",
    "predict",
    "preset_names",
    "save",
    "trace",
]
