"""`cnnkit plot`: pictures of runs, models and data. `cnnkit.cli.looking` adds those that look inside a model."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnnkit.cli import common
from cnnkit.datasets import Dataset, load_dataset
from cnnkit.errors import CheckpointError, DataError, OptionError
from cnnkit.history import EpochRecord
from cnnkit.metrics import Metrics
from cnnkit.mistakes import Mistakes, worst_mistakes
from cnnkit.plugins import get_backend

if TYPE_CHECKING:
    from cnnkit.plot import Picture  # needs matplotlib, which nothing but drawing loads

plot_app = typer.Typer(
    help="Pictures of runs, models and data, as PNG or SVG. Needs the extra plot.", no_args_is_help=True
)

RunArgument = Annotated[Path, typer.Argument(help="A run folder of `cnnkit train`.")]
OutOption = Annotated[Path | None, typer.Option(help="File to write, .png or .svg; one that is there is replaced.")]
PartOption = Annotated[str, typer.Option(help="test or train.")]


@plot_app.command()
def curves(run: RunArgument, out: OutOption = None, json_: common.JsonOption = False) -> None:
    """Loss and accuracy over the epochs of a run. Default file: RUN/curves.png."""

    def draw() -> Picture:
        from cnnkit.plot import learning_curves

        return learning_curves(_history(run))

    write_picture(draw, out, run / "curves.png", json_)


@plot_app.command()
def confusion(
    run: RunArgument, part: PartOption = "test", out: OutOption = None, json_: common.JsonOption = False
) -> None:
    """Which classes a run took for which. Default file: RUN/confusion.png."""

    def draw() -> Picture:
        from cnnkit.plot import confusion_matrix

        return confusion_matrix(_metrics(run, check_part(part)))

    write_picture(draw, out, run / "confusion.png", json_)


@plot_app.command()
def mistakes(
    run: Annotated[Path, typer.Argument(help="A run folder, or a checkpoint file.")],
    dataset: Annotated[
        str | None, typer.Argument(help="Data to judge; default: the mistakes that the run itself has kept.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many images to show at most.", min=1)] = 16,
    part: PartOption = "test",
    backend: common.BackendOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    limit: common.LimitOption = None,
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """The images that a model is most sure to be something else. Default file: mistakes.png in the run folder."""
    if dataset is None and (part != "test" or any((backend, data_dir, image_size, limit))):
        raise OptionError(
            "--part, --backend, --data-dir, --image-size and --limit say how to judge a data set, but none is named. "
            f"Name it: cnnkit plot mistakes {shlex.quote(str(run))} DATASET."
        )

    def draw() -> Picture:
        from cnnkit import plot

        if dataset is None:
            return plot.mistakes(_kept_mistakes(run, count))
        checkpoint = common.find_checkpoint(run)
        size = common.size_of_images(checkpoint.model, dataset, image_size)
        data = _part(dataset, part, data_dir, image_size=size, limit=limit)
        chosen = get_backend(common.backend_choice(backend))
        return plot.mistakes(worst_mistakes(checkpoint.model, checkpoint.parameters, data, chosen, count=count))

    write_picture(draw, out, folder_of(run) / "mistakes.png", json_)


@plot_app.command()
def architecture(
    model: Annotated[str, typer.Argument(help="A preset, a model file, a run folder, or a checkpoint file.")],
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """The layers of a model with their shapes. Default file: architecture.png in the run folder, or architecture-MODEL.png."""
    path = Path(model)
    default = (
        folder_of(path) / "architecture.png" if common.is_trained(model) else Path(f"architecture-{path.stem}.png")
    )

    def draw() -> Picture:
        from cnnkit import plot

        return plot.architecture(common.find_layers(model))

    write_picture(draw, out, default, json_)


@plot_app.command("data")
def data_(
    dataset: Annotated[str, typer.Argument(help="A name, an .npz file, or a folder of images.")],
    count: Annotated[
        int | None, typer.Option(help="Show N images, class by class in turn. Default: a row a class.", min=1)
    ] = None,
    columns: Annotated[int | None, typer.Option(help="Images in a row. Default: 10.", min=1)] = None,
    part: PartOption = "train",
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Images of a data set with their classes. Default file: data-DATASET.png."""

    def draw() -> Picture:
        from cnnkit import plot

        return plot.images(_part(dataset, part, data_dir, image_size=image_size), count=count, columns=columns)

    write_picture(draw, out, Path(f"data-{Path(dataset).stem}.png"), json_)


