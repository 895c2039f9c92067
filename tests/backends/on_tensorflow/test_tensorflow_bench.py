"""Keras and TensorFlow by hand as peers of `cnnkit bench batches`: they do the same work as the backends."""

from dataclasses import replace

import pytest

from cnnkit import Conv2D, Dense, Dropout, Flatten, MaxPool2D, Model, Rescale, Softmax
from cnnkit.bench.batches import Workload, backend_entries, peer_entries, race

WORK = Workload(
    Model(
        name="small",
        input_shape=(9, 8, 3),
        layers=[
            Rescale(scale=1 / 255, offset=-0.5),
            Conv2D(filters=4, kernel_size=3, padding="same", activation="relu"),
            Conv2D(filters=5, kernel_size=(3, 2), strides=(1, 2), use_bias=False),
            MaxPool2D(),
            Flatten(),
            Dense(units=12, activation="tanh"),
            Dense(units=10),
            Softmax(),
        ],
    ),
    count=180,  # the last batch is smaller
    batch_size=16,
    threads=2,
)


def problems(work, *contestants):
    """What is wrong with whom in a race of one round."""
    outcomes = race(work, contestants, rounds=1)
    for outcome in outcomes:
        assert outcome.idle_cores < 0.05, outcome.entry.title
    return {outcome.entry.title: outcome.problems for outcome in outcomes if outcome.problems}


def test_the_backend_and_its_peers_do_the_same_work_as_the_numpy_backend():
    numpy, _ = backend_entries(["numpy"])
    peers, _ = peer_entries(["keras", "tf-function"])
    assert len(peers) == 4
    assert problems(WORK, numpy, *backend_entries(["tensorflow"]), *peers) == {}


def test_with_dropout_the_peers_draw_their_own_masks_and_do_the_same_work():
    layers = [*WORK.model.layers[:5], Dropout(rate=0.3), *WORK.model.layers[5:]]
    model = Model(name="dropping", input_shape=(9, 8, 3), layers=layers)
    ours, _ = backend_entries(["tensorflow"])
    keras, _, by_step, _ = peer_entries(["keras", "tf-function"])[0]
    assert problems(replace(WORK, model=model), ours, keras, by_step) == {}


@pytest.mark.parametrize("peer", ["keras", "tf-function"])
def test_a_peer_refuses_what_it_does_not_have(peer):
    odd = Conv2D(filters=4, kernel_size=3, padding=((1, 0), (0, 1)))
    model = Model(input_shape=(9, 8, 3), layers=[odd, Flatten(), Dense(units=10), Softmax()])
    (outcome,) = race(replace(WORK, model=model), peer_entries([peer])[0][:1], rounds=1)
    (problem,) = outcome.problems
    assert problem.startswith(f"UnsupportedModel: Backend '{peer}' does not support conv2d, which layers[0] needs")
