import numpy as np
import pytest

import cnnkit
from cnnkit import (
    SGD,
    Adam,
    AdamW,
    AvgPool2D,
    Conv2D,
    CosineDecay,
    Dataset,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Sigmoid,
    Softmax,
    Tanh,
    initial_state,
)
from cnnkit.conformance.question import draw
from cnnkit.conformance.subject import Subject

MODEL = Model(
    input_shape=(9, 8, 2),
    layers=[
        Rescale(scale=1 / 255, offset=-0.5),
        Conv2D(filters=4, kernel_size=3, padding="same", dilation=2, activation="relu"),
        MaxPool2D(pool_size=2, strides=(1, 2)),
        Conv2D(filters=3, kernel_size=(3, 2), strides=2, padding=((1, 0), (0, 1)), activation="tanh"),
        AvgPool2D(pool_size=2, padding="same"),
        Flatten(),
        Dropout(rate=0.3),
        Dense(units=4),
        Softmax(),
    ],
)


def drawn(count=26):
    rng = np.random.default_rng(3)
    return rng.integers(0, 256, (count, 9, 8, 2), dtype=np.uint8), rng.integers(0, 4, count)


def close(one, other, precision):
    tolerance = {"float32": 1e-4, "float64": 1e-11}[precision]
    return all(
        np.allclose(one.parameters[name], other.parameters[name], rtol=tolerance, atol=tolerance)
        for name in other.parameters
    )


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    "optimizer",
    [
        SGD(learning_rate=CosineDecay(0.1, steps=6), momentum=0.9, nesterov=True, weight_decay=0.01),
        Adam(learning_rate=0.01, clip_global_norm=0.5),
        AdamW(learning_rate=0.01),
    ],
    ids=lambda optimizer: type(optimizer).__name__,
)
def test_a_state_moves_to_tensorflow_and_back_in_the_middle_of_a_run(make_backend, optimizer, precision):
    numpy_backend, tensorflow = cnnkit.get_backend("numpy", precision=precision), make_backend(precision)
    images, labels = drawn()
    pieces = np.split(np.random.default_rng(5).permutation(26), [8, 16])

    def train(backends):
        state = initial_state(MODEL, optimizer, seed=7, precision=precision)
        for backend, piece in zip(backends, pieces, strict=True):
            program = backend.compile_training(MODEL.plan(), state, optimizer)
            program.epoch(images, labels, piece, 4)
            state = program.state()
        return state

    stayed, moved = train([numpy_backend] * 3), train([numpy_backend, tensorflow, numpy_backend])
    assert moved.step == stayed.step == 7
    assert close(moved, stayed, precision)
    assert not close(moved, initial_state(MODEL, optimizer, seed=7, precision=precision), precision)


def test_xla_computes_the_same_with_batches_that_change(make_backend):
    optimizer, (images, labels) = Adam(learning_rate=0.01, clip_global_norm=0.5), drawn(7)
    states, outputs = [], []
    for xla in (False, True):
        state = initial_state(MODEL, optimizer, precision="float64")
        program = make_backend("float64", xla=xla).compile_training(MODEL.plan(), state, optimizer)
        program.epoch(images, labels, np.arange(7), 3)  # batches of 3, 3 and 1
        program.step(images[:2], labels[:2])
        outputs.append(program.predict(images))
        states.append(program.state())
    assert close(*states, "float64")
    assert np.allclose(*outputs, rtol=1e-10)


@pytest.mark.parametrize("xla", [False, True])
def test_each_size_of_a_batch_is_right_by_the_suites_rule_with_xla_and_without(make_backend, xla):
    subject = Subject(make_backend(xla=xla))
    layers = [  # without a maximum, which leaves few numbers to draw
        Conv2D(filters=4, kernel_size=3, padding="same", dilation=2, activation="tanh"),
        Conv2D(filters=3, kernel_size=(3, 2), strides=2, padding=((1, 0), (0, 1)), activation="sigmoid"),
        AvgPool2D(pool_size=2, padding="same"),
        Flatten(),
        Dense(units=4),
        Softmax(),
    ]
    for batch in (1, 2, 5):
        subject.ask(draw(layers, MODEL.input_shape, precision="float32", ask="gradients", batch=batch))
    assert subject.worst > 0