# ------------------------------------------------------------------------------------------------------- what they share


def write_picture(
    draw: Callable[[], Picture], out: Path | None, default: Path, as_json: bool, more: Mapping[str, Any] | None = None
) -> None:
    """Write what `draw` returns to `out`, or else `default`, and print the path and the words of the picture.

    `more` is what the JSON object has beside them.
    """
    path = out or default
    if path.suffix.lower() not in (".png", ".svg"):  # before anything is computed
        raise OptionError(f"--out is {path}, which ends in {path.suffix or 'nothing'!r}; expected .png or .svg.")
    common.show_warnings_as_notes()
    picture = draw()
    picture.save(path)
    if as_json:
        common.print_json({"path": str(path), "alt": picture.alt, **(more or {})})
        return
    common.console.print(f"Wrote {path}", soft_wrap=True)
    common.console.print(picture.alt, soft_wrap=True)


def folder_of(run: Path) -> Path:
    """Where the pictures of a run go: its folder, whether that or a checkpoint in it was named."""
    return run if run.is_dir() else run.parent


def check_part(part: str) -> str:
    """`part`, which has to be one of the two."""
    if part not in ("test", "train"):
        raise OptionError(f"--part is {part!r}; expected test or train.")
    return part


def _part(dataset: str, part: str, data_dir: Path | None, **settings: Any) -> Dataset:
    check_part(part)
    train, test = load_dataset(dataset, data_dir, **settings)
    return test if part == "test" else train


def _read(run: Path, name: str, why_not: str) -> str:
    """The text of a file in the run folder `run`; `why_not` says what it means that it is not there."""
    path = run / name
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CheckpointError(f"{path} is not there: {why_not}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}. Give a run folder of `cnnkit train`.") from error


def _history(run: Path) -> list[EpochRecord]:
    """What the epochs that have ended so far have written, so that a run can be looked at while it goes on."""
    text = _read(run, "history.jsonl", "no epoch of a run has ended there. Give a run folder of `cnnkit train`.")
    try:
        return [_record(json.loads(line)) for line in text.splitlines()]
    except (ValueError, LookupError, TypeError) as error:
        raise CheckpointError(
            f"{run / 'history.jsonl'} is damaged: {error!r}. Use another copy of the file."
        ) from error


def _record(line: dict[str, Any]) -> EpochRecord:
    """A line of the history, whose figures have to be there."""
    record = EpochRecord(**line)
    figures = [part[name] for part in (record.train, record.validation) if part for name in ("loss", "accuracy")]
    if not all(isinstance(figure, (int, float)) for figure in (record.epoch, record.running_loss, *figures)):
        raise TypeError("a figure is no number")
    return record


def _metrics(run: Path, part: str) -> Metrics:
    """The figures of the run's end."""
    why_not = "it is no run folder of `cnnkit train`. Give one."
    if (run / "run.json").exists():
        why_not = (
            f"training has not ended. Go on with it: cnnkit train --resume {shlex.quote(str(run))}. What it has learned so "
            f"far is judged by cnnkit evaluate {shlex.quote(str(run))} DATASET."
        )
    text = _read(run, "metrics.json", why_not)
    try:
        found = json.loads(text)[part]
        names = [record["name"] for record in found["per_class"]]
        return Metrics(found["confusion"], found["loss"], tuple(names))
    except (ValueError, LookupError, TypeError, DataError) as error:
        raise CheckpointError(f"{run / 'metrics.json'} is damaged: {error!r}. Use another copy of the file.") from error


def _kept_mistakes(run: Path, count: int) -> Mistakes:
    """The first `count` of those that `cnnkit train` left in the folder `run`."""
    judge = f"cnnkit plot mistakes {shlex.quote(str(run))} DATASET"
    path = run / "mistakes.npz"
    if not path.exists():
        common.find_checkpoint(run)  # its message, where there is no run at all
        lack = f"{path} is not there" if run.is_dir() else f"{run} is a checkpoint, which keeps no mistakes"
        raise OptionError(f"{lack}, so the mistakes have to be found. Name the data set: {judge}.")
    found = Mistakes.load(path)
    if len(found) < min(count, found.total):
        common.notes.print(f"note: the run has kept {len(found)} of {found.total:,}. For more: {judge}", soft_wrap=True)
    return found.limit(count)
