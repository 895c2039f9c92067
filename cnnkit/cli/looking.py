"""Looking inside a trained model: `cnnkit plot kernels`, `feature-maps`, `patches`, `convolution`, `pooling`, and `cnnkit trace`."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray

from cnnkit import tracing
from cnnkit.checkpoints import Checkpoint
from cnnkit.cli import common
from cnnkit.cli.plotting import OutOption, PartOption, check_part, folder_of, plot_app, write_picture
from cnnkit.datasets import Dataset, dataset_names, load_dataset, read_images
from cnnkit.errors import CheckpointError, CnnkitError, OptionError
from cnnkit.files import write_whole
from cnnkit.parameters import initial_parameters
from cnnkit.plugins import get_backend

if TYPE_CHECKING:
    from cnnkit.plot import Picture  # needs matplotlib, which nothing but drawing loads

RunArgument = Annotated[Path, typer.Argument(help="A run folder of `cnnkit train`, or a checkpoint file.")]
SubjectArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="IMAGE_OR_DATASET",
        help="An image file, or a data set by name or path. Default: the run's own data set.",
    ),
]
DatasetArgument = Annotated[
    str | None, typer.Argument(help="A name, an .npz file, or a folder of images. Default: the run's own data set.")
]
IndexOption = Annotated[int, typer.Option(help="Which image of the data set, from 0.", min=0)]
LayerOption = Annotated[int | None, typer.Option(help="Index of a layer. Default: the first one of its kind.", min=0)]


@plot_app.command()
def kernels(
    run: RunArgument,
    layer: LayerOption = None,
    before: Annotated[
        bool | None,
        typer.Option(
            "--before/--no-before",
            help="Beside them the initial ones, drawn from the run's seed. Default: if it is known.",
        ),
    ] = None,
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """The kernels of a convolution before and after training. Default file: kernels.png in the run folder."""
    checkpoint = common.find_checkpoint(run)
    if before and checkpoint.state is None:
        raise OptionError(
            f"{checkpoint.path} holds parameters alone, so the seed that they began with is not known. Leave out --before."
        )
    start = None
    if checkpoint.state is not None and before is not False:
        start = initial_parameters(checkpoint.model, checkpoint.state.seed)

    def draw() -> Picture:
        from cnnkit import plot

        return plot.kernels(checkpoint.model, checkpoint.parameters, before=start, layer=layer)

    write_picture(draw, out, folder_of(run) / "kernels.png", json_)


@plot_app.command("feature-maps")
def feature_maps(
    run: RunArgument,
    subject: SubjectArgument = None,
    index: IndexOption = 0,
    layer: Annotated[
        int | None, typer.Option(help="All maps of this layer. Default: some of every layer.", min=0)
    ] = None,
    count: Annotated[int, typer.Option(help="How many maps of every layer.", min=1)] = 16,
    part: PartOption = "test",
    backend: common.BackendOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """What the layers make of one image. Default file: feature-maps.png in the run folder."""
    checkpoint = common.find_checkpoint(run)

    def draw() -> Picture:
        from cnnkit import plot

        image = _subject(run, checkpoint, subject, index, part, data_dir, image_size).image
        chosen = get_backend(common.backend_choice(backend))
        return plot.feature_maps(checkpoint.model, checkpoint.parameters, image, chosen, layer=layer, count=count)

    write_picture(draw, out, folder_of(run) / "feature-maps.png", json_)


@plot_app.command()
def patches(
    run: RunArgument,
    dataset: DatasetArgument = None,
    layer: LayerOption = None,
    filter_: Annotated[
        list[int] | None, typer.Option("--filter", help="A filter; may be given several times. Default: the first 8.")
    ] = None,
    count: Annotated[int, typer.Option(help="How many patches for each filter.", min=1)] = 8,
    limit: common.LimitOption = None,
    part: PartOption = "test",
    backend: common.BackendOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """The patches of a data set that excite the filters of a convolution most. Default file: patches.png in the run folder."""
    checkpoint = common.find_checkpoint(run)

    def draw() -> Picture:
        from cnnkit import plot

        data = _data(run, checkpoint, dataset, part, data_dir, image_size, limit)
        chosen = get_backend(common.backend_choice(backend))
        return plot.exciting_patches(
            checkpoint.model, checkpoint.parameters, data, chosen, layer=layer, filters=filter_ or None, count=count
        )

    write_picture(draw, out, folder_of(run) / "patches.png", json_)


@plot_app.command()
def convolution(
    run: RunArgument,
    subject: SubjectArgument = None,
    index: IndexOption = 0,
    layer: LayerOption = None,
    filter_: Annotated[int, typer.Option("--filter", help="Number of the filter.", min=0)] = 0,
    at: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="ROW COLUMN", help="Place in the feature map. Default: where it is highest."),
    ] = None,
    part: PartOption = "test",
    backend: common.BackendOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """One value of a convolution worked out, as a picture and as numbers. Default file: convolution.png in the run folder."""
    from cnnkit.worked import explain_convolution

    checkpoint = common.find_checkpoint(run)
    image = _subject(run, checkpoint, subject, index, part, data_dir, image_size).image
    chosen = get_backend(common.backend_choice(backend))
    worked = explain_convolution(
        checkpoint.model, checkpoint.parameters, image, chosen, layer=layer, filter=filter_, at=at
    )

    def draw() -> Picture:
        from cnnkit.plot.worked import draw_convolution

        return draw_convolution(worked)

    write_picture(draw, out, folder_of(run) / "convolution.png", json_, {"convolution": worked.to_dict()})
    if not json_:
        common.console.print(f"\n{worked}", soft_wrap=True)


@plot_app.command()
def pooling(
    run: RunArgument,
    subject: SubjectArgument = None,
    index: IndexOption = 0,
    layer: LayerOption = None,
    channel: Annotated[int, typer.Option(help="Number of the map.", min=0)] = 0,
    part: PartOption = "test",
    backend: common.BackendOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    out: OutOption = None,
    json_: common.JsonOption = False,
) -> None:
    """One map before and after max pooling, with the chosen cells marked. Default file: pooling.png in the run folder."""
    checkpoint = common.find_checkpoint(run)

    def draw() -> Picture:
        from cnnkit import plot

        image = _subject(run, checkpoint, subject, index, part, data_dir, image_size).image
        chosen = get_backend(common.backend_choice(backend))
        return plot.max_pooling(checkpoint.model, checkpoint.parameters, image, chosen, layer=layer, channel=channel)

    write_picture(draw, out, folder_of(run) / "pooling.png", json_)


def trace(
    run: RunArgument,
    subject: SubjectArgument = None,
    index: IndexOption = 0,
    label: Annotated[
        str | None, typer.Option(help="Class of the image, by name or number. Default: what the data set says.")
    ] = None,
    gradients: Annotated[bool, typer.Option("--gradients/--no-gradients", help="They cost the most.")] = True,
    part: PartOption = "test",
    backend: common.BackendOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    device: common.DeviceOption = None,
    precision: common.PrecisionOption = "float32",
    set_: common.SetOption = None,
    out: Annotated[Path | None, typer.Option(help="Write all arrays to this .npz file.")] = None,
    json_: common.JsonOption = False,
) -> None:
    """Every array and every gradient of the next training step of a run, if it were on one image alone."""
    if out is not None and out.suffix != ".npz":
        raise OptionError(f"--out is {out}, which ends in {out.suffix or 'nothing'!r}; expected .npz.")
    checkpoint = common.find_checkpoint(run)
    found = _subject(run, checkpoint, subject, index, part, data_dir, image_size)
    chosen = get_backend(common.backend_choice(backend), device, precision, **common.backend_options(set_))
    common.tell_rounding(chosen)
    state = checkpoint.state
    traced = tracing.trace(
        checkpoint.model,
        checkpoint.parameters,
        found.image,
        _label(checkpoint, label, found.label),
        chosen,
        seed=state.seed if state else 0,
        step=state.step if state else 0,
        gradients=gradients,
        precision=precision,
    )
    if out is not None:
        _write_arrays(out, traced.arrays)
    if json_:
        common.print_json({"run": str(run), **traced.to_dict(), "out": None if out is None else str(out)})
        return
    common.console.print(str(traced), soft_wrap=True)
    if out is not None:
        common.console.print(f"Wrote {out}: {len(traced.arrays)} arrays", soft_wrap=True)


# ------------------------------------------------------------------------------------------------------- what they share


@dataclass(frozen=True)
class _Subject:
    """The image that is looked at; an image file has no label."""

    image: NDArray[Any]
    label: int | None


def _subject(
    run: Path,
    checkpoint: Checkpoint,
    subject: str | None,
    index: int,
    part: str,
    data_dir: Path | None,
    image_size: tuple[int, int] | None,
) -> _Subject:
    path = Path(subject or "")
    if subject is not None and subject not in dataset_names() and path.is_file() and path.suffix != ".npz":
        return _Subject(read_images([path], checkpoint.model.input_shape)[0], None)
    data = _data(run, checkpoint, subject, part, data_dir, image_size)
    if index >= len(data):
        raise OptionError(f"--index is {index}, but the {part} part has {len(data)} images, numbered from 0.")
    return _Subject(data.images[index], int(data.labels[index]))


def _data(
    run: Path,
    checkpoint: Checkpoint,
    dataset: str | None,
    part: str,
    data_dir: Path | None,
    image_size: tuple[int, int] | None,
    limit: int | None = None,
) -> Dataset:
    """A part of `dataset`, or of the data set that the run was trained on."""
    check_part(part)
    if dataset is None:
        request = _request(run)
        dataset, size = request["dataset"], request["image_size"]
        data_dir = data_dir or (Path(request["data_dir"]) if request["data_dir"] else None)
        image_size = image_size or (None if size is None else (size[0], size[1]))
    image_size = common.size_of_images(checkpoint.model, dataset, image_size)
    train, test = load_dataset(dataset, data_dir, limit=limit, image_size=image_size)
    return test if part == "test" else train


def _request(run: Path) -> dict[str, Any]:
    """What run.json says about the data of a run."""
    path = folder_of(run) / "run.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {name: found[name] for name in ("dataset", "data_dir", "image_size")}
    except FileNotFoundError:
        raise OptionError(f"{path} is not there to say which data set is meant. Name a data set or an image.") from None
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error!r}). Name a data set or an image.") from error


def _label(checkpoint: Checkpoint, said: str | None, known: int | None) -> int:
    """The number of the class that was asked for, by name or by number, or else the known one."""
    names = checkpoint.model.class_names or ()
    if said is None:
        if known is None:
            raise OptionError("an image file does not say its class. Give --label with a name or a number.")
        return known
    if said in names:
        return names.index(said)
    classes = checkpoint.model.plan().classes
    if said.isdecimal() and int(said) < classes:
        return int(said)
    known_names = f"{', '.join(names)}, or a number" if names else "a number"
    raise OptionError(f"--label is {said!r}; expected {known_names} from 0 to {classes - 1}.")


def _write_arrays(path: Path, arrays: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    try:
        write_whole(path, buffer.getvalue())
    except OSError as error:
        raise CnnkitError(f"{path} cannot be written: {error.strerror or error}. Choose another place.") from error
