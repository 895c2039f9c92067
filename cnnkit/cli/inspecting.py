"""`cnnkit summary`, `models`, `backends`, `doctor` and `data show`: looking, without training anything."""

from __future__ import annotations

import platform
import sys
import traceback
from typing import Annotated, Any

import numpy as np
import typer
from rich.columns import Columns
from rich.table import Table
from rich.text import Text

import cnnkit
from cnnkit import plugins
from cnnkit.cli import common
from cnnkit.datasets import Dataset, load_dataset
from cnnkit.errors import CnnkitError, DataError, TrainingNotSupported
from cnnkit.evaluation import precision_of
from cnnkit.model import Conv2D, Dense, Flatten, MaxPool2D, Model, Softmax
from cnnkit.optimizers import SGD
from cnnkit.presets import load_preset, preset_names
from cnnkit.state import initial_state
from cnnkit.summary import summarize

SHADES = " .:-=+*#%@"


def summary(
    model: Annotated[
        str, typer.Argument(help="A preset (see `cnnkit models`), a model file, a run folder, or a checkpoint file.")
    ],
    json_: common.JsonOption = False,
    html: Annotated[bool, typer.Option("--html", help="Print an HTML table.")] = False,
) -> None:
    """Show a model layer by layer: shapes, parameters, multiply-adds, memory, receptive fields."""
    table = summarize(common.find_layers(model).plan())
    if json_:
        common.print_json(table.to_dict())
    else:
        width = common.console.width if sys.stdout.isatty() else None
        sys.stdout.write(f"{table._repr_html_() if html else table.text(width)}\n")


def models(json_: common.JsonOption = False) -> None:
    """List the presets."""
    presets = [load_preset(name) for name in preset_names()]
    if json_:
        rows = [
            {
                "name": preset.name,
                "about": preset.about,
                "parameters": preset.model.summary().parameters,
                "batch_size": preset.batch_size,
                "epochs": preset.epochs,
                "optimizer": type(preset.optimizer).__name__,
                "model": preset.model.to_dict(),
            }
            for preset in presets
        ]
        common.print_json({"models": rows})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "parameters", "trained with", "about"):
        table.add_column(heading, overflow="fold")
    for preset in presets:
        training = f"{type(preset.optimizer).__name__}, batch {preset.batch_size}, epochs {preset.epochs}"
        table.add_row(preset.name, f"{preset.model.summary().parameters:,}", training, preset.about)
    common.console.print(table)


def backends(json_: common.JsonOption = False) -> None:
    """List the installed backends: which are ready, and why the others are not."""
    found = plugins.backends()
    if json_:
        common.print_json({"backends": [status.to_dict() for status in found.values()]})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("name", "state", "devices", "runs on", "from"):
        table.add_column(heading, overflow="fold")
    for status in found.values():
        versions = ", ".join(f"{name} {version}" for name, version in status.versions.items())
        origin = f"{status.distribution} {status.distribution_version}".strip()
        table.add_row(status.name, status.state, ", ".join(status.devices), versions, origin)
    common.console.print(table)
    for status in found.values():
        if not status.ready:
            common.console.print(f"{status.name}: {status.reason}. {status.fix}.", soft_wrap=True)


