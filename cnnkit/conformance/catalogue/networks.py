"""Cases of small whole networks, trained for 50 steps; and random ones, for what nobody thought of."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cnnkit.conformance.case import Case
from cnnkit.conformance.catalogue.material import check_output, start, take_steps, trial
from cnnkit.conformance.explore import explored_cases
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.model import (
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    Layer,
    MaxPool2D,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
)
from cnnkit.optimizers import SGD, Adam, AdamW, CosineDecay, Optimizer

HOW_MANY_RANDOM = 30


@dataclass(frozen=True)
class Network:
    """A network and how it is trained. `seed` keeps every decision of all its steps far from falling otherwise."""

    said: str
    layers: tuple[Layer, ...]
    input_shape: tuple[int, ...]
    optimizer: Optimizer
    images: str = "uniform"
    seed: int = 0


NETWORKS: dict[str, Network] = {
    "linear": Network("A linear classifier", (Flatten(), Dense(units=3), Softmax()), (3, 4, 2), SGD(learning_rate=0.1)),
    "mlp": Network(
        "A dense network with ReLU",
        (Dense(units=6, activation="relu"), Dense(units=3), Softmax()),
        (5,),
        SGD(learning_rate=0.1, momentum=0.8),
        seed=23,
    ),
    "convnet": Network(
        "A convolutional network with max pooling and ReLU",
        (Conv2D(filters=3, kernel_size=3), MaxPool2D(pool_size=2), ReLU(), Flatten(), Dense(units=3), Softmax()),
        (6, 7, 2),
        SGD(learning_rate=0.05, momentum=0.8, nesterov=True, weight_decay=0.01),
        seed=40,
    ),
    "deep": Network(
        "A deep network with tanh, strides, padding and dilation",
        (
            Conv2D(filters=3, kernel_size=3, padding="same", strides=2),
            Tanh(),
            Conv2D(filters=4, kernel_size=2, dilation=2, activation="tanh"),
            AvgPool2D(pool_size=2, strides=1, padding="same"),
            Flatten(),
            Dense(units=5, activation="sigmoid"),
            Dense(units=3),
            Softmax(),
        ),
        (8, 7, 2),
        Adam(learning_rate=0.01),
    ),
    "dropout": Network(
        "A network with two dropout layers",
        (
            Conv2D(filters=3, kernel_size=2, activation="tanh"),
            Dropout(rate=0.25),
            Flatten(),
            Dense(units=6),
            Sigmoid(),
            Dropout(rate=0.5),
            Dense(units=3),
            Softmax(),
        ),
        (4, 4, 1),
        AdamW(learning_rate=CosineDecay(0.02, steps=40), weight_decay=0.1),
    ),
    "bytes": Network(
        "A network that takes colour pixels as bytes",
        (
            Rescale(scale=1 / 255, offset=-0.5),
            Grayscale(weights="luma"),
            Conv2D(filters=3, kernel_size=(2, 3), activation="tanh"),
            Flatten(),
            Dense(units=3),
            Softmax(),
        ),
        (4, 5, 3),
        SGD(learning_rate=0.1, momentum=0.5, clip_global_norm=0.5),
        images="uint8",
    ),
}


def _trains(subject: Subject, question: Question) -> None:
    subject.ask(question)


NETWORK_CASES = [
    trial(
        f"network.{name}",
        f"{network.said} is, after 50 steps with {type(network.optimizer).__name__}, where it should be",
        _trains,
        network.layers,
        network.input_shape,
        ask="run",
        optimizer=network.optimizer,
        images=network.images,
        seed=network.seed,
        run_seed=3,
        batch=14,
        batch_size=3,
        epochs=10,
    )
    for name, network in NETWORKS.items()
]


# -------------------------------------------------------------------------------------------------------------- learning


def _bars(question: Question) -> Question:
    """Images with a bar in the row, column or diagonal of their class, in noise: a problem that can be learned."""
    rng = np.random.default_rng(1)
    labels = np.arange(24) % 3
    images = rng.uniform(-0.3, 0.3, (24, *question.model.input_shape))
    for image, label in zip(images, labels, strict=True):
        place = rng.integers(0, 4)
        if label == 0:
            image[place] += 1
        elif label == 1:
            image[:, place] += 1
        else:
            image[np.arange(4), np.arange(4)] += 1
    dtype = question.images.dtype
    return replace(question, images=images.astype(dtype), labels=labels, batch_size=8, epochs=25)


def _learns(subject: Subject, question: Question) -> None:
    """The accuracy is worked out here, from what the program predicts and from what its parameters should predict."""
    bars = _bars(question)
    program = start(subject, bars)
    losses = take_steps(program, bars)
    output = program.predict(bars.images)
    accuracy = float((output.argmax(1) == bars.labels).mean())
    subject.expect(
        accuracy == 1, f"after {len(losses)} steps the accuracy on the training images is {accuracy:.0%}; expected 100%"
    )
    first, last = float(np.mean(losses[:3])), float(np.mean(losses[-3:]))
    subject.expect(last < first / 4, f"the loss went from {first:.3g} to {last:.3g}; expected less than a quarter")
    trained = replace(bars, parameters=program.state().parameters)
    check_output(subject, program, trained, "the output after training")
    check_output(subject, subject.compile(bars.model, trained.parameters), trained, "the output of a new program")


LEARNING_CASES = [
    trial(
        f"v50.learning.{name}",
        f"Trained by {name}, a network tells rows, columns and diagonals apart",
        _learns,
        (Conv2D(filters=6, kernel_size=(2, 2), activation="relu"), Flatten(), Dense(units=3), Softmax()),
        (4, 4, 1),
        ask="run",
        optimizer=optimizer,
    )
    for name, optimizer in {
        "sgd": SGD(learning_rate=0.3, momentum=0.8),
        "adam": Adam(learning_rate=0.03),
    }.items()
]

RANDOM_CASES = [
    replace(case, id=f"network.random.{number:02d}")
    for number, case in enumerate(explored_cases(HOW_MANY_RANDOM, seed=0))
]

CASES: list[Case] = [*NETWORK_CASES, *LEARNING_CASES, *RANDOM_CASES]
