"""Writing a run down where other tools look for it: TensorBoard and MLflow, as callbacks of `fit`.

Both write the same figures, with the number of the epoch as the step:

    running_loss                                   while the weights were changing
    train/loss, train/accuracy, train/f1, ...      with the weights of the epoch's end, as far as they were measured
    validation/loss, ...
    learning_rate                                  that of the epoch's last step
    seconds/train, seconds/evaluate
    images_per_second                              while training

What a callback cannot know, such as the batch size, is given as `params`; `log_run` adds what the finished run tells.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import cnnkit
from cnnkit.errors import MissingDependency, TrainingError
from cnnkit.history import EpochRecord, Event, Progress, Run
from cnnkit.optimizers import optimizer_to_dict

POINTS_PER_EPOCH: Final = 50
"""TensorBoard gets the running loss within an epoch at most so often."""
BY_IMAGES: Final = "running_loss_by_images"
NOTE_LENGTH: Final = 5000
"""What MLflow keeps of a description."""
ANSWER_SECONDS: Final = 10
"""So long a server of MLflow has for its first answer."""
ADVICE: Final = (
    "Give the tracking URI of a server, such as http://127.0.0.1:5000, or of a local store, such as sqlite:///mlflow.db, "
    "which needs the package mlflow beside mlflow-skinny."
)


def figures(record: EpochRecord, images: int | None = None) -> dict[str, float]:
    """The figures of an epoch by the names above; `images` are those that were learned from, where that is known."""
    found = {"running_loss": record.running_loss}
    for part, measured in (("train", record.train), ("validation", record.validation)):
        found |= {f"{part}/{metric}": value for metric, value in (measured or {}).items()}
    found |= {"learning_rate": record.learning_rate}
    found |= {"seconds/train": record.seconds_train, "seconds/evaluate": record.seconds_evaluate}
    if images is not None:
        found["images_per_second"] = images / max(record.seconds_train, 1e-9)
    return found


def _images(record: EpochRecord, seen: Progress | None) -> int | None:
    return seen.count if seen is not None and seen.epoch == record.epoch else None


def _told_by(run: Run) -> dict[str, object]:
    """What is settled before a run begins, from the run itself."""
    told = {"model": run.model.name, "parameters": run.model.summary().parameters, "backend": run.backend}
    return told | {f"optimizer.{name}": value for name, value in optimizer_to_dict(run.optimizer).items()}


# -------------------------------------------------------------------------------------------------------- TensorBoard


class TensorBoard:
    """Writes a run into a folder that `tensorboard --logdir` shows: one folder for each run.

    Beside the figures of the epochs it writes the running loss within them (`running_loss_by_images`), at most 50 points
    an epoch, with the number of images since the beginning of the run as the step. A run that is gone on with is
    written into the same folder, and what it repeats is not shown twice; another run takes the place of the one before.

    It is a context manager; without `with`, `close` it. All that was written is there also if Python is killed.

    Args:
        log_dir: The folder, which is made where there is none.
        params: What to say of the run beside its figures, as a text.

    Raises:
        MissingDependency: tensorboard is not installed. TensorFlow is not needed.
        TrainingError: The folder cannot be written, or the logger was closed.
    """

    def __init__(self, log_dir: Path | str, *, params: Mapping[str, object] | None = None) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
            from tensorboard.plugins.text import metadata
            from tensorboard.summary.writer.record_writer import RecordWriter
        except ImportError as error:
            raise MissingDependency("Logging for TensorBoard", "tensorboard", "tensorboard") from error
        self.log_dir = Path(log_dir)
        self._events, self._summaries = event_pb2, summary_pb2
        self._tensors, self._types, self._texts = tensor_pb2, types_pb2, metadata
        self._params = dict(params or {})
        self._seen: Progress | None = None
        self._begun = False
        # Files are read in the order of their names. The name is not that of tensorboard's own writer, which would
        # import TensorFlow where it is installed.
        name = f"events.out.tfevents.{time.time():.6f}.{socket.gethostname()}.{os.getpid()}"
        with self._writing():
            self.log_dir.mkdir(parents=True, exist_ok=True)
            self._older = any("tfevents" in path.name for path in self.log_dir.iterdir())
            self._file = (self.log_dir / name).open("xb", buffering=0)  # a record is written whole
        self._records = RecordWriter(self._file)
        self._write(file_version="brain.Event:2")

    def __call__(self, event: Event) -> None:
        """Write what a `Progress` or an `EpochRecord` tells."""
        if isinstance(event, EpochRecord):
            self._begin(event.epoch, None)
            self._scalars(figures(event, _images(event, self._seen)), event.epoch)
            return
        before = (event.epoch - 1) * event.count
        self._begin(event.epoch, before + event.done)
        seen, self._seen = self._seen, event
        parts = event.done * POINTS_PER_EPOCH // event.count
        if seen is None or seen.epoch != event.epoch or parts > seen.done * POINTS_PER_EPOCH // event.count:
            self._scalars({BY_IMAGES: event.running_loss}, before + event.done)

    def log_run(self, run: Run) -> None:
        """Write, as texts, the model's summary, what the run was made with, and how it ended."""
        last = run.history[-1].epoch if run.history else 0
        self._text("model", str(run.model.summary()), last)
        told = _told_by(run) | ({} if run.best_epoch is None else {"best epoch": run.best_epoch})
        self._text("run", "\n".join([*(f"{name}: {value}" for name, value in told.items()), run.message]), last)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _begin(self, epoch: int, step: int | None) -> None:
        """Have what an older file says from here on forgotten, which is what a `START` with a step asks for.

        `step` counts images. Epochs count fewer, so a run that is gone on with keeps the figures of its epochs: none of
        them is ever told twice. It is None where an epoch is only judged again: nothing of that was written before. In
        the first epoch it is a new run, or one that has hardly begun, and all is written anew.
        """
        if self._begun:
            return
        self._begun = True
        if self._older and (epoch == 1 or step is not None):
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(session_log=start, step=step if epoch > 1 else 0)
        if self._params and (epoch == 1 or not self._older):
            self._text("params", "\n".join(f"{name}: {value}" for name, value in self._params.items()), 0)

    def _scalars(self, values: Mapping[str, float], step: int) -> None:
        value = self._summaries.Summary.Value
        summary = [value(tag=tag, simple_value=number) for tag, number in values.items()]
        self._write(summary=self._summaries.Summary(value=summary), step=step)

    def _text(self, tag: str, text: str, step: int) -> None:
        """A text is read as Markdown, where four spaces keep lines as they are."""
        shown = "\n".join(f"    {line}" for line in text.split("\n"))
        tensor = self._tensors.TensorProto(dtype=self._types.DT_STRING, string_val=[shown.encode()])
        about = self._texts.create_summary_metadata(display_name=tag, description="")
        value = self._summaries.Summary.Value(tag=tag, tensor=tensor, metadata=about)
        self._write(summary=self._summaries.Summary(value=[value]), step=step)

    def _write(self, **fields: Any) -> None:
        if self._file.closed:
            raise TrainingError(
                f"the logger for {self.log_dir} is closed. Use it within its `with`, or make a new one."
            )
        with self._writing():
            self._records.write(self._events.Event(wall_time=time.time(), **fields).SerializeToString())

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise TrainingError(
                f"the folder {self.log_dir} cannot be written: {error.strerror}. Choose another one for TensorBoard."
            ) from error


