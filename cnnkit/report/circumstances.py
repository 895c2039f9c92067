"""The second half of a run's report: the model, what it cost, where it ran, and how to do it again."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from cnnkit.arrays import times
from cnnkit.optimizers import SGD, Adam, AdamW
from cnnkit.parameters import initial_parameters
from cnnkit.report.document import Block, Code, Facts, Mono, Paragraph, Section, Table, Words
from cnnkit.report.folder import FinishedRun
from cnnkit.report.pictures import Studio
from cnnkit.report.words import NOTHING, counted, mib, moment, plain, rate, seconds

# --------------------------------------------------------------------------------------------------------------- model


def model(run: FinishedRun, studio: Studio) -> Section:
    """Its layers, as a picture and as a table, and what its kernels have learned."""
    found = run.checkpoint.model
    summary = found.summary()
    rows = [["Input", "", times(summary.input_shape), "", "", "", ""]]
    rows += [
        [
            f"{layer.index}: {layer.kind}",
            layer.settings,
            times(layer.output_shape),
            f"{layer.parameters:,}",
            f"{layer.multiply_adds:,}",
            f"{layer.activation_bytes / 1024:,.1f}",
            times(layer.receptive_field) if layer.receptive_field else NOTHING,
        ]
        for layer in summary.layers
    ]
    rows.append(
        [
            "Total",
            "",
            "",
            f"{summary.parameters:,}",
            f"{summary.multiply_adds:,}",
            f"{summary.activation_bytes / 1024:,.1f}",
            "",
        ]
    )
    caption = (
        "The layers. Shapes are height x width x channels. Multiply-adds and activations are those of one image in "
        "float32, and the receptive field is the patch of the input that one value looks at."
    )
    head = ["Layer", "Settings", "Output", "Parameters", "Multiply-adds", "Activations, KiB", "Receptive field"]
    blocks: list[Block] = []
    blocks += studio.figure(
        "architecture", "The model, from the input to the classes.", lambda plot: plot.architecture(found)
    )
    blocks.append(Table("layers", caption, head, rows, words=frozenset({1, 2, 6}), kind="layers"))
    if any(layer.kind == "conv2d" for layer in found.layers):
        before = initial_parameters(found, run.result["seed"])
        blocks += studio.figure(
            "kernels",
            "Kernels of the first convolution, before training and after it.",
            lambda plot: plot.kernels(found, run.checkpoint.parameters, before=before),
        )
    return Section("model", "Model", blocks)


# -------------------------------------------------------------------------------------------------------- time, memory


def costs(run: FinishedRun, _: Studio) -> Section:
    """How long it took, by the epoch and by 1000 images, and how much memory."""
    took, images = run.result["seconds"], run.result["images"]
    epochs = len(run.history)
    seen = epochs * images["train"]
    rows = [
        ["Training", f"{seen:,}", seconds(took["train"]), rate(took["train_per_1000"]), _speed(took["train_per_1000"])],
        [
            "Judging the test images",
            f"{images['test']:,}",
            seconds(took["test"]),
            rate(took["test_per_1000"]),
            _speed(took["test_per_1000"]),
        ],
    ]
    caption = (
        f"Wall times. Training went {counted(epochs, 'time')} over {counted(images['train'], 'image')}; how long each "
        "epoch took is in the table of all epochs. Compiling, checkpoints and judging are not in the time for training."
    )
    head = ["What", "Images", "Time", "Seconds / 1000 images", "Images / second"]
    peak = run.result["memory"]["peak_mib"]
    facts = Facts(
        [
            ("From start to end", f"{seconds(took['wall'])}" + (" since it was resumed" if _resumed(run) else "")),
            ("Peak memory", "" if peak is None else f"{mib(peak)} of the whole process, in main memory"),
            ("Machine", machine_in_words(run)),
        ]
    )
    return Section("costs", "Time and memory", [Table("times", caption, head, rows), facts])


def _speed(per_1000: float) -> str:
    return f"{1000 / per_1000:,.0f}" if per_1000 > 0 else NOTHING


def _resumed(run: FinishedRun) -> bool:
    return bool(run.machine.get("resumed"))


def machine_in_words(run: FinishedRun) -> str:
    """`Linux..., x86_64, 2 processors, 1 thread`: what the times were measured on."""
    machine = run.machine
    if not machine:
        return ""
    said = [str(machine["platform"]), str(machine["processor"]), counted(machine["cpus"], "processor")]
    return ", ".join([*(part for part in said if part), threads_in_words(machine["threads"])])


def threads_in_words(threads: int | None) -> str:
    """The number of threads, or who decided it."""
    return "threads as the backend chose" if threads is None else counted(threads, "thread")


# -------------------------------------------------------------------------------------------- settings and environment


def settings(run: FinishedRun, _: Studio) -> Section:
    """Everything that was asked for, and everything it ran on."""
    request, result = run.request, run.result
    asked = Facts(
        [
            ("Model", run.model_name),
            ("From", "" if request["model"] == run.model_name else (Mono(str(request["model"])),)),
            ("Data set", (Mono(str(result["dataset"])),)),
            ("Images", images_in_words(run)),
            ("Limit", "" if request["limit"] is None else f"the first {request['limit']:,} images of each part"),
            ("Image size", plain(request.get("image_size"))),
            ("Validation", validation_in_words(run)),
            ("Optimizer", optimizer_in_words(result["optimizer"])),
            ("Batch size", plain(result["batch_size"])),
            ("Epochs", plain(result["epochs"])),
            ("Early stopping", "" if request["patience"] is None else f"patience {request['patience']}"),
            ("Seed", plain(result["seed"])),
        ]
    )
    versions = result["versions"]
    ran = Facts(
        [
            ("Backend", str(result["backend"])),
            ("Device", str(result["device"] or "the backend's own choice")),
            ("Precision", str(result.get("rounded") or result["precision"])),
            ("Options", options_in_words(result["options"])),
            ("Threads", threads_in_words(run.machine["threads"]) if run.machine else ""),
            ("Began", moment(run.machine.get("started")) + (" (resumed)" if _resumed(run) else "")),
            ("Ended", moment(run.machine.get("ended"))),
            ("Platform", str(run.machine.get("platform", ""))),
            ("Processor", _processor(run.machine)),
            *((name, str(version)) for name, version in versions.items()),
        ]
    )
    return Section("settings", "Settings and environment", [asked, ran])


def _processor(machine: Mapping[str, Any]) -> str:
    return f"{machine['processor'] or 'unknown'}, {machine['cpus']} for this process" if machine else ""


def images_in_words(run: FinishedRun) -> str:
    """How many images there were to learn from, and to be judged on."""
    images = run.result["images"]
    return f"{images['train']:,} for training, {images['test']:,} for the test"


def validation_in_words(run: FinishedRun) -> str:
    """What was held out of training."""
    fraction = run.request["validation"]
    if fraction is None and run.request["patience"] is None:
        return ""
    return f"{0.1 if fraction is None else fraction:g} of the training set held out"


_OPTIMIZERS = {kind.__name__.lower(): kind.__name__ for kind in (SGD, Adam, AdamW)}


def optimizer_in_words(optimizer: Mapping[str, Any]) -> str:
    """`Adam, learning_rate 0.001, beta_1 0.9`."""
    told = [f"{name} {_in_words(value)}" for name, value in optimizer.items() if name != "kind"]
    kind = str(optimizer.get("kind", ""))
    return ", ".join([_OPTIMIZERS.get(kind, kind), *told])


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "(" + ", ".join(f"{name} {_in_words(inner)}" for name, inner in value.items()) + ")"
    return plain(value) or "none"


def options_in_words(options: Mapping[str, Any]) -> str:
    """`threads=2`, or `none`."""
    return ", ".join(f"{name}={value}" for name, value in options.items()) or "none"


# --------------------------------------------------------------------------------------------------------- do it again


def again(run: FinishedRun, _: Studio) -> Section:
    """The commands that made this run, go on with it, and use it."""
    place = shlex.quote(run.place)
    dataset = shlex.quote(str(run.request["dataset"]))
    more = len(run.history) + max(1, len(run.history) // 2)
    blocks: list[Block] = [
        Paragraph("The command that made this run:"),
        Code(shlex.join(map(str, run.request["command"]))),
        Paragraph(_same(run), "soft"),
        Paragraph("Go on with it for more epochs:"),
        Code(f"cnnkit train --resume {place} --epochs {more}"),
        Paragraph("Classify images with it, and judge it again:"),
        Code(f"cnnkit predict {place} IMAGE...\ncnnkit evaluate {place} {dataset}{_data_options(run)}"),
        Paragraph("In Python:"),
        Code(
            "import cnnkit\n\n"
            f"run = cnnkit.load({run.place + '/model.safetensors'!r})\n"
            "probabilities = cnnkit.predict(run.model, run.parameters, images)"
        ),
        Paragraph("Write this report again, and compare it with another run:"),
        Code(f"cnnkit report {place}\ncnnkit report {place} OTHER_RUN"),
    ]
    return Section("again", "Do it again", blocks)


def _same(run: FinishedRun) -> Words:
    return (
        "Paths in it begin in the folder in which it was typed. The seed, ",
        Mono(str(run.result["seed"])),
        ", fixes initial weights and the order of images; a deterministic backend then gives the same run again.",
    )


def _data_options(run: FinishedRun) -> str:
    said = ""
    if run.request["limit"] is not None:
        said += f" --limit {run.request['limit']}"
    if run.request.get("data_dir"):
        said += f" --data-dir {shlex.quote(run.request['data_dir'])}"
    if run.request.get("image_size"):
        said += " --image-size {} {}".format(*run.request["image_size"])
    return said
