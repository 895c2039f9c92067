"""What a convolution knows that a dense layer does not: which pixels are neighbours.

    python examples/permuted_pixels.py

A convolutional network and a dense one with as many parameters learn the same images twice: as they are, and with their
pixels in another order, one random order for all images. A dense layer joins everything to everything, so the order is
nothing to it; a convolution looks for neighbours that are no longer there.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

import cnnkit
from cnnkit import Conv2D, Dataset, Dense, Flatten, MaxPool2D, Model, Rescale, Softmax


def main(arguments: list[str] | None = None) -> None:
    """Train both networks on both kinds of images with every seed, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, help="only so many images for training, and for the test")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--backend", default="numpy-batched")
    parser.add_argument("--out", type=Path, help="a folder for the picture of both kinds of images; needs cnnkit[plot]")
    asked = parser.parse_args(arguments)

    train, test = cnnkit.load_dataset(asked.dataset, asked.data_dir, limit=asked.limit)
    height, width, _ = train.image_shape
    order = np.random.default_rng(2024).permutation(height * width)
    kinds = {"as they are": (train, test), "permuted": (permuted(train, order), permuted(test, order))}
    networks = dict(zip(("convolutional", "dense"), alike(train), strict=True))

    seeds = [int(seed) for seed in asked.seeds.split(",")]
    print("| network | parameters | accuracy, images as they are | pixels permuted | what the order was worth |")
    print("| --- | --- | --- | --- | --- |")
    trained: dict[tuple[str, str], Any] = {}
    for name, model in networks.items():
        accuracies: dict[str, list[float]] = {kind: [] for kind in kinds}
        for kind, (learned, judged) in kinds.items():
            for seed in seeds:
                run = cnnkit.fit(
                    model, learned, None, asked.backend, epochs=asked.epochs, seed=seed, train_metrics=False
                )
                accuracy = cnnkit.evaluate(model, run.state.parameters, judged, asked.backend).accuracy
                print(f"{name}, {kind}, seed {seed}: {accuracy:.4f}", file=sys.stderr)
                accuracies[kind].append(accuracy)
                trained.setdefault((name, kind), run.state.parameters)
        means = [statistics.mean(found) for found in accuracies.values()]
        cells = [mean_and_spread(found) for found in accuracies.values()]
        print(f"| {name} | {model.summary().parameters:,} | {cells[0]} | {cells[1]} | {means[0] - means[1]:+.4f} |")

    print(f"\nMean and standard deviation over {len(seeds)} seed(s), {asked.epochs} epochs, {len(train):,} images.")
    off = same_function(networks["dense"], trained["dense", "as they are"], test, order, asked.backend)
    print(
        "The dense network that learned the images as they are, with the rows of its first kernel put into the same\n"
        f"order as the pixels, gives for permuted images what it gave: the probabilities differ by {off:.1e} at most."
    )
    if asked.out is not None:
        draw(kinds, asked.out)


def alike(data: Dataset) -> tuple[Model, Model]:
    """A convolutional and a dense model for the images of `data`, with as nearly as many parameters as units allow."""
    end = [Dense(units=data.classes), Softmax()]
    convolutional = Model(
        name="convolutional",
        input_shape=data.image_shape,
        layers=[
            Rescale(scale=1 / 255),
            Conv2D(filters=16, kernel_size=3, padding="same", activation="relu"),
            MaxPool2D(pool_size=2),
            Conv2D(filters=32, kernel_size=3, padding="same", activation="relu"),
            MaxPool2D(pool_size=2),
            Flatten(),
            *end,
        ],
    )
    features = int(np.prod(data.image_shape))
    # units * (features + 1) in the hidden layer, units * classes + classes in the last one
    units = round((convolutional.summary().parameters - data.classes) / (features + 1 + data.classes))
    hidden = Dense(units=units, activation="relu")
    dense = Model(name="dense", input_shape=data.image_shape, layers=[Rescale(scale=1 / 255), Flatten(), hidden, *end])
    return convolutional, dense


def permuted(data: Dataset, order: np.ndarray) -> Dataset:
    """The same images with pixel `order[i]` at place `i`; the channels of a pixel stay together."""
    pixels = data.images.reshape(len(data), -1, data.image_shape[2])  # (n, height * width, channels)
    return Dataset(pixels[:, order].reshape(data.images.shape), data.labels, data.class_names)


def same_function(
    model: Model, parameters: dict[str, np.ndarray], data: Dataset, order: np.ndarray, backend: str
) -> float:
    """How far the dense model is from itself when the pixels and the rows of its first kernel change places alike."""
    kernel = parameters["2.kernel"]  # layer 2, after Rescale and Flatten: (height * width * channels, units)
    by_pixel = kernel.reshape(len(order), -1, kernel.shape[1])  # (height * width, channels, units)
    moved = {**parameters, "2.kernel": by_pixel[order].reshape(kernel.shape)}
    before = cnnkit.predict(model, parameters, data.images, backend)
    after = cnnkit.predict(model, moved, permuted(data, order).images, backend)
    return float(np.abs(before - after).max())


def draw(kinds: dict[str, tuple[Dataset, Dataset]], out: Path) -> None:
    """A row of images as they are, one of each class, and the same with their pixels permuted."""
    from cnnkit import plot

    labels = next(iter(kinds.values()))[0].labels
    first = np.unique(labels, return_index=True)[1]  # of each class
    rows = np.concatenate([learned.images[first] for learned, _ in kinds.values()])
    out.mkdir(parents=True, exist_ok=True)
    pairs = Dataset(rows, np.repeat(np.arange(len(kinds)), len(first)), tuple(kinds))
    print(f"\nThe picture is in {plot.images(pairs).save(out / 'permuted_pixels.png')}.")


def mean_and_spread(values: list[float]) -> str:
    """Mean and sample standard deviation; the mean alone where there is one value."""
    spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.4f}{spread}"


if __name__ == "__main__":
    main()