# ------------------------------------------------------------------------------------------------------------- MLflow


class MLflow:
    """Writes a run into MLflow: one MLflow run for each, which the tracking server or store keeps.

    It goes by its own client: an active run of yours (`mlflow.start_run`) is neither used nor ended. To log into one,
    give its `run_id`; epochs that it holds already are not logged again, so a run that is gone on with has none twice.

    It is a context manager, which ends the MLflow run as FINISHED, FAILED or, after Ctrl-C, KILLED; without `with`,
    `close` it.

    Args:
        tracking_uri: Such as "http://127.0.0.1:5000" or "sqlite:///mlflow.db"; None is MLflow's own setting, such as
            MLFLOW_TRACKING_URI. The package mlflow-skinny speaks to servers; a local store needs mlflow.
        experiment: Its name; it is made where there is none. None is MLFLOW_EXPERIMENT_NAME, or "Default".
        run_name: None has MLflow think of one.
        params: What to say of the run beside its figures.
        run_id: A run to log into, in place of a new one; `experiment` and `run_name` are its own.
        end: Whether closing ends the MLflow run; None is yes for a new one, no for one that was given by `run_id`.

    Raises:
        MissingDependency: mlflow is not installed.
        TrainingError: MLflow refuses something or does not answer, or the logger was closed.
    """

    def __init__(
        self,
        tracking_uri: str | None = None,
        experiment: str | None = None,
        run_name: str | None = None,
        params: Mapping[str, object] | None = None,
        *,
        run_id: str | None = None,
        end: bool | None = None,
    ) -> None:
        try:
            import requests  # comes with mlflow-skinny
            from mlflow import MlflowClient, entities, exceptions, get_tracking_uri
        except ImportError as error:
            raise MissingDependency("Logging to MLflow", "mlflow-skinny", "mlflow") from error
        self._entities, self._refusal = entities, exceptions.MlflowException
        self._seen: Progress | None = None
        self._closed = False
        self._where = tracking_uri or "its default place"
        self._end = run_id is None if end is None else end
        uri = tracking_uri or get_tracking_uri()
        if uri.startswith(("http://", "https://")):  # MLflow itself would try for minutes, without a word
            try:
                requests.get(uri, timeout=ANSWER_SECONDS, stream=True).close()
            except requests.exceptions.SSLError:
                pass  # somebody is there, and MLflow has settings of its own for certificates
            except requests.exceptions.ConnectionError as error:
                raise TrainingError(
                    f"MLflow at {uri} does not answer. Start the server there (mlflow server), or correct the address."
                ) from error
            except requests.exceptions.RequestException:
                pass  # slow, or nothing that MLflow would not say better
        with self._asking("a run", ADVICE):
            self._client = MlflowClient(tracking_uri=tracking_uri)
            if run_id is None:
                named = experiment or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
                found = self._client.get_experiment_by_name(named)
                place = self._client.create_experiment(named) if found is None else found.experiment_id
                tags = {"cnnkit.version": cnnkit.__version__}
                self.run_id: str = self._client.create_run(place, run_name=run_name, tags=tags).info.run_id
                self._logged: set[int] = set()
            else:
                self.run_id = run_id
                self._logged = {point.step for point in self._client.get_metric_history(run_id, "running_loss")}
                if self._end:
                    self._client.update_run(run_id, status="RUNNING")
            self._log_params(params or {})

    def __call__(self, event: Event) -> None:
        """Log what an `EpochRecord` tells."""
        if isinstance(event, Progress):
            self._seen = event
        elif event.epoch not in self._logged:
            self._log_metrics(figures(event, _images(event, self._seen)), event.epoch)
            self._logged.add(event.epoch)

    def log_run(self, run: Run) -> None:
        """Log what the run was made with as parameters, the best epoch, how it ended, and the model as the description.

        A parameter or a description that is there already stays.
        """
        self._require_open()
        with self._asking("the end of the run"):
            there = self._client.get_run(self.run_id).data
            self._log_params({name: value for name, value in _told_by(run).items() if name not in there.params})
            self._client.set_tag(self.run_id, "cnnkit.message", run.message)
            if "mlflow.note.content" not in there.tags:
                summary = str(run.model.summary())
                shown = summary if len(summary) <= NOTE_LENGTH else f"{summary[:NOTE_LENGTH]}\n..."
                self._client.set_tag(self.run_id, "mlflow.note.content", f"```\n{shown}\n```")
        if run.best_epoch is not None:
            self._log_metrics({"best_epoch": run.best_epoch}, run.history[-1].epoch)

    def close(self, status: str = "FINISHED") -> None:
        """End the MLflow run, with one of MLflow's states, if it is ours to end."""
        if self._closed:
            return
        self._closed = True
        if self._end:
            with self._asking("the end of the run"):
                self._client.set_terminated(self.run_id, status=status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        failed = "KILLED" if kind is not None and issubclass(kind, KeyboardInterrupt) else "FAILED"
        self.close("FINISHED" if kind is None else failed)

    def _log_params(self, params: Mapping[str, object]) -> None:
        listed = [self._entities.Param(name, str(value)) for name, value in params.items()]
        for first in range(0, len(listed), 100):  # MLflow takes so many at once
            self._client.log_batch(self.run_id, params=listed[first : first + 100])

    def _log_metrics(self, values: Mapping[str, float], step: int) -> None:
        self._require_open()
        now = int(time.time() * 1000)
        with self._asking(f"the figures of epoch {step}"):
            metrics = [self._entities.Metric(name, float(value), now, step) for name, value in values.items()]
            self._client.log_batch(self.run_id, metrics=metrics)

    def _require_open(self) -> None:
        if self._closed:
            raise TrainingError(f"the logger for the MLflow run {self.run_id} is closed. Make a new one with run_id=.")

    @contextmanager
    def _asking(self, what: str, advice: str = "") -> Iterator[None]:
        try:
            yield
        except self._refusal as error:
            reason = str(error).strip().removesuffix(".")
            raise TrainingError(f"MLflow at {self._where} did not take {what}: {reason}. {advice}".strip()) from error
