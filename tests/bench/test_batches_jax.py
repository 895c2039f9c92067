"""JAX as a peer, where it is installed: it does the same work as a backend, on as many threads as it was told."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from cnnkit import AvgPool2D, Conv2D, Dense, Dropout, Flatten, MaxPool2D, Model, Rescale, Softmax
from cnnkit.bench.batches import PEERS, Workload, backend_entries, peer_entries, race
from cnnkit.optimizers import Adam

pytestmark = pytest.mark.skipif(not PEERS["jax"].installed, reason="JAX is not installed: 'cnnkit[peers-jax]'")

ODD = [
    Rescale(scale=1 / 255, offset=-0.5),
    Conv2D(filters=4, kernel_size=3, padding=((1, 0), (0, 2)), activation="relu"),
    MaxPool2D(pool_size=2, strides=1, padding="same"),
    Conv2D(filters=5, kernel_size=(3, 2), strides=(1, 2), use_bias=False),
    Conv2D(filters=6, kernel_size=2, dilation=(2, 1), activation="sigmoid"),
    MaxPool2D(),
    Flatten(),
    Dense(units=12, activation="tanh"),
    Dense(units=10),
    Softmax(),
]


@pytest.fixture
def jax_jit():
    """The module of the peer, which imports JAX."""
    return import_module("cnnkit.bench.batches.peers.jax_jit")


def raced(work):
    """The outcomes of the numpy backend and of both ways of JAX."""
    return race(work, backend_entries(["numpy"])[:1] + peer_entries(["jax"])[0], rounds=1)


@pytest.mark.parametrize("rate", [None, 0.2])
@pytest.mark.parametrize("count", [180, 12])  # the last batch is smaller; there is no whole batch
def test_both_ways_do_the_same_work_as_a_backend(rate, count):
    layers = ODD if rate is None else [*ODD[:7], Dropout(rate=rate), *ODD[7:]]
    model = Model(input_shape=(10, 9, 3), layers=layers)
    outcomes = raced(Workload(model, count=count, batch_size=16, threads=1))
    assert [outcome.entry.title for outcome in outcomes[1:]] == ["jax, a call a step", "jax, a call an epoch"]
    assert [outcome.problems for outcome in outcomes] == [[], [], []]
    assert all(outcome.draws_masks for outcome in outcomes[1:])
    assert all(outcome.idle_cores < 0.05 for outcome in outcomes[1:])


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="Only Linux tells the threads of a process")
def test_xla_has_as_many_threads_as_it_was_told():
    code = """
        import os, sys
        from cnnkit import Dense, Model, Softmax
        from cnnkit.bench.batches import Workload
        from cnnkit.bench.batches.peers import jax_jit
        work = Workload(Model(input_shape=(3,), layers=[Dense(units=2), Softmax()]), count=4, threads=int(sys.argv[1]))
        jax_jit.make(work, loop=False)
        print(len(os.listdir("/proc/self/task")))
    """
    counts = {}
    for threads in (1, 9, 17):
        command = [sys.executable, "-c", textwrap.dedent(code), str(threads)]
        counts[threads] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert counts[17] - counts[9] == counts[9] - counts[1] > 0


def test_it_refuses_what_it_does_not_have(small):
    model = Model(input_shape=(9, 8, 3), layers=[AvgPool2D(), Flatten(), Dense(units=10), Softmax()])
    (outcome,) = race(replace(small, model=model), peer_entries(["jax"])[0][:1], rounds=1)
    (problem,) = outcome.problems
    assert problem.startswith("UnsupportedModel: Backend 'jax' does not support avg_pool2d, which layers[0] needs")


@pytest.mark.parametrize("strides", [1, (2, 3)])
@pytest.mark.parametrize("dilation", [1, (3, 2)])
@pytest.mark.parametrize("padding", ["valid", "same", ((4, 0), (1, 3))])
def test_the_ways_back_of_a_convolution_are_those_that_jax_derives(jax_jit, strides, dilation, padding):
    layer = Conv2D(filters=4, kernel_size=(2, 3), strides=strides, dilation=dilation, padding=padding)
    operation = Model(input_shape=(11, 12, 3), layers=[layer]).plan().operations[0]
    random = np.random.default_rng(0)
    x, kernel = (random.standard_normal(shape, np.float32) for shape in [(5, 11, 12, 3), (2, 3, 3, 4)])
    dy = random.standard_normal((5, *operation.output_shape), np.float32)
    y, back = jax_jit.jax.vjp(lambda x, kernel: jax_jit._convolution(x, kernel, operation), x, kernel)
    expected_y, expected_back = jax_jit.jax.vjp(lambda x, kernel: jax_jit._convolved(x, kernel, operation), x, kernel)
    np.testing.assert_array_equal(y, expected_y)
    for found, expected in zip(back(dy), expected_back(dy), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def test_its_adam_is_ours(jax_jit):
    adam, random = Adam(), np.random.default_rng(0)
    start = {"a": random.standard_normal(7), "b": random.standard_normal((2, 3))}
    state = jax_jit._State(
        jax_jit.jax.tree.map(lambda it: jax_jit.jnp.array(it, jax_jit.jnp.float32), start),
        *(jax_jit.jax.tree.map(lambda it: jax_jit.jnp.zeros(it.shape), start) for _ in "mv"),
        jax_jit.jnp.zeros((), jax_jit.jnp.int32),
    )
    ours = {name: (array.copy(), (np.zeros(array.shape), np.zeros(array.shape))) for name, array in start.items()}
    for step in range(5):
        gradients = {name: 1e-4 * random.standard_normal(array.shape) for name, array in start.items()}
        state = jax_jit._updated(adam, state, jax_jit.jax.tree.map(lambda it: it.astype(np.float32), gradients))
        ours = {name: adam.update(p, gradients[name].copy(), slots, step) for name, (p, slots) in ours.items()}
    for name, (expected, _) in ours.items():
        # Five steps of about 1e-3, of which float32 keeps a 1e-4th beside a parameter near 1.
        np.testing.assert_allclose(state.parameters[name], expected, rtol=0, atol=1e-6)