@pytest.mark.parametrize("xla", [False, True])
def test_the_option_decides_what_xla_compiles(make_backend, xla):
    optimizer = SGD(learning_rate=0.125)
    program = make_backend(xla=xla).compile_training(MODEL.plan(), initial_state(MODEL, optimizer), optimizer)
    program.step(*drawn(2))
    [graph] = program.graphs.traced.values()
    assert graph.function_def.attr["_XlaMustCompile"].b is xla


@pytest.mark.parametrize("layer", [ReLU(), Tanh(), Sigmoid(), MaxPool2D(), AvgPool2D(), Softmax()], ids=str)
def test_nan_survives_xla(make_backend, layer):
    model = Model(input_shape=(4,) if isinstance(layer, Softmax) else (4, 4, 3), layers=[layer])
    images = np.ones((2, *model.input_shape), np.float32)
    images[1] = np.nan
    output = make_backend(xla=True).compile(model.plan(), {}).predict(images)
    assert np.isnan(output[1]).all()
    assert np.isfinite(output[0]).all()


def test_a_model_that_is_fitted_learns_and_is_judged_alike_by_both(make_backend):
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = rng.integers(0, 60, (300, 8, 8, 1)).astype(np.uint8)
    for label in range(3):  # a bright bar whose height is the label
        images[labels == label, 1 + 2 * label : 3 + 2 * label] += 150
    layers = [Conv2D(filters=4, kernel_size=3, activation="relu"), MaxPool2D(), Flatten(), Dense(units=3), Softmax()]
    model = Model(input_shape=(8, 8, 1), layers=[Rescale(scale=1 / 255), *layers])
    train, test = Dataset(images[:200], labels[:200]), Dataset(images[200:], labels[200:])
    run = cnnkit.fit(
        model, train, backend=make_backend(), optimizer=Adam(learning_rate=0.01), batch_size=32, epochs=4, seed=1
    )
    by_tensorflow = cnnkit.evaluate(model, run.state.parameters, test, backend=make_backend())
    by_numpy = cnnkit.evaluate(model, run.state.parameters, test, backend="numpy")
    assert by_tensorflow.accuracy == by_numpy.accuracy > 0.95


def test_more_images_than_are_predicted_at_once_come_back_in_their_order(make_backend):
    from cnnkit_tensorflow.program import CHUNK

    model = Model(input_shape=(1,), layers=[Dense(units=1, use_bias=False)])
    program = make_backend().compile(model.plan(), {"0.kernel": np.full((1, 1), 3, np.float32)})
    images = np.arange(2 * CHUNK + 5, dtype=np.float32)[:, np.newaxis]
    assert np.array_equal(program.predict(images), 3 * images)


@pytest.mark.data
def test_seed_tf_learns_mnist_as_well_on_both_from_one_seed(real_data_dir):
    train, test = cnnkit.load_dataset("mnist", real_data_dir)
    preset = cnnkit.load_preset("seed-tf").for_data((28, 28, 1), 10)
    train, test = train.limit(3000), test.limit(2000)
    accuracy = {}
    for backend in ("numpy", "tensorflow"):
        run = cnnkit.fit(preset.model, train, backend=backend, optimizer=Adam(1e-3), batch_size=64, epochs=2, seed=0)
        accuracy[backend] = cnnkit.evaluate(run.model, run.state.parameters, test, backend).accuracy
    assert accuracy["numpy"] > 0.85
    assert abs(accuracy["numpy"] - accuracy["tensorflow"]) < 0.003
