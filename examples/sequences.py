"""Sequences with two-dimensional layers: which note sounds, from the samples of a second's tenth.

    python examples/sequences.py

A convolution over a sequence is a `Conv2D` with kernel_size (1, n) on input_shape (1, length, channels): one row high, as
long as the sequence. The tones are made here: four notes, each with overtones, a random phase and loudness, in noise.
"""

import argparse

import numpy as np

import cnnkit
from cnnkit import Adam, AvgPool2D, Conv2D, Dataset, Dense, Flatten, MaxPool2D, Model, Softmax

NOTES = {"A": 220.0, "C sharp": 277.18, "E": 329.63, "G sharp": 415.30}
"""Frequencies in Hz, equal temperament."""
RATE = 4000
LENGTH = 400
"""Samples a second, and samples a tone."""


def main(arguments: list[str] | None = None) -> None:
    """Train on tones, judge, and name the notes of a melody."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--limit", type=int, default=800, help="so many tones for training; half as many for the test")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument(
        "--noise", type=float, default=1.0, help="its standard deviation, where a fundamental has 0.3 to 1"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--backend", default="numpy-batched")
    asked = parser.parse_args(arguments)

    rng = np.random.default_rng(asked.seed)
    train, test = (tones(count, asked.noise, rng) for count in (asked.limit, asked.limit // 2))
    networks = {"convolutions (1, 33) and (1, 9)": convolutional(), "dense": dense()}
    print("| network | parameters | test accuracy |")
    print("| --- | --- | --- |")
    runs = []
    for name, model in networks.items():
        optimizer = Adam(learning_rate=2e-3)
        run = cnnkit.fit(
            model, train, None, asked.backend, optimizer, 32, asked.epochs, asked.seed, train_metrics=False
        )
        accuracy = cnnkit.evaluate(model, run.state.parameters, test, asked.backend).accuracy
        print(f"| {name} | {model.summary().parameters:,} | {accuracy:.4f} |")
        runs.append(run)

    print("\nA recording of three notes, four windows each, heard by the convolutional network:\n")
    print("| note | probability, the mean over its windows |")
    print("| --- | --- |")
    for label in (0, 2, 1):
        windows = tones(4, asked.noise, rng, label).images  # (4, 1, LENGTH, 1)
        mean = cnnkit.predict(runs[0].model, runs[0].state.parameters, windows, asked.backend).mean(axis=0)
        heard = list(NOTES)[int(mean.argmax())]
        print(f"| {list(NOTES)[label]}, heard as {heard} | {mean.max():.3f} |")


def tones(count: int, noise: float, rng: np.random.Generator, label: int | None = None) -> Dataset:
    """`count` tones `(count, 1, LENGTH, 1)` of random notes, or all of one note."""
    labels = rng.integers(0, len(NOTES), count) if label is None else np.full(count, label)
    seconds = np.arange(LENGTH) / RATE
    waves = np.zeros((count, LENGTH))
    for overtone in (1, 2, 3):
        frequency = overtone * np.array(list(NOTES.values()))[labels, np.newaxis]
        phase, loudness = rng.uniform(0, 2 * np.pi, (count, 1)), rng.uniform(0.3, 1.0, (count, 1))
        waves += loudness / overtone * np.sin(2 * np.pi * frequency * seconds + phase)
    waves += rng.normal(0, noise, waves.shape)
    return Dataset(waves.astype(np.float32)[:, np.newaxis, :, np.newaxis], labels, tuple(NOTES))


def convolutional() -> Model:
    """Windows of 8 milliseconds, then of what they found; the mean over time forgets where in the sequence it was."""
    return Model(
        input_shape=(1, LENGTH, 1),
        layers=[
            Conv2D(filters=16, kernel_size=(1, 33), activation="relu"),  # (1, 368, 16)
            MaxPool2D(pool_size=(1, 4)),  # (1, 92, 16)
            Conv2D(filters=16, kernel_size=(1, 9), activation="relu"),  # (1, 84, 16)
            AvgPool2D(pool_size=(1, 84)),  # (1, 1, 16)
            Flatten(),
            Dense(units=len(NOTES)),
            Softmax(),
        ],
        class_names=tuple(NOTES),
    )


def dense() -> Model:
    """For comparison: about as many parameters, and every sample has a weight of its own."""
    return Model(
        input_shape=(1, LENGTH, 1),
        layers=[Flatten(), Dense(units=8, activation="relu"), Dense(units=len(NOTES)), Softmax()],
        class_names=tuple(NOTES),
    )


if __name__ == "__main__":
    main()
