"""Your own images: from a folder of files to a network that names what is in a new file.

    python examples/own_folder.py --out shapes

The files are drawn here: circles, squares and triangles of random size, place and grey, one folder for each class.
Put a folder of your own in their place with `--images FOLDER`.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import cnnkit
from cnnkit import Adam, Conv2D, DataError, Dense, Flatten, MaxPool2D, Model, Rescale, Softmax
from cnnkit.datasets import read_images

SHAPES = ("circle", "square", "triangle")
SIZE = 32


def main(arguments: list[str] | None = None) -> None:
    """Draw, load, train, judge, predict; then see what a broken file and one of another size lead to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="your folder, with one folder of images for each class")
    parser.add_argument("--each", type=int, default=200, help="how many images of each shape are drawn")
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="numpy-batched")
    parser.add_argument("--out", type=Path, help="where the images and the trained network stay (default: nowhere)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as passing:
        out = asked.out or Path(passing)
        rng = np.random.default_rng(asked.seed)
        if asked.images is None:
            draw_folder(out / "images", asked.each, rng)
        learn(asked, asked.images or out / "images", out)
        if asked.images is None:
            for shape in SHAPES:  # of which the network has seen none
                draw(shape, rng).save(out / f"new-{shape}.png")
            recognise(out, [out / f"new-{shape}.png" for shape in SHAPES], asked.backend)
            show_what_goes_wrong(out / "images")


def draw(shape: str, rng: np.random.Generator) -> Image.Image:
    """A grey picture of 32 x 32 pixels with one shape in it, lighter or darker than its background, and some noise."""
    radius = int(rng.integers(5, 11))
    x, y = rng.integers(radius + 1, SIZE - radius - 1, 2).tolist()
    dark, light = int(rng.integers(0, 100)), int(rng.integers(150, 256))
    paper, ink = (dark, light) if rng.random() < 0.5 else (light, dark)
    image = Image.new("L", (SIZE, SIZE), paper)
    box = (x - radius, y - radius, x + radius, y + radius)
    pen = ImageDraw.Draw(image)
    if shape == "circle":
        pen.ellipse(box, fill=ink)
    elif shape == "square":
        pen.rectangle(box, fill=ink)
    else:
        pen.polygon([(x, box[1]), (box[0], box[3]), (box[2], box[3])], fill=ink)
    noisy = np.asarray(image) + rng.normal(0, 8, (SIZE, SIZE))
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def draw_folder(folder: Path, each: int, rng: np.random.Generator) -> None:
    """`folder/circle/000.png` and so on: what `load_folder` reads is one folder for each class."""
    for shape in SHAPES:
        (folder / shape).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            draw(shape, rng).save(folder / shape / f"{number:03}.png")


def learn(asked: argparse.Namespace, folder: Path, out: Path) -> None:
    """Train on four fifths of the images, judge on the rest, and save the network with the names of its classes."""
    data = cnnkit.load_folder(folder)
    train, test = data.split(0.2, asked.seed)
    print(
        f"{len(data)} images {data.image_shape} of {', '.join(data.class_names)}; {len(test)} are kept for the test.\n"
    )
    model = Model(
        name="shapes",
        input_shape=data.image_shape,
        layers=[
            Rescale(scale=1 / 255),
            Conv2D(filters=8, kernel_size=3, padding="same", activation="relu"),
            MaxPool2D(),
            Conv2D(filters=16, kernel_size=3, padding="same", activation="relu"),
            MaxPool2D(),
            Flatten(),
            Dense(units=32, activation="relu"),
            Dense(units=data.classes),
            Softmax(),
        ],
        class_names=data.class_names,
    )
    optimizer = Adam(learning_rate=2e-3)
    run = cnnkit.fit(model, train, None, asked.backend, optimizer, 32, asked.epochs, asked.seed, train_metrics=False)
    metrics = cnnkit.evaluate(model, run.state.parameters, test, asked.backend)
    print("| class | precision | recall | F1 | test images |")
    print("| --- | --- | --- | --- | --- |")
    for row in metrics.per_class:
        print(f"| {row.name} | {row.precision:.3f} | {row.recall:.3f} | {row.f1:.3f} | {row.support} |")
    print(f"\nTest accuracy {metrics.accuracy:.4f}. {run.message}")
    cnnkit.save(out / "shapes.safetensors", model, run.state, optimizer=run.optimizer)


def recognise(out: Path, files: list[Path], backend: str) -> None:
    """What the saved network, read again, says of image files."""
    found = cnnkit.load(out / "shapes.safetensors")
    images = read_images(files, found.model.input_shape)  # any format and size, made to fit the model
    print("\n| file | class | probability |")
    print("| --- | --- | --- |")
    for file, answer in zip(files, cnnkit.classify(found.model, found.parameters, images, backend), strict=True):
        print(f"| {file.name} | {answer.class_name} | {answer.probability:.3f} |")


def show_what_goes_wrong(folder: Path) -> None:
    """The messages for a file that is no image, and for an image of another size; the folder is as before afterwards."""
    broken, wide = folder / "circle" / "broken.png", folder / "square" / "wide.png"
    print("\nWith a text file called .png in the folder, and with an image of another size:\n")
    for file, write in (
        (broken, lambda: broken.write_text("no picture")),
        (wide, lambda: Image.new("L", (40, SIZE)).save(wide)),
    ):
        write()
        try:
            cnnkit.load_folder(folder)
        except DataError as error:
            print(f"- {error}".replace(f"{folder}/", ""))
        finally:
            file.unlink()


if __name__ == "__main__":
    main()
