"""Training speed, against plain eager PyTorch: `python -m cnnkit_torch.bench [--rounds N] [--images N]`.

All train the same model from the same numbers with Adam, on 28 x 28 grey images in batches of 64, in one process. A
round runs each of them once over all images, in turn; what counts is the median of the rounds, and the ratio of two
medians. The peers are what people write:

- `eager NCHW`: `nn.Sequential` on images `(batch, channels, height, width)`;
- `eager channels_last`: model and batches brought to `torch.channels_last`;
- `eager NHWC view`: the same model, on images that lie as `(batch, height, width, channels)` and are only permuted.

Ours are `epoch`, which `cnnkit.fit` calls, and a loop over `step`. A machine that is busy with something else gives
other figures.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from cnnkit import Adam, Conv2D, Dense, Flatten, MaxPool2D, Model, Rescale, Softmax, initial_state
from cnnkit.arrays import Images, Labels, Parameters
from numpy.typing import NDArray
from torch import Tensor, nn

from cnnkit_torch.backend import TorchBackend

BATCH = 64

MODELS: Mapping[str, Model] = {
    "conv16 pool dense10": Model(
        input_shape=(28, 28, 1),
        layers=[
            Rescale(scale=1 / 255),
            Conv2D(filters=16, kernel_size=3, activation="relu"),
            MaxPool2D(pool_size=2),
            Flatten(),
            Dense(units=10),
            Softmax(),
        ],
    ),
    "conv32 pool conv64 pool dense128 dense10": Model(
        input_shape=(28, 28, 1),
        layers=[
            Rescale(scale=1 / 255),
            Conv2D(filters=32, kernel_size=3, activation="relu"),
            MaxPool2D(pool_size=2),
            Conv2D(filters=64, kernel_size=3, activation="relu"),
            MaxPool2D(pool_size=2),
            Flatten(),
            Dense(units=128, activation="relu"),
            Dense(units=10),
            Softmax(),
        ],
    ),
}

Contestant = Callable[[], float]
"""Trains once over all images, in the order that is the same for everyone; returns the sum of the losses."""

OURS = ("cnnkit epoch", "cnnkit step")


# ------------------------------------------------------------------------------------------------------------- peers


def eager_network(model: Model, parameters: Parameters) -> nn.Sequential:
    """`model` without its Rescale and Softmax as an `nn.Sequential` that begins at `parameters`."""
    layers: list[nn.Module] = []
    shape: tuple[int, ...] = model.input_shape
    for index, (layer, after) in enumerate(zip(model.layers, model.plan().layer_shapes, strict=True)):
        if isinstance(layer, Conv2D):
            convolution = nn.Conv2d(shape[-1], layer.filters, layer.kernel_size)
            _set(convolution.weight, parameters[f"{index}.kernel"].transpose(3, 2, 0, 1))
            _set(convolution.bias, parameters[f"{index}.bias"])
            layers += [convolution, nn.ReLU()]
        elif isinstance(layer, MaxPool2D):
            layers.append(nn.MaxPool2d(layer.pool_size))
        elif isinstance(layer, Flatten):
            layers.append(nn.Flatten())
            channels_first = np.arange(after[0]).reshape(shape).transpose(2, 0, 1).reshape(-1)
        elif isinstance(layer, Dense):
            linear = nn.Linear(shape[0], layer.units)
            kernel = parameters[f"{index}.kernel"]
            first = not any(isinstance(other, nn.Linear) for other in layers)
            _set(linear.weight, (kernel[channels_first] if first else kernel).T)
            _set(linear.bias, parameters[f"{index}.bias"])
            layers += [linear, nn.ReLU()] if layer.activation else [linear]
        shape = after
    return nn.Sequential(*layers)


def _set(parameter: Any, array: NDArray[Any]) -> None:
    with torch.no_grad():
        parameter.copy_(torch.from_numpy(array.copy()))


def eager(
    model: Model, parameters: Parameters, images: Images, labels: Labels, order: NDArray[np.int64], kind: str
) -> Contestant:
    """One of the peers."""
    network: Any = eager_network(model, parameters)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    loss_of = nn.CrossEntropyLoss()
    pixels, targets, rows_of = torch.from_numpy(images), torch.from_numpy(labels), torch.from_numpy(order)
    if kind != "eager NHWC view":
        pixels = pixels.permute(0, 3, 1, 2).contiguous()
    if kind != "eager NCHW":
        network = network.to(memory_format=torch.channels_last)

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for rows in torch.split(rows_of, BATCH):
            x = pixels[rows].float() / 255
            if kind == "eager NHWC view":
                x = x.permute(0, 3, 1, 2)
            elif kind == "eager channels_last":
                x = x.contiguous(memory_format=torch.channels_last)
            yield x, targets[rows]

    def train() -> float:
        total = 0.0
        for x, y in batches():
            optimizer.zero_grad()
            loss = loss_of(network(x), y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        return total

    return train


# --------------------------------------------------------------------------------------------------------------- ours


def contestants(model: Model, images: Images, labels: Labels, threads: int | None = None) -> dict[str, Contestant]:
    """Everyone who takes part, by name."""
    optimizer = Adam(learning_rate=1e-3)
    state = initial_state(model, optimizer)
    order = np.random.default_rng(1).permutation(len(images))
    backend = TorchBackend(threads=threads)
    by_epoch = backend.compile_training(model.plan(), state, optimizer)
    by_step = backend.compile_training(model.plan(), state, optimizer)

    def steps() -> float:
        total = 0.0
        for start in range(0, len(order), BATCH):
            rows = order[start : start + BATCH]
            total += by_step.step(images[rows], labels[rows]) * len(rows)
        return total

    kinds = ("eager NCHW", "eager channels_last", "eager NHWC view")
    return {
        **{kind: eager(model, state.parameters, images, labels, order, kind) for kind in kinds},
        "cnnkit epoch": lambda: by_epoch.epoch(images, labels, order, BATCH).loss_sum,
        "cnnkit step": steps,
    }


# -------------------------------------------------------------------------------------------------------- measurement


def measure(model: Model, count: int, rounds: int) -> dict[str, float]:
    """Microseconds an image by contestant: the median of `rounds`."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (count, *model.input_shape), dtype=np.uint8)
    labels = generator.integers(0, 10, count)
    found = contestants(model, images, labels)
    spent: dict[str, list[float]] = {name: [] for name in found}
    for train in found.values():
        train()  # what is made at first use is made
    for _ in range(rounds):
        for name, train in found.items():
            begin = time.perf_counter()
            train()
            spent[name].append(time.perf_counter() - begin)
    return {name: 1e6 * statistics.median(seconds) / count for name, seconds in spent.items()}


def main() -> None:
    """Measure and print one table for each model."""
    parser = argparse.ArgumentParser(prog="python -m cnnkit_torch.bench", description="Training speed in one run.")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--images", type=int, default=1024)
    arguments = parser.parse_args()
    print(f"PyTorch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    for name, model in MODELS.items():
        times = measure(model, arguments.images, arguments.rounds)
        best = min(peer := [kind for kind in times if kind not in OURS], key=lambda kind: times[kind])
        print(f"\n{name}, Adam, batches of {BATCH}\n")
        print(f"| {'':<19} | µs / image | the best peer's time, {best}, over this one |")
        print(f"| {'---':<19} | ---: | ---: |")
        for kind in [*peer, *OURS]:
            print(f"| {kind:<19} | {times[kind]:.1f} | {times[best] / times[kind]:.2f} |")


if __name__ == "__main__":
    main()
