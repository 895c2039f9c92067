"""Does depth help? One, two, four and six convolutions, and nothing else that differs.

    python examples/depth_ladder.py

Every rung has convolutions of 16 kernels of 3 x 3 with padding "same", two max pools, and one dense layer on the same
number of values: only the number of convolutions changes. More layers are more parameters too; so a last row has one
convolution again, made so wide that it has as many as the deepest. The second table is accuracy after each epoch.
"""

import argparse
import itertools
import statistics
import sys
from pathlib import Path

import numpy as np

import cnnkit
from cnnkit import Conv2D, Dataset, Dense, Flatten, Grayscale, MaxPool2D, Model, Rescale, Softmax

LADDER = {1: (1, 0, 0), 2: (1, 1, 0), 4: (2, 2, 0), 6: (2, 2, 2)}
"""How many convolutions stand before the first pool, between the two, and after the second."""


def main(arguments: list[str] | None = None) -> None:
    """Train every rung with every seed, and print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="mnist", help="mnist, cifar10, digits, or a path")
    parser.add_argument("--grey", action="store_true", help="the mean of the colours, as the first layer")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, help="only so many images for training, and for the test")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--backend", default="numpy-batched")
    parser.add_argument("--out", type=Path, help="a folder for the picture of the second table; needs cnnkit[plot]")
    asked = parser.parse_args(arguments)

    train, test = cnnkit.load_dataset(asked.dataset, asked.data_dir, limit=asked.limit)
    seeds = [int(seed) for seed in asked.seeds.split(",")]
    rungs = {str(count): rung(train, places, grey=asked.grey) for count, places in LADDER.items()}
    rungs["1, wide"] = as_wide_as(rungs["6"], train, grey=asked.grey)
    curves: dict[str, np.ndarray] = {}  # (seeds, epochs) each
    print("| convolutions | parameters | receptive field | multiply-adds | test accuracy |")
    print("| --- | --- | --- | --- | --- |")
    for name, model in rungs.items():
        # The test set is looked at after every epoch, and nothing is chosen by it.
        runs = [
            cnnkit.fit(model, train, test, asked.backend, epochs=asked.epochs, seed=seed, train_metrics=False)
            for seed in seeds
        ]
        curves[name] = np.array([[record.validation["accuracy"] for record in run.history] for run in runs])
        print(f"{name}: {curves[name][:, -1].round(4).tolist()}", file=sys.stderr)
        summary = model.summary()
        field = next(layer for layer in reversed(summary.layers) if layer.kind in {"max_pool2d", "conv2d"})
        seen = "{} x {}".format(*field.receptive_field)
        ends = mean_and_spread(curves[name][:, -1])
        print(f"| {name} | {summary.parameters:,} | {seen} | {summary.multiply_adds:,} | {ends} |")

    print(f"\n{len(train):,} images, {asked.epochs} epochs, {len(seeds)} seed(s): mean and standard deviation.")
    print(verdict(curves), end="\n\n")
    print("| test accuracy after epoch | " + " | ".join(rungs) + " |")
    print("| --- " * (len(rungs) + 1) + "|")
    for epoch in range(asked.epochs):
        print(f"| {epoch + 1} | " + " | ".join(f"{found[:, epoch].mean():.4f}" for found in curves.values()) + " |")
    if asked.out is not None:
        draw(curves, asked.out)


def rung(data: Dataset, places: tuple[int, int, int], filters: int = 16, *, grey: bool = False) -> Model:
    """A model with so many convolutions before the first pool, between the pools, and after the second."""
    conv = Conv2D(filters=filters, kernel_size=3, padding="same", activation="relu", kernel_initializer="he_normal")
    first, second, third = ([conv] * count for count in places)
    pool = MaxPool2D(pool_size=2)
    return Model(
        name=f"{sum(places)} convolutions",
        input_shape=data.image_shape,
        layers=[
            Rescale(scale=1 / 255),
            *([Grayscale()] if grey else []),
            *first, pool, *second, pool, *third,
            Flatten(),
            Dense(units=data.classes),
            Softmax(),
        ],
    )  # fmt: skip


def as_wide_as(deepest: Model, data: Dataset, *, grey: bool) -> Model:
    """One convolution with as many filters as make about as many parameters as `deepest` has."""
    one, two = (rung(data, LADDER[1], filters, grey=grey).summary().parameters for filters in (1, 2))
    each = two - one  # a filter costs its kernel, its bias and its rows of the dense layer
    return rung(data, LADDER[1], 1 + round((deepest.summary().parameters - one) / each), grey=grey)


def verdict(curves: dict[str, np.ndarray]) -> str:
    """Which steps down the ladder helped by more than the seeds differ."""
    ends = {name: found[:, -1] for name, found in curves.items()}
    names = list(map(str, LADDER))
    said = []
    for before, after in [*itertools.pairwise(names), ("1, wide", names[-1])]:
        gain = ends[after].mean() - ends[before].mean()
        noise = sum(found.std(ddof=1) if len(found) > 1 else 0.0 for found in (ends[before], ends[after]))
        words = "helps" if gain > noise else "hurts" if gain < -noise else "changes nothing beyond the seeds"
        said.append(f"from {before} to {after} {words} ({gain:+.4f})")
    return "Going " + ", ".join(said) + "."


def draw(curves: dict[str, np.ndarray], out: Path) -> None:
    """The second table as a picture; a bar at each point spans the seeds."""
    from cnnkit.plot.picture import LINES, MARKERS, SERIES, SOFT, Picture, picture

    @picture
    def lines() -> Picture:
        made = Picture(6, 3.6)
        axes = made.subplots()
        styles = zip([*SERIES, SOFT], [*LINES, "-"], [*MARKERS, "x"], strict=True)
        for (name, found), (colour, line, marker) in zip(curves.items(), styles, strict=True):
            epochs = np.arange(found.shape[1]) + 1
            middle, lowest, highest = found.mean(axis=0), found.min(axis=0), found.max(axis=0)
            axes.errorbar(
                epochs, middle, (middle - lowest, highest - middle), color=colour, linestyle=line, marker=marker,
                markersize=4, capsize=2, label=name,
            )  # fmt: skip
        axes.set(xlabel="epoch", ylabel="test accuracy", xticks=epochs)
        axes.grid(axis="y")
        axes.legend(title="convolutions")
        ends = ", ".join(f"{name}: {found[:, -1].mean():.4f}" for name, found in curves.items())
        made.alt = f"Test accuracy after each epoch by number of convolutions. After the last one, {ends}."
        return made

    out.mkdir(parents=True, exist_ok=True)
    print(f"\nThe picture is in {lines().save(out / 'depth_ladder.png')}.")


def mean_and_spread(values: np.ndarray) -> str:
    """Mean and sample standard deviation; the mean alone where there is one value."""
    spread = f" ± {statistics.stdev(values.tolist()):.4f}" if len(values) > 1 else ""
    return f"{values.mean():.4f}{spread}"


if __name__ == "__main__":
    main()
