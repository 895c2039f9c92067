"""Contestants of the tests' own, which processes of a race find by their module's name."""

from pathlib import Path

import pytest

from cnnkit import Conv2D, Dense, Dropout, Flatten, MaxPool2D, Model, Rescale, Softmax
from cnnkit.bench.batches import Entry, Workload


def small_model(rate=None):
    """One convolution and two dense layers on 7 x 6 colour images, with dropout where a rate is given."""
    dropout = [] if rate is None else [Dropout(rate=rate)]
    return Model(
        name="small",
        input_shape=(7, 6, 3),
        layers=[
            Rescale(scale=1 / 255),
            Conv2D(filters=4, kernel_size=3, padding="same", activation="relu"),
            MaxPool2D(),
            Flatten(),
            *dropout,
            Dense(units=12, activation="relu"),
            Dense(units=10),
            Softmax(),
        ],
    )


@pytest.fixture(scope="session")
def small():
    """A workload of 16 batches, on one thread."""
    return Workload(small_model(), count=128, batch_size=8, threads=1)


@pytest.fixture(scope="session")
def contestants():
    """Puts the contestants of the tests on the path; returns a function that makes an entry of one."""
    folder = str(Path(__file__).parent / "contestants")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield lambda way, name=None: Entry(name or way, "", "bench_contestants", {"way": way})
