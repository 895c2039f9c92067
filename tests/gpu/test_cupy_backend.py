"""The backend cupy on a real card: against numpy, in the precisions, with graphs, on cuDNN, at the limits of memory."""

import gc
import time
import warnings

import numpy as np
import pytest

from cnnkit import (
    SGD,
    Adam,
    AdamW,
    AvgPool2D,
    Conv2D,
    CosineDecay,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    OutOfMemory,
    Rescale,
    Softmax,
    get_backend,
    initial_state,
)

pytestmark = pytest.mark.gpu

MODEL = Model(
    input_shape=(20, 17, 3),
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=16, kernel_size=3, padding="same", activation="relu"),
        MaxPool2D(pool_size=2),
        Conv2D(filters=24, kernel_size=(3, 2), strides=(2, 1), dilation=(1, 2), activation="tanh"),
        AvgPool2D(pool_size=2, strides=1, padding=((1, 0), (0, 1))),
        Dropout(rate=0.25),
        Flatten(),
        Dense(units=40, activation="sigmoid"),
        Dense(units=7),
        Softmax(),
    ],
)
GRAY = Model(
    input_shape=(12, 9, 3), layers=[Grayscale(), Conv2D(filters=8, kernel_size=3), Flatten(), Dense(units=4), Softmax()]
)
OPTIMIZERS = {
    "sgd": SGD(learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=1e-3),
    "adam": Adam(clip_global_norm=0.5),
    "adamw": AdamW(learning_rate=CosineDecay(0.01, steps=20)),
}
TOLERANCE = {"float32": 2e-4, "float64": 1e-11}


@pytest.fixture
def on_card(cp):  # noqa: ARG001 - it says that there is a card
    """A function that makes the backend on it. Nothing but what a test expects may be warned of, such as refused graphs."""

    def make(precision="float32", **options):
        return get_backend("cupy", precision=precision, **options)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield make


def data(model, count, seed=0):
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (count, *model.input_shape), np.uint8)
    return images, random.integers(0, model.plan().classes, count)


def trained(backend, model, optimizer, precision="float32", epochs=2, count=100):
    """The program and its losses after some epochs of batches of 16, the last of which is smaller."""
    state = initial_state(model, optimizer, seed=1)
    if precision == "float64":
        state = initial_state(model, optimizer, seed=1, precision="float64")
    program = backend.compile_training(model.plan(), state, optimizer)
    images, labels = data(model, count)
    orders = [np.random.default_rng(seed).permutation(count) for seed in range(epochs)]
    return program, [program.epoch(images, labels, order, 16).loss_sum for order in orders]


def assert_same(made, expected, tolerance):
    for name, array in expected.parameters.items():
        np.testing.assert_allclose(made.parameters[name], array, rtol=tolerance, atol=tolerance, err_msg=name)
    for slot, arrays in expected.slots.items():
        for name, array in arrays.items():
            np.testing.assert_allclose(made.slots[slot][name], array, rtol=tolerance, atol=tolerance, err_msg=slot)


@pytest.mark.parametrize("precision", TOLERANCE)
@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("cudnn", [False, None], ids=["kernels", "cudnn if found"])
def test_epochs_end_where_those_of_numpy_do(on_card, precision, optimizer, cudnn):
    program, losses = trained(on_card(precision, cudnn=cudnn), MODEL, optimizer, precision)
    numpy, expected = trained(get_backend("numpy", precision=precision), MODEL, optimizer, precision)
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE[precision])
    assert_same(program.state(), numpy.state(), TOLERANCE[precision])
    images, _ = data(MODEL, 30, seed=9)
    np.testing.assert_allclose(program.predict(images), numpy.predict(images), atol=TOLERANCE[precision])


def test_grayscale_and_gradients(on_card):
    images, labels = data(GRAY, 12)
    state = initial_state(GRAY, Adam(), seed=1)
    programs = [backend.compile_training(GRAY.plan(), state, Adam()) for backend in (on_card(), get_backend("numpy"))]
    (loss, made), (expected_loss, expected) = (one.gradients(images, labels) for one in programs)
    assert loss == pytest.approx(expected_loss, rel=1e-5)
    for name, array in expected.items():
        np.testing.assert_allclose(made[name], array, rtol=1e-4, atol=1e-4 * abs(array).max())


@pytest.mark.parametrize("cudnn", [False, None], ids=["kernels", "cudnn if found"])
def test_steps_are_recorded_and_graphs_change_no_bit(on_card, cudnn):
    ends = []
    for graphs in (True, False):
        program, losses = trained(on_card(graphs=graphs, cudnn=cudnn), MODEL, OPTIMIZERS["adam"], epochs=3)
        ends.append((losses, {name: array.tobytes() for name, array in program.state().parameters.items()}))
        recipes = [recipe for recipe, _ in program.trainer.networks.recipes.values()]
        assert len(recipes) == 2
        assert all((recipe.graph is not None) is graphs for recipe in recipes)
    assert ends[0] == ends[1]


