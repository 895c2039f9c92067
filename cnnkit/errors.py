"""Every error that cnnkit raises.

::

    CnnkitError
    ├── ModelError               a model, or a file of one, that cannot be; `.problems` lists all of it
    ├── OptionError              an argument, option or name out of its range (also a ValueError)
    │   └── BackendOptionError   an option that the chosen backend does not have
    ├── DataError                images, labels, data sets and their files
    │   ├── DatasetNotFound      no data set of that name, and no such file or folder
    │   └── DownloadError        every source of a data set failed, or sent something else
    ├── BackendError             a backend could not do what was asked
    │   ├── BackendNotFound      no plugin of that name is installed
    │   ├── BackendUnavailable   installed but not ready; `.status` says why and what to do
    │   ├── UnsupportedModel     this backend refuses this model, before any arithmetic
    │   ├── TrainingNotSupported the backend only predicts
    │   └── OutOfMemory          more than the device has, or than a limit allows; `.asked`, `.free`, `.batch`
    ├── TrainingError            a run that cannot go on
    │   └── NonFiniteLoss        the loss became NaN or infinite; names the step and the layer
    ├── CheckpointError          a file that is no checkpoint, is damaged, or comes from a newer cnnkit
    └── MissingDependency        an optional package is not installed; names the extra that brings it

A message is one sentence or two: what is wrong, with its value and path; what was expected; what to do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cnnkit.plugins import BackendStatus


class CnnkitError(Exception):
    """The root of everything that cnnkit raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with a model: where (`layers[0].filters`), what, and the smallest fix."""

    path: str
    message: str
    fix: str

    def __str__(self) -> str:
        where = f"{self.path} " if self.path else ""
        return f"{where}{self.message}. {self.fix}."


class ModelError(CnnkitError, ValueError):
    """A model that cannot be. `.problems` holds every `Problem` that was found, in the order of the layers."""

    def __init__(self, problems: Sequence[Problem], subject: str = "model") -> None:
        self.problems = tuple(problems)
        self.subject = subject
        super().__init__(self._text())

    def _text(self) -> str:
        if len(self.problems) == 1:
            return f"{self.subject}: {self.problems[0]}"
        lines = [f"{self.subject} has {len(self.problems)} problems:"]
        lines += [f"  {number}. {problem}" for number, problem in enumerate(self.problems, start=1)]
        return "\n".join(lines)

    def __reduce__(self) -> tuple[type[ModelError], tuple[tuple[Problem, ...], str]]:
        return type(self), (self.problems, self.subject)

    @property
    def path(self) -> str:
        """The path of the first problem, such as `layers[0].filters`."""
        return self.problems[0].path


class OptionError(CnnkitError, ValueError):
    """An argument, option or name that is outside what is allowed."""


class BackendOptionError(OptionError):
    """An option that the chosen backend does not have, or a value that it does not take."""


class DataError(CnnkitError, ValueError):
    """Images or labels of the wrong shape, type or range, or a file of them that cannot be read."""


class DatasetNotFound(DataError):
    """No data set has that name, and there is no such file or folder."""


class DownloadError(DataError):
    """Every source of a data set failed, or sent something other than the data set."""


class BackendError(CnnkitError):
    """A backend could not do what was asked of it."""


class BackendNotFound(BackendError):
    """No installed plugin registers a backend of that name."""


class BackendUnavailable(BackendError):
    """The backend is installed but not ready. `.status` is its `BackendStatus`."""

    def __init__(self, message: str, status: BackendStatus) -> None:
        super().__init__(message)
        self.status = status

    def __reduce__(self) -> tuple[type[BackendUnavailable], tuple[str, BackendStatus]]:
        return type(self), (str(self), self.status)


class UnsupportedModel(BackendError):
    """A backend refuses a model before any arithmetic.

    `.backend`, `.path`, `.feature` and `.reason` say what is refused and why; `.alternatives` names the backends that
    could run it. `feature` is a feature id, such as `conv2d.dilation` (docs/reference/features.md lists them). A backend
    that raises this knows no others and leaves them out; cnnkit asks them and fills them in.
    """

    def __init__(
        self, backend: str, path: str, feature: str, reason: str, alternatives: Sequence[str] | None = None
    ) -> None:
        self.backend, self.path, self.feature, self.reason = backend, path, feature, reason
        self.alternatives = tuple(alternatives or ())
        self._asked = alternatives is not None
        could = "`cnnkit why MODEL --all` lists the backends that could"
        if alternatives is not None:
            could = f"Backends that could: {', '.join(alternatives)}" if alternatives else "No installed backend could"
        super().__init__(f"Backend '{backend}' does not support {feature}, which {path} needs: {reason}. {could}.")

    def __reduce__(self) -> tuple[type[UnsupportedModel], tuple[str, str, str, str, tuple[str, ...] | None]]:
        alternatives = self.alternatives if self._asked else None
        return type(self), (self.backend, self.path, self.feature, self.reason, alternatives)


class TrainingNotSupported(BackendError):
    """The backend predicts but does not train."""


class OutOfMemory(BackendError):
    """More memory than the device has free, or than a limit allows.

    `.asked` and `.free` are bytes; `.batch` is the largest batch that fits, or None where that would not help or is unknown.
    """

    def __init__(self, message: str, asked: int, free: int, batch: int | None = None) -> None:
        self.asked, self.free, self.batch = asked, free, batch
        super().__init__(message)

    def __reduce__(self) -> tuple[type[OutOfMemory], tuple[str, int, int, int | None]]:
        return type(self), (str(self), self.asked, self.free, self.batch)


class TrainingError(CnnkitError):
    """A training run that cannot start or cannot go on."""


class NonFiniteLoss(TrainingError):
    """The loss became NaN or infinite. `.step` counts from 0; `.where` names the layer or array in which it began."""

    def __init__(self, message: str, *, step: int, where: str) -> None:
        super().__init__(message)
        self.step, self.where = step, where

    def __reduce__(self) -> tuple[partial[NonFiniteLoss], tuple[()]]:
        return partial(type(self), str(self), step=self.step, where=self.where), ()


class CheckpointError(CnnkitError):
    """A file that is not a checkpoint of ours, is damaged, or was written by a newer cnnkit."""


class MissingDependency(CnnkitError, ImportError):
    """An optional package is not installed. The message gives the command that installs it."""

    def __init__(self, what: str, package: str, extra: str) -> None:
        super().__init__(
            f"{what} needs {package}, which is not installed. Install it with: pip install 'cnnkit[{extra}]' (in a checkout: '.[{extra}]')"
        )
        self.what, self.package, self.extra = what, package, extra

    def __reduce__(self) -> tuple[type[MissingDependency], tuple[str, str, str]]:
        return type(self), (self.what, self.package, self.extra)
