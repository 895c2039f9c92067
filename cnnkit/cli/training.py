"""`cnnkit train`."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import MISSING, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

import cnnkit
from cnnkit.backend import Backend
from cnnkit.cli import common
from cnnkit.cli.reporting import tell_without_pictures
from cnnkit.datasets import Dataset, dataset_names, load_dataset
from cnnkit.display import TrainingDisplay
from cnnkit.errors import BackendError, CnnkitError, DataError, OptionError, TrainingError
from cnnkit.evaluation import check_fits, evaluate
from cnnkit.files import write_whole
from cnnkit.history import EarlyStopping, Run
from cnnkit.loggers import MLflow, TensorBoard
from cnnkit.mistakes import worst_mistakes
from cnnkit.model import Model
from cnnkit.optimizers import SGD, Adam, AdamW, Optimizer, optimizer_to_dict
from cnnkit.plugins import get_backend, status
from cnnkit.presets import Preset, preset_names
from cnnkit.report import NAME as REPORT
from cnnkit.report import has_pictures, write_report
from cnnkit.report.folder import MISTAKES
from cnnkit.running import RUN_FILES
from cnnkit.training import fit

OPTIMIZERS: dict[str, type[SGD | Adam | AdamW]] = {"sgd": SGD, "adam": Adam, "adamw": AdamW}


@dataclass(frozen=True)
class Request:
    """All that was asked for, as it stands in the run folder's `run.json`, so that `--resume` can ask for it again."""

    model: str
    dataset: str
    backend: str | None
    epochs: int | None
    batch_size: int | None
    seed: int
    limit: int | None
    data_dir: str | None
    image_size: tuple[int, int] | None
    optimizer: str | None
    learning_rate: float | None
    validation: float | None
    patience: int | None
    device: str | None
    precision: str
    options: dict[str, Any]
    tensorboard: str | None = None  # run folders of before know nothing of these three
    mlflow: str | None = None
    mlflow_run: str | None = None


