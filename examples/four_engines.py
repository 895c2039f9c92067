"""One model on every engine that is here, in one process: the same start, the same losses, and a relay between them.

    python examples/four_engines.py

With `pip install 'cnnkit[tensorflow]'` TensorFlow joins in, with `pip install examples/cnnkit-torch` PyTorch does, whose
backend is a third party's; so does any other that is installed. What is installed and cannot run is listed with the reason.
"""

import argparse
import tempfile

import numpy as np

import cnnkit
from cnnkit import Adam, Conv2D, Dataset, Dense, Dropout, Flatten, MaxPool2D, Model, Rescale, Run, Softmax


def main(arguments: list[str] | None = None) -> None:
    """Train on every engine, compare, and let them take turns."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", help="names joined by commas (default: all that are ready)")
    parser.add_argument("--dataset", default="mnist")
    parser.add_argument("--data-dir")
    parser.add_argument("--limit", type=int, default=2000, help="so many images for training, and for the test")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args(arguments)

    train, test = cnnkit.load_dataset(asked.dataset, asked.data_dir, limit=asked.limit)
    model = Model(
        input_shape=train.image_shape,
        layers=[
            Rescale(scale=1 / 255),
            Conv2D(filters=8, kernel_size=3, activation="relu"),
            MaxPool2D(pool_size=2),
            Flatten(),
            Dropout(rate=0.2),
            Dense(units=train.classes),
            Softmax(),
        ],
    )
    names = asked.backends.split(",") if asked.backends else those_that_are_ready()
    runs: dict[str, Run] = {}
    for name in names:
        try:
            runs[name] = cnnkit.fit(
                model, train, None, name, Adam(learning_rate=1e-3), epochs=asked.epochs, seed=asked.seed
            )
        except cnnkit.TrainingNotSupported:
            print(f"{name} is left out, since it only predicts.\n")
    print_losses(runs)
    parameters = [run.state.parameters for run in runs.values()]
    print(f"The trained parameters differ from those of the first engine by {farthest(parameters):.1e} at most.")
    scores = {name: cnnkit.evaluate(model, run.state.parameters, test, name) for name, run in runs.items()}
    print("Test accuracy: " + ", ".join(f"{name} {found.accuracy:.4f}" for name, found in scores.items()) + ".")
    relay(model, train, list(runs), next(iter(runs.values())), asked.seed)


def those_that_are_ready() -> list[str]:
    """The names of all backends that can run here; the others are listed with what keeps them and what would help."""
    ready = []
    for name, status in cnnkit.backends().items():
        if status.ready:
            versions = ", ".join(f"{library} {version}" for library, version in status.versions.items())
            print(f"- {name} is ready: {versions}, devices {', '.join(status.devices)}")
            ready.append(name)
        else:
            print(f"- {name} is not: {status.reason}. {status.fix}.")
    print()
    return ready


def print_losses(runs: dict[str, Run]) -> None:
    """The mean training loss of each epoch side by side, and how far the engines are apart."""
    print("| epoch | " + " | ".join(runs) + " | largest difference |")
    print("| --- " * (len(runs) + 2) + "|")
    for records in zip(*(run.history for run in runs.values()), strict=True):
        losses = [record.running_loss for record in records]
        cells = " | ".join(f"{loss:.7f}" for loss in losses)
        print(f"| {records[0].epoch} | {cells} | {max(losses) - min(losses):.1e} |")
    print("\nAll began with the same weights, and took the same images in the same order with the same dropout masks.")


def farthest(found: list[dict[str, np.ndarray]]) -> float:
    """The largest difference between the first engine's parameters and any other's."""
    first = found[0]
    return max(float(np.abs(first[name] - other[name]).max()) for other in found for name in first)


def relay(model: Model, train: Dataset, names: list[str], alone: Run, seed: int) -> None:
    """An epoch on each engine in turn: each goes on in the run folder where the one before it stopped."""
    print("\n| epoch | engine | steps done | loss | had the first engine gone on |")
    print("| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for leg, record in enumerate(alone.history):
            name = names[leg % len(names)]
            run = cnnkit.fit(
                model, train, None, name, alone.optimizer, epochs=leg + 1, seed=seed, out=folder, resume=True
            )
            loss = run.history[leg].running_loss
            print(f"| {leg + 1} | {name} | {run.state.step} | {loss:.7f} | {record.running_loss:.7f} |")
    off = farthest([alone.state.parameters, run.state.parameters])
    print(f"\nAfter the relay the parameters differ from those of the first engine by {off:.1e} at most.")


if __name__ == "__main__":
    main()
