"""`cnnkit evaluate` and `cnnkit predict`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cnnkit import evaluation
from cnnkit.cli import common
from cnnkit.datasets import image_files, load_dataset, read_images
from cnnkit.errors import OptionError
from cnnkit.plugins import get_backend

CheckpointArgument = Annotated[Path, typer.Argument(help="A run folder, or a checkpoint file.")]


def evaluate(
    run: CheckpointArgument,
    dataset: Annotated[str, typer.Argument(help="A name, an .npz file, or a folder of images; its test part is used.")],
    part: Annotated[str, typer.Option(help="test or train.")] = "test",
    backend: common.BackendOption = None,
    limit: common.LimitOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    device: common.DeviceOption = None,
    precision: common.PrecisionOption = "float32",
    set_: common.SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Judge a trained model on a data set."""
    if part not in ("test", "train"):
        raise OptionError(f"--part is {part!r}; expected test or train.")
    checkpoint = common.find_checkpoint(run)
    image_size = common.size_of_images(checkpoint.model, dataset, image_size)
    train_data, test_data = load_dataset(dataset, data_dir, limit=limit, image_size=image_size)
    chosen = get_backend(common.backend_choice(backend), device, precision, **common.backend_options(set_))
    common.tell_rounding(chosen)
    data = test_data if part == "test" else train_data
    metrics = evaluation.evaluate(checkpoint.model, checkpoint.parameters, data, chosen)
    if json_:
        about = {"run": str(run), "dataset": dataset, "part": part, "rounded": common.rounding(chosen)}
        common.print_json({**about, **metrics.to_dict()})
    else:
        common.console.print(str(metrics))


def predict(
    run: CheckpointArgument,
    images: Annotated[list[Path], typer.Argument(help="Image files, or folders of them.")],
    top: Annotated[int, typer.Option(help="How many classes to show for each image.", min=1)] = 3,
    backend: common.BackendOption = None,
    device: common.DeviceOption = None,
    precision: common.PrecisionOption = "float32",
    set_: common.SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Classify images: class names and probabilities."""
    checkpoint = common.find_checkpoint(run)
    files = image_files(images)
    pixels = read_images(files, checkpoint.model.input_shape)
    chosen = get_backend(common.backend_choice(backend), device, precision, **common.backend_options(set_))
    common.tell_rounding(chosen)
    answers = evaluation.classify(checkpoint.model, checkpoint.parameters, pixels, chosen)
    if json_:
        rows = [
            {
                "file": str(file),
                "class": answer.class_name,
                "probability": answer.probability,
                "probabilities": answer.probabilities,
            }
            for file, answer in zip(files, answers, strict=True)
        ]
        common.print_json({"run": str(run), "rounded": common.rounding(chosen), "predictions": rows})
        return
    for file, answer in zip(files, answers, strict=True):
        ranked = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:top]
        said = "  ".join(f"{name} {probability:.1%}" for name, probability in ranked)
        common.console.print(f"{file}: {said}", soft_wrap=True)