def train(
    context: typer.Context,
    model: Annotated[str | None, typer.Argument(help="A preset (see `cnnkit models`) or a model file.")] = None,
    dataset: Annotated[
        str | None, typer.Argument(help="digits, mnist, fashion-mnist, cifar10, an .npz file, or a folder of images.")
    ] = None,
    backend: common.BackendOption = None,
    epochs: Annotated[int | None, typer.Option(help="Default: the preset's; 1 for a model file.", min=1)] = None,
    batch_size: Annotated[int | None, typer.Option(help="Default: the preset's; 64 for a file.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Decides initial weights, orders and splits.", min=0)] = 0,
    limit: common.LimitOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: a new one under runs/.")] = None,
    optimizer: Annotated[
        str | None, typer.Option(help="sgd, adam or adamw. Default: the preset's; adam for a file.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: the preset's.")] = None,
    validation: Annotated[
        float | None, typer.Option(help="Fraction of the training set to hold out; 0.1 with --patience.")
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Stop after N epochs without a better loss, on the best weights.", min=1)
    ] = None,
    device: common.DeviceOption = None,
    precision: common.PrecisionOption = "float32",
    set_: common.SetOption = None,
    tensorboard: Annotated[Path | None, typer.Option(help="Write the run into this folder for TensorBoard.")] = None,
    mlflow: Annotated[str | None, typer.Option(metavar="URI", help="Log the run to this MLflow server.")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run; --epochs may be larger.")] = None,
    json_: common.JsonOption = False,
) -> None:
    """Train a model on a data set and judge it on the test set."""
    common.show_warnings_as_notes()
    if resume is not None:
        _require_nothing_else(context)
        request = _read_request(resume)
        if epochs is not None and epochs != request.epochs:
            if request.epochs is not None and epochs < request.epochs:
                raise OptionError(
                    f"--epochs {epochs} is less than the {request.epochs} of the run. Give more, or none."
                )
            request = replace(request, epochs=epochs)
        folder = resume
    else:
        if model is None or dataset is None:
            raise OptionError("train needs MODEL and DATASET: cnnkit train seed-numpy digits. Or --resume RUN.")
        request = Request(
            model=_from_anywhere(model, preset_names()),
            dataset=_from_anywhere(dataset, dataset_names()),
            backend=backend,
            epochs=epochs,
            batch_size=batch_size,
            seed=seed,
            limit=limit,
            data_dir=str(data_dir.resolve()) if data_dir else None,
            image_size=image_size,
            optimizer=optimizer,
            learning_rate=learning_rate,
            validation=validation,
            patience=patience,
            device=device,
            precision=precision,
            options=common.backend_options(set_),
            tensorboard=str(tensorboard.resolve()) if tensorboard else None,
            mlflow=mlflow,
        )
        folder = out or _new_folder(Path(model).stem, Path(dataset).stem)
    try:
        result = _run(request, folder, resume=resume is not None, quiet=json_)
    except KeyboardInterrupt as stopped:
        # typer would say "Aborted!", and nothing of where the run is.
        common.notes.print(str(stopped) or "Stopped.", soft_wrap=True)
        if (folder / "run.json").exists():
            common.notes.print(f"Go on with it: {_resume_command(folder)}", soft_wrap=True)
        raise typer.Exit(1) from None
    if json_:
        common.print_json(result)


def _run(request: Request, folder: Path, *, resume: bool, quiet: bool) -> dict[str, Any]:
    preset = common.find_model(request.model)
    # Data in one piece is split with a seed of its own, not the run's, so that `cnnkit evaluate` finds the same test.
    data, test = load_dataset(request.dataset, request.data_dir, image_size=request.image_size)
    preset = _fitted(preset, data, by_file=request.model.endswith((".toml", ".json")))
    for name, part in (("train", data), ("test", test)):
        check_fits(preset.model, part)
        if len(part) == 0:
            raise DataError(f"the {name} part of {request.dataset} has 0 images. Give data with images in both parts.")
    if request.limit is not None:
        data, test = _limited(data, request.limit), test.limit(request.limit)
    optimizer = _optimizer(request, preset)
    epochs, batch_size = request.epochs or preset.epochs, request.batch_size or preset.batch_size
    backend = get_backend(common.backend_choice(request.backend), request.device, request.precision, **request.options)
    early_stopping = EarlyStopping(request.patience) if request.patience else None
    fraction = request.validation if request.validation is not None else (0.1 if early_stopping else None)
    data, held_out = (data, None) if fraction is None else data.split(fraction, request.seed)
    name = backend.selection.name if backend.selection else type(backend).__name__
    for other, reason in backend.selection.rejected if backend.selection else ():
        common.notes.print(f"note: not {other}: {reason}", soft_wrap=True, markup=False)
    held = "" if held_out is None else f"{len(held_out):,} held out, "
    if not quiet:
        common.console.print(
            f"{preset.name} on {request.dataset}: {len(data):,} images to learn from, {held}{len(test):,} to be judged on; "
            f"backend {name}, {_said(optimizer)}, batch {batch_size}, seed {request.seed}",
            soft_wrap=True,
        )
    common.tell_rounding(backend)
    estimate = backend.estimate_memory(preset.model.plan(), optimizer, batch_size)
    if estimate is not None and not quiet:
        common.console.print(f"memory: at most {estimate} beside the images", soft_wrap=True)
    begin, started = time.perf_counter(), datetime.now(UTC)
    begun = _new_run(folder, request)
    if resume or not backend.leads:
        begun = _gone_on_with(folder, request if backend.leads else None)
    told = {"dataset": request.dataset, "images": len(data), "batch_size": batch_size, "seed": request.seed}
    with (
        begun,
        _telling_how_to_go_on(folder),
        _loggers(request, folder, told, leads=backend.leads) as loggers,
        TrainingDisplay(quiet=quiet) as display,
    ):
        run = fit(
            preset.model,
            data,
            held_out,
            backend,
            optimizer,
            batch_size,
            epochs,
            request.seed,
            callbacks=[display, *loggers],
            early_stopping=early_stopping,
            train_metrics=early_stopping is not None or epochs > 1,
            out=folder,
            resume=resume,
        )
        for logger in loggers:
            logger.log_run(run)
    wall = time.perf_counter() - begin
    result = _judged(request, run, data, test, backend, batch_size, wall)
    result["machine"] = _machine(request, backend, started, resumed=resume)
    if backend.leads:
        _remove(folder / MISTAKES)  # those of before must never lie beside the figures of now
        _write_json(folder / "metrics.json", common.plain(result))
        worst_mistakes(run.model, run.state.parameters, test, backend, count=16).save(folder / MISTAKES)
    if not quiet:
        _print_result(result, run)
    if backend.leads:
        _write_report(folder)
        if not quiet:
            common.console.print(f"The report is {result['report']}.", soft_wrap=True)
            common.console.print(
                f"The run is in {folder}. Classify images with it: cnnkit predict {folder} IMAGE...", soft_wrap=True
            )
    return result


# ------------------------------------------------------------------------------------------------- what to train, how


def _fitted(preset: Preset, data: Dataset, *, by_file: bool) -> Preset:
    """A preset takes shape and classes from the data; a model file says them itself, and may leave names to the data."""
    if not by_file:
        return preset.for_data(data.image_shape, data.classes, data.class_names)
    model = preset.model
    if model.class_names is None and data.class_names is not None and len(data.class_names) == model.plan().classes:
        model = Model(**{**dict(model), "class_names": data.class_names})
    return replace(preset, model=model)


def _limited(data: Dataset, limit: int) -> Dataset:
    few = data.limit(limit)
    missing = set(data.labels.tolist()) - set(few.labels.tolist())
    if missing:
        common.notes.print(
            f"note: the first {limit} images hold none of {len(missing)} classes; the data seem to be sorted by class.",
            soft_wrap=True,
        )
    return few


def _optimizer(request: Request, preset: Preset) -> Optimizer:
    if request.optimizer is None:
        if request.learning_rate is None:
            return preset.optimizer
        return replace(preset.optimizer, learning_rate=request.learning_rate)
    if request.optimizer not in OPTIMIZERS:
        raise OptionError(f"--optimizer is {request.optimizer!r}; expected one of {', '.join(OPTIMIZERS)}.")
    default = 0.01 if request.optimizer == "sgd" else 1e-3
    return OPTIMIZERS[request.optimizer](
        learning_rate=default if request.learning_rate is None else request.learning_rate
    )


def _said(optimizer: Optimizer) -> str:
    rate = optimizer.learning_rate
    return f"{type(optimizer).__name__} {rate:g}" if isinstance(rate, (int, float)) else type(optimizer).__name__


# --------------------------------------------------------------------------------------------------------- run folders


def _new_folder(model: str, dataset: str) -> Path:
    number = 1
    while (folder := Path("runs") / f"{model}-{dataset}-{number}").exists():
        number += 1
    return folder


def _from_anywhere(name_or_path: str, names: Sequence[str]) -> str:
    """A path as it can be found from any folder; a known name stands before a path of the same name."""
    path = Path(name_or_path)
    return str(path.resolve()) if name_or_path not in names and path.exists() else name_or_path


@contextmanager
def _new_run(folder: Path, request: Request) -> Iterator[None]:
    """A folder with run.json in it, taken away again where a mistake in what was asked for kept the run from beginning."""
    if any((folder / name).exists() for name in ("run.json", *RUN_FILES)):
        raise TrainingError(
            f"{folder} already holds a run. Go on with it: {_resume_command(folder)}. Or choose another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_request(folder, request)
    except OSError as error:
        raise TrainingError(
            f"the run folder {folder} cannot be written: {error.strerror}. Choose another one with --out."
        ) from error
    try:
        yield
    except CnnkitError:
        if not (folder / "checkpoint.safetensors").exists():
            (folder / "run.json").unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
        raise


@contextmanager
def _gone_on_with(folder: Path, request: Request | None) -> Iterator[None]:
    """A folder that is there, with what is asked for now in its run.json; None leaves that to another process."""
    if request is not None and request != _read_request(folder):
        _write_request(folder, request)
    yield


@contextmanager
def _loggers(
    request: Request, folder: Path, told: dict[str, object], *, leads: bool
) -> Iterator[list[TensorBoard | MLflow]]:
    """What was asked for beside the run folder; `run.json` keeps the MLflow run, so that resuming goes on with it."""
    loggers: list[TensorBoard | MLflow] = []
    with ExitStack() as stack:
        if request.tensorboard and leads:
            loggers.append(stack.enter_context(TensorBoard(request.tensorboard, params=told)))
        if request.mlflow and leads:
            run_id = request.mlflow_run
            logger = MLflow(request.mlflow, run_name=folder.name, params=told, run_id=run_id, end=True)
            loggers.append(stack.enter_context(logger))
            if run_id is None:
                _write_request(folder, replace(request, mlflow_run=logger.run_id))
        yield loggers


@contextmanager
def _telling_how_to_go_on(folder: Path) -> Iterator[None]:
    """What a backend could not go on with can be resumed, where a checkpoint is there."""
    try:
        yield
    except BackendError:
        if (folder / "checkpoint.safetensors").exists():
            common.notes.print(f"When that is mended, go on with the run: {_resume_command(folder)}", soft_wrap=True)
        raise


def _resume_command(folder: Path) -> str:
    return f"cnnkit train --resume {shlex.quote(str(folder))}"


def _write_request(folder: Path, request: Request) -> None:
    _write_json(
        folder / "run.json", {**vars(request), "command": ["cnnkit", *sys.argv[1:]], "cnnkit": cnnkit.__version__}
    )


def _write_json(path: Path, data: Any) -> None:
    try:
        write_whole(path, (json.dumps(data, indent=2) + "\n").encode())
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written: {error.strerror or error}. Free space, or see that the folder can be written."
        ) from error


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise TrainingError(f"{path} cannot be removed: {error.strerror or error}. Remove it.") from error


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _require_nothing_else(context: typer.Context) -> None:
    """Refuse what would be ignored: with --resume, only --epochs may say something new."""
    given = [name for name in context.params if name not in ("resume", "epochs", "json_") and _was_given(context, name)]
    if given:
        spelled = {"model": "MODEL", "dataset": "DATASET"}
        named = ", ".join(spelled.get(name, f"--{name.strip('_').replace('_', '-')}") for name in given)
        raise OptionError(f"--resume takes everything but --epochs from the run itself; leave out {named}.")


def _read_request(folder: Path) -> Request:
    path = folder / "run.json"
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        size = data["image_size"]
        data["image_size"] = None if size is None else (size[0], size[1])  # JSON knows no pairs
        fields = Request.__dataclass_fields__.items()
        return Request(**{name: data[name] for name, field in fields if name in data or field.default is MISSING})
    except OSError as error:
        raise TrainingError(
            f"{folder} holds no run that can be resumed: {path} cannot be read ({error.strerror}). Give the folder of a "
            "run that `cnnkit train` began."
        ) from error
    except (ValueError, LookupError, TypeError) as error:
        raise TrainingError(f"{path} is damaged ({error!r}). Correct it, or begin a new run.") from error


# -------------------------------------------------------------------------------------------------------- what is told


def _judged(
    request: Request, run: Run, data: Dataset, test: Dataset, backend: Any, batch_size: int, wall: float
) -> dict[str, Any]:
    """The one object that `--json` prints and `metrics.json` keeps."""
    train_metrics = evaluate(run.model, run.state.parameters, data, backend)
    begin = time.perf_counter()
    test_metrics = evaluate(run.model, run.state.parameters, test, backend)
    seconds_test = time.perf_counter() - begin
    seconds_train = sum(record.seconds_train for record in run.history)
    seen = len(run.history) * len(data)
    return {
        "model": run.model.name,
        "dataset": request.dataset,
        "backend": run.backend,
        "device": request.device,
        "precision": request.precision,
        "rounded": common.rounding(backend),
        "options": request.options,
        "seed": request.seed,
        "epochs": len(run.history),
        "batch_size": batch_size,
        "optimizer": optimizer_to_dict(run.optimizer),
        "images": {"train": len(data), "test": len(test)},
        "train": train_metrics.to_dict(),
        "test": test_metrics.to_dict(),
        "seconds": {
            "train": seconds_train,
            "test": seconds_test,
            "wall": wall,
            "train_per_1000": 1000 * seconds_train / seen,
            "test_per_1000": 1000 * seconds_test / max(len(test), 1),
        },
        "memory": {"peak_mib": common.peak_memory_mib()},
        "history": [record.to_dict() for record in run.history],
        "message": run.message,
        "out": str(run.out) if backend.leads else None,
        "report": str(run.out / REPORT) if backend.leads and run.out else None,
        "versions": {
            "cnnkit": cnnkit.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
            **status(run.backend).versions,
        },
    }


def _machine(request: Request, backend: Backend, started: datetime, *, resumed: bool) -> dict[str, Any]:
    """Where the times were measured, and when: `threads` is None where the backend decides about them itself."""
    threads = request.options.get("threads", getattr(backend, "threads", None))
    return {
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": threads if isinstance(threads, int) else None,  # what others call so may be anything
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed": resumed,
    }


def _processor() -> str:
    """The name of the processor, or of its kind where the system tells no name."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _write_report(folder: Path) -> None:
    """What cannot be written now can be later: the figures that it is made of are there."""
    again = f"cnnkit report {shlex.quote(str(folder))}"
    try:
        write_report(folder)
    except CnnkitError:
        common.notes.print(
            f"The run is done and kept, but for its report. When that is mended: {again}", soft_wrap=True
        )
        raise
    if not has_pictures():
        tell_without_pictures(again)


def _print_result(result: dict[str, Any], run: Run) -> None:
    table = Table(title=None, box=None, pad_edge=False)
    for heading in ("", "accuracy", "precision", "recall", "F1", "loss", "s / 1000 images"):
        table.add_column(heading, justify="left" if not heading else "right")
    for part in ("train", "test"):
        figures = result[part]
        row = [f"{figures[name]:.4f}" for name in ("accuracy", "precision", "recall", "f1", "loss")]
        table.add_row(part, *row, f"{result['seconds'][f'{part}_per_1000']:.3f}")
    common.console.print(table)
    peak = result["memory"]["peak_mib"]
    memory = "" if peak is None else f", peak memory {peak:.0f} MiB"
    common.console.print(
        f"Precision, recall and F1 are macro averages. {run.message} "
        f"Training took {result['seconds']['train']:.1f} s{memory}.",
        soft_wrap=True,
    )