def doctor(
    name: Annotated[str, typer.Argument(help="The backend to look at.")],
    device: common.DeviceOption = None,
    precision: common.PrecisionOption = "float32",
    set_: common.SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Say why a backend does not run, down to the root cause; or run a small network on it."""
    status = plugins.status(name, device)
    report: dict[str, Any] = {
        **status.to_dict(),
        "cnnkit": cnnkit.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "root_cause": repr(status.root_cause) if status.root_cause else None,
        "own_precisions": {},
        "trial": None,
    }
    error: BaseException | None = status.error
    if status.ready:
        try:
            report["own_precisions"] = plugins.own_precisions(name)
            report["trial"] = _trial(name, device, precision, common.backend_options(set_))
        except Exception as failure:  # noqa: BLE001 - whatever a backend raises is what the user has asked for
            said = str(failure) if isinstance(failure, CnnkitError) else repr(failure)
            error, report["trial"] = failure, f"failed: {said}"
            report["root_cause"] = repr(plugins.causes(failure)[-1])
    good = status.ready and error is None
    if json_:
        common.print_json({**report, "ok": good})
    else:
        _print_report(report, error)
    if not good:
        raise typer.Exit(1)


def _print_report(report: dict[str, Any], error: BaseException | None) -> None:
    own = [f"{name} ({rounded})" for name, rounded in report["own_precisions"].items()]
    lines = [
        ("backend", report["name"]),
        ("state", report["state"]),
        ("reason", report["reason"]),
        ("what to do", report["fix"]),
        ("trial", report["trial"]),
        ("root cause", report["root_cause"]),
        ("plugin", f"{report['module']} of {report['distribution']} {report['distribution_version']}"),
        ("runs on", ", ".join(f"{name} {version}" for name, version in report["versions"].items())),
        ("devices", ", ".join(report["devices"])),
        ("precisions", ", ".join(("float32", "float64", *own)) if own else ""),
        ("python", f"{report['python']} on {report['platform']}; cnnkit {report['cnnkit']}"),
    ]
    for heading, value in lines:
        if value:
            common.console.print(f"{heading:11} {value}", soft_wrap=True)
    if error is not None:
        common.console.print("\nThe whole story, root cause first:\n")
        common.console.print("".join(traceback.format_exception(error)), soft_wrap=True)


def _trial(name: str, device: str | None, precision: str, options: dict[str, Any]) -> str:
    """Create the backend and take one training step with every kind of layer that has numbers of its own.

    A backend that only predicts does that.
    """
    backend = plugins.get_backend(name, device, precision, **options)
    layers = [Conv2D(filters=2, kernel_size=3), MaxPool2D(), Flatten(), Dense(units=2), Softmax()]
    model = Model(input_shape=(6, 6, 1), layers=layers)
    optimizer = SGD(learning_rate=0.1)
    said = common.rounding(backend)
    inside = f", in {said}" if said else ""
    precision = precision_of(backend, precision)
    images = np.linspace(-1, 1, 72, dtype=precision).reshape(2, 6, 6, 1)
    state = initial_state(model, optimizer, 0, precision)
    try:
        program = backend.compile_training(model.plan(), state, optimizer)
    except TrainingNotSupported:
        sums = backend.compile(model.plan(), state.parameters).predict(images).sum(axis=1)
        if not np.allclose(sums, 1):
            raise CnnkitError(f"the probabilities of an image add up to {sums[0]:.6f}, not to 1.") from None
        return f"one prediction of a small network{inside}; the backend does not train"
    before = float(program.step(images, np.array([0, 1])))
    after, _ = program.gradients(images, np.array([0, 1]))
    if not after < before:
        raise CnnkitError(f"one step of gradient descent took the loss from {before:.6f} to {after:.6f}, not down.")
    return f"one training step of a small network{inside}: loss {before:.4f}, then {after:.4f}"


def data_show(
    dataset: Annotated[str, typer.Argument(help="A name, an .npz file, or a folder of images.")],
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    limit: common.LimitOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Show a data set: sizes, images a class, and one image of each."""
    train, test = load_dataset(dataset, data_dir, limit=limit, image_size=image_size)
    if len(train) == 0:
        raise DataError(
            f"the train part of {dataset} has 0 images, so there is nothing to show. Give data with images."
        )
    names = tuple(train.class_names or ()) or tuple(str(index) for index in range(train.classes))
    counts = {part: np.bincount(data.labels, minlength=len(names)) for part, data in (("train", train), ("test", test))}
    if json_:
        common.print_json(
            {
                "dataset": dataset,
                "image_shape": list(train.image_shape),
                "dtype": train.images.dtype.name,
                "range": [float(train.images.min()), float(train.images.max())],
                "classes": [
                    {"name": name, "train": int(counts["train"][index]), "test": int(counts["test"][index])}
                    for index, name in enumerate(names)
                ],
            }
        )
        return
    common.console.print(
        f"{dataset}: {len(train):,} images to learn from and {len(test):,} to be judged on, "
        f"{' x '.join(map(str, train.image_shape))}, {train.images.dtype.name}, "
        f"values {train.images.min():g} to {train.images.max():g}",
        soft_wrap=True,
    )
    table = Table(box=None, pad_edge=False)
    for heading in ("class", "train", "test"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for index, name in enumerate(names):
        table.add_row(name, f"{counts['train'][index]:,}", f"{counts['test'][index]:,}")
    common.console.print(table)
    if len(train.image_shape) == 3:
        common.console.print(Columns(_thumbnails(train, names), padding=(1, 3)))


def _thumbnails(data: Dataset, names: tuple[str, ...]) -> list[Text]:
    """The first image of each class in characters, two a pixel since they are half as wide as high; NaN is `??`."""
    pictures = []
    for index, name in enumerate(names):
        places = np.flatnonzero(data.labels == index)
        if len(places) == 0:
            continue
        grey = data.images[places[0]].astype(np.float64).mean(axis=-1)
        step = max(1, -(-max(grey.shape) // 16))
        grey = grey[::step, ::step]
        finite = np.isfinite(grey)
        low, high = (grey[finite].min(), grey[finite].max()) if finite.any() else (0.0, 0.0)
        levels = ((np.where(finite, grey, low) - low) / (high - low or 1) * (len(SHADES) - 1)).round().astype(int)
        levels[~finite] = -1
        rows = "\n".join("".join("??" if level < 0 else SHADES[level] * 2 for level in row) for row in levels)
        pictures.append(Text(f"{name}\n{rows}"))
    return pictures
