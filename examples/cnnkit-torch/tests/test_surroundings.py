"""The process's settings of PyTorch: they do not reach our arithmetic, and ours do not outlast a call."""

import os
import signal
import threading

import cnnkit
import numpy as np
import pytest
import torch
from cnnkit import SGD, Conv2D, Dense, Flatten, MaxPool2D, Model, Softmax

from cnnkit_torch.surroundings import undisturbed

MODEL = Model(
    input_shape=(9, 8, 2),
    layers=[
        Conv2D(filters=8, kernel_size=3, activation="relu"),
        MaxPool2D(pool_size=2),
        Flatten(),
        Dense(units=3),
        Softmax(),
    ],
)
IMAGES = np.random.default_rng(0).uniform(-1, 1, (5, 9, 8, 2)).astype(np.float32)
LABELS = np.array([0, 1, 2, 1, 0])


def program(**options):
    backend = cnnkit.get_backend("torch", **options)
    return backend.compile_training(MODEL.plan(), cnnkit.initial_state(MODEL, SGD(0.1)), SGD(0.1))


def settings():
    engine = torch.backends.mkldnn
    return (
        torch.get_num_threads(),
        torch.get_default_dtype(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        (engine.matmul.fp32_precision, engine.conv.fp32_precision),
        torch.get_rng_state().tolist(),
    )


@pytest.fixture
def threads_restored():
    before = torch.get_num_threads()
    yield before
    torch.set_num_threads(before)


def use(trained):
    trained.gradients(IMAGES, LABELS)
    trained.step(IMAGES, LABELS)
    trained.epoch(IMAGES, LABELS, np.arange(5), 2)
    trained.state()
    return trained.predict(IMAGES)


@pytest.mark.parametrize("options", [{}, {"threads": 1}, {"threads": 3}, {"precision": "float64"}], ids=str)
def test_nothing_that_a_program_does_changes_a_setting(options):
    before = settings()
    use(program(**options))
    assert settings() == before


def test_a_setting_is_given_back_after_an_error(threads_restored):
    with pytest.raises(KeyError), undisturbed(threads_restored + 2):
        raise KeyError(torch.get_num_threads())
    assert torch.get_num_threads() == threads_restored


@pytest.mark.usefixtures("threads_restored")
def test_the_number_of_threads_survives_two_that_overlap():
    before = torch.get_num_threads()
    inside, leave = threading.Event(), threading.Event()

    def other():
        with undisturbed(before + 1):
            inside.set()
            leave.wait(10)
            assert torch.get_num_threads() == before + 1

    thread = threading.Thread(target=other)
    with undisturbed(before + 2):
        thread.start()
        assert inside.wait(10)
        assert torch.get_num_threads() == before + 2
    leave.set()
    thread.join()
    assert torch.get_num_threads() == before


def test_autocast_of_the_caller_does_not_reach_in():
    expected = use(program())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert np.array_equal(use(program()), expected)
        assert torch.is_autocast_enabled("cpu")


def test_a_default_dtype_of_the_caller_does_not_reach_in():
    expected = use(program())
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found = use(program())
    finally:
        torch.set_default_dtype(before)
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("kind", ["matmul", "conv"])
def test_float32_is_exact_whatever_the_caller_allows_and_the_caller_keeps_it(kind):
    setting = getattr(torch.backends.mkldnn, kind)
    before = setting.fp32_precision
    setting.fp32_precision = "bf16"
    try:
        with undisturbed(None):
            assert setting.fp32_precision == "ieee"
            with undisturbed(None):
                pass
            assert setting.fp32_precision == "ieee"
        assert setting.fp32_precision == "bf16"
    finally:
        setting.fp32_precision = before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_program_goes_on_in_a_forked_child():
    trained = program(threads=2)
    large = np.repeat(IMAGES, 40, axis=0)
    trained.predict(large)
    child = os.fork()
    if child == 0:
        signal.alarm(30)  # without care it waits for threads that the fork did not copy
        trained.predict(large)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