def test_the_same_run_gives_the_same_bits(on_card):
    ends = []
    for _ in range(2):
        program, losses = trained(on_card(), MODEL, OPTIMIZERS["adamw"])
        ends.append((losses, {name: array.tobytes() for name, array in program.state().parameters.items()}))
    assert ends[0] == ends[1]


def test_a_step_returns_before_the_card_has_made_it(on_card):
    """Twenty steps of a third of a TFLOP each take the card a while; the host is through with them long before."""
    layers = [Dense(units=4096), Dense(units=4096), Dense(units=10), Softmax()]
    model = Model(input_shape=(4096,), layers=layers)
    optimizer = SGD(learning_rate=1e-3)
    program = on_card().compile_training(model.plan(), initial_state(model, optimizer), optimizer)
    images = np.random.default_rng(0).normal(size=(2048, 4096)).astype(np.float32)
    labels = np.arange(2048) % 10
    for _ in range(3):
        float(program.step(images, labels))
    source, order = program.batch, program.every
    begin = time.perf_counter()
    with program.card.use():
        for _ in range(20):
            program.trainer.step(source, order)
        returned = time.perf_counter() - begin
        program.card.stream.synchronize()
        done = time.perf_counter() - begin
    assert returned < done / 2


def test_tf32_rounds_and_float32_does_not(on_card, lacking, cp):
    if int(cp.cuda.Device(0).compute_capability) < 80:
        lacking("this card has no TF32")
    model = Model(input_shape=(512,), layers=[Dense(units=64, use_bias=False)])
    images = np.random.default_rng(0).normal(size=(256, 512)).astype(np.float32)
    kernel = np.random.default_rng(1).normal(size=(512, 64)).astype(np.float32)
    exact = images.astype(np.float64) @ kernel
    size = np.abs(images).astype(np.float64) @ np.abs(kernel)
    errors = {}
    for precision in ("float32", "tf32"):
        made = on_card(precision).compile(model.plan(), {"0.kernel": kernel}).predict(images)
        errors[precision] = float((np.abs(made - exact) / size).max())
    assert errors["float32"] < 5 * 2.0**-24
    assert 5 * 2.0**-24 < errors["tf32"] < 2.0**-10


def test_a_batch_is_cut_into_slices_under_a_limit(on_card):
    optimizer = OPTIMIZERS["adam"]
    state = initial_state(MODEL, optimizer, seed=1)
    images, labels = data(MODEL, 600)
    programs = [
        backend.compile_training(MODEL.plan(), state, optimizer)
        for backend in (on_card(memory_limit="24 MB", cudnn=False), get_backend("numpy-batched"))
    ]
    for _ in range(3):
        losses = [float(program.step(images, labels)) for program in programs]
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert_same(programs[0].state(), programs[1].state(), 2e-4)
    recipe, _ = next(iter(programs[0].trainer.networks.recipes.values()))
    assert recipe.gradient is programs[0].trainer.total  # that of several slices


def test_what_does_not_fit_is_an_error_with_a_batch_that_does(on_card):
    optimizer = OPTIMIZERS["adam"]
    program = on_card(memory_limit="24 MB").compile_training(MODEL.plan(), initial_state(MODEL, optimizer), optimizer)
    images, labels = data(MODEL, 40_000)  # 41 MB
    with pytest.raises(OutOfMemory, match="The largest batch that fits is") as caught:
        program.step(images, labels)
    batch = caught.value.batch
    assert 100 < batch < 24_000
    assert np.isfinite(float(program.step(images[:batch], labels[:batch])))


def test_memory_goes_back_to_the_card_with_the_program(on_card, cp):
    backend = on_card()
    trained(backend, MODEL, OPTIMIZERS["adam"])  # what is loaded once
    gc.collect()
    before = cp.cuda.Device(0).mem_info[0]
    program, _ = trained(backend, MODEL, OPTIMIZERS["adam"], epochs=3, count=20_000)
    during = cp.cuda.Device(0).mem_info[0]
    assert before - during > 20 * 2**20
    del program
    after = cp.cuda.Device(0).mem_info[0]
    assert before - after < 8 * 2**20


def test_cudnn_is_used_where_it_is_found(on_card, cp, lacking):
    from cnnkit_cupy.cudnn_library import load

    search = load(cp.cuda.runtime.runtimeGetVersion() // 1000)
    if search.library is None:
        lacking(str(search))
    layers = [Conv2D(filters=32, kernel_size=3, padding="same"), Flatten(), Dense(units=4), Softmax()]
    model = Model(input_shape=(16, 16, 16), layers=layers)
    program, _ = trained(on_card(cudnn=True), model, Adam())
    assert program.remarks == ()
    assert "columns" not in program.trainer.networks.sizes.measured(16, learns=True).scratches
