"""Comparing backends: where the first fault is found, and whose it is."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
from faults import MEAN_FOR_MAXIMUM, NO_TANH, SUMMED, WRONG_SIDE, Faulty, FaultyProgram, right
from mutants.right import BY_OPERATION, cross_entropy

from cnnkit import (
    AvgPool2D,
    Backend,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    Program,
    Rescale,
    Softmax,
    Tanh,
    load_preset,
)
from cnnkit.conformance.comparing import compare_backends, in_precision, question_about
from cnnkit.layerwise import Kernels, LayerwiseBackend
from cnnkit.plan import ActivationOp, AvgPool2DOp, Conv2DOp, DenseOp, FlattenOp, MaxPool2DOp, SoftmaxOp
from cnnkit.plugins import Unsupported

MODEL = Model(
    input_shape=(7, 6, 2),
    layers=[
        Rescale(scale=0.5),
        Conv2D(filters=3, kernel_size=(2, 3), padding="same"),
        MaxPool2D(pool_size=2),
        Conv2D(filters=4, kernel_size=2, activation="relu"),
        Tanh(),
        Flatten(),
        Dropout(rate=0.3),
        Dense(units=5),
        Dense(units=3),
        Softmax(),
    ],
)


@dataclass(frozen=True)
class Scaled(Backend):
    """Right, but the parameters of one shape are a little larger, or their gradients, or both."""

    shape: tuple[int, ...]
    forward: float = 1.0
    backward: float = 1.0

    def _scaled(self, arrays, factor):
        return {name: a * a.dtype.type(factor) if a.shape == self.shape else a for name, a in arrays.items()}

    def compile(self, plan, parameters):
        return right().compile(plan, self._scaled(parameters, self.forward))

    def compile_training(self, plan, state, optimizer):
        program = FaultyProgram(right().compile_training(plan, state, optimizer), None)

        def gradients(images, labels):
            loss, found = program.program.gradients(images, labels)
            return loss, self._scaled(found, self.backward)

        program.gradients = gradients
        return program


def first(backend, model=MODEL, **options):
    found = compare_backends(question_about(model, **options), {"right": right(), "wrong": backend})
    assert set(found.partings) <= {"wrong"}
    row = found.partings.get("wrong")
    return None if row is None else (row.direction, row.layer, row.what)


@pytest.mark.parametrize(
    ("backend", "place"),
    [
        (WRONG_SIDE, ("forward", 1, "conv2d")),
        (MEAN_FOR_MAXIMUM, ("forward", 2, "max_pool2d")),
        (NO_TANH, ("forward", 4, "tanh")),
        (Scaled((2, 2, 3, 4), 1.0005), ("forward", 3, "conv2d")),
        (Scaled((5, 3), 1.0005), ("forward", 8, "dense")),
        (SUMMED, ("backward", 8, "gradient of 8.bias")),
        (Scaled((16, 5), backward=1.0005), ("backward", 7, "gradient of 7.kernel")),
        (Scaled((2, 3, 2, 3), backward=1.01), ("backward", 1, "gradient of 1.kernel")),
        (Faulty(), None),
    ],
)
def test_the_first_place_that_is_wrong_is_found(backend, place):
    assert first(backend) == place


def test_a_small_fault_deep_in_a_large_model_is_found():
    model = load_preset("seed-tf").model
    units = model.layers[8].units
    assert first(Scaled((model.layers[7].units, units), 1.0005), model) == ("forward", 8, "dense")


DEEP = Model(
    input_shape=(12, 11, 3),
    layers=[
        Conv2D(filters=8, kernel_size=3, padding="same", activation="relu"),
        Conv2D(filters=9, kernel_size=3, strides=2, activation="tanh"),
        Conv2D(filters=10, kernel_size=2, padding="same"),
        AvgPool2D(pool_size=2, strides=1),
        Conv2D(filters=11, kernel_size=2, use_bias=False, activation="sigmoid"),
        Flatten(),
        Dense(units=13, activation="relu"),
        Dense(units=12),
        Softmax(),
    ],
)


def planted(precision="float32", *, forward=1.0, input_=1.0, kernel=1.0, bias=1.0, in_=lambda _: True):
    """Right, but the output or a gradient of some operations is multiplied by a factor."""

    def wrapped(run):
        def wrong(op, x, *parameters):
            y, pullback = run(op, x, *parameters)
            factors = [x.dtype.type(factor) for factor in (input_, kernel, bias)]

            def wrong_pullback(dy):
                return tuple(array * factor for array, factor in zip(pullback(dy), factors, strict=False))

            return (y * x.dtype.type(forward), wrong_pullback) if in_(op) else (y, pullback)

        return wrong

    by = {kind: run if kind is SoftmaxOp else wrapped(run) for kind, run in BY_OPERATION.items()}
    return LayerwiseBackend("planted", Kernels(by, cross_entropy), precision)


def wide(count):
    """Operations with parameters that make so many numbers of each pixel or row, and no others."""
    return lambda op: isinstance(op, (Conv2DOp, DenseOp)) and op.output_shape[-1] == count


WIDTHS = {0: 8, 1: 9, 2: 10, 4: 11, 6: 13, 7: 12}
"""The layers of DEEP that have parameters."""


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_small_fault_is_named_at_its_layer_whatever_it_is(precision):
    small = {"kernel": {"kernel": 1.01}, "bias": {"bias": 1.01}, "input": {"input_": 1.01}, "layer": {"forward": 1.001}}
    backends, places = {}, {}
    for layer, width in WIDTHS.items():
        for what, factor in small.items():
            if (layer, what) in ((0, "input"), (4, "bias")):
                continue  # nobody needs the one, and the other is not there
            name = f"{what} of {layer}"
            backends[name] = planted(precision, **factor, in_=wide(width))
            gradient = "gradient of its input" if what == "input" else f"gradient of {layer}.{what}"
            kind = DEEP.layers[layer].kind
            places[name] = ("forward", layer, kind) if what == "layer" else ("backward", layer, gradient)
    found = compare_backends(question_about(DEEP, precision), backends | {"right": right(precision)}).partings
    assert {name: (row.direction, row.layer, row.what) for name, row in found.items()} == places


@pytest.mark.parametrize(
    ("kind", "factor", "place"),
    [
        (Conv2DOp, {"kernel": 1.01}, (4, "gradient of 4.kernel")),
        (Conv2DOp, {"bias": 1.01}, (2, "gradient of 2.bias")),
        (Conv2DOp, {"input_": 1.01}, (4, "gradient of its input")),
        (DenseOp, {"kernel": 1.01}, (7, "gradient of 7.kernel")),
        (DenseOp, {"bias": 1.01}, (7, "gradient of 7.bias")),
        (DenseOp, {"input_": 1.01}, (7, "gradient of its input")),
        (AvgPool2DOp, {"input_": 1.01}, (3, "gradient of its input")),
        (ActivationOp, {"input_": 1.01}, (6, "gradient of the input of its relu")),
    ],
)
def test_a_fault_of_a_kind_of_layer_is_named_at_its_last_layer_though_the_bread_has_it_too(kind, factor, place):
    backend = planted(**factor, in_=lambda op: isinstance(op, kind))
    assert first(backend, DEEP) == ("backward", *place)


def test_a_flatten_that_goes_back_in_another_order_is_named():
    def flatten(op, x):
        y, pullback = BY_OPERATION[FlattenOp](op, x)
        return y, lambda dy: (pullback(dy)[0][:, ::-1],)

    backend = LayerwiseBackend("wrong", Kernels({**BY_OPERATION, FlattenOp: flatten}, cross_entropy), "float32")
    assert first(backend, DEEP) == ("backward", 5, "gradient of its input")


def test_a_fault_of_the_end_alone_is_no_fault_of_a_model_without_it():
    layers = [Conv2D(filters=3, kernel_size=2), Tanh(), Conv2D(filters=2, kernel_size=(4, 3)), Flatten(), Softmax()]
    model = Model(input_shape=(5, 4, 2), layers=layers)
    assert first(planted(input_=1.01, in_=lambda op: isinstance(op, DenseOp)), model) is None
    conv = planted(input_=1.01, in_=lambda op: isinstance(op, Conv2DOp))
    assert first(conv, model) == ("backward", 2, "gradient of its input")


def test_what_the_bread_alone_gets_wrong_is_said_to_be_unseen():
    backend = planted(kernel=1.01, bias=1.01, in_=lambda op: isinstance(op, Conv2DOp))
    found = compare_backends(question_about(DEEP), {"wrong": backend})
    seen = {row.layer: row.cells["wrong"].outcome for row in found.rows if row.what == "gradient of its input"}
    assert seen == {7: "agrees", 6: "agrees", 5: "unseen", 4: "unseen", 3: "unseen", 2: "unseen", 1: "unseen"}


@pytest.mark.parametrize("what", ["kernel", "bias"])
@pytest.mark.parametrize("kind", [Conv2DOp, DenseOp])
def test_two_classes_and_two_channels_do_not_cancel_the_fault_of_a_front(kind, what):
    model = Model(
        input_shape=(4, 4, 1),
        layers=[
            Conv2D(filters=2, kernel_size=3),
            Tanh(),
            Flatten(),
            Dense(units=2),
            Tanh(),
            Dense(units=2),
            Softmax(),
        ],
    )
    layer = {Conv2DOp: 0, DenseOp: 5}[kind]
    backend = planted(**{what: 1.01}, in_=lambda op: isinstance(op, kind))
    assert first(backend, model) == ("backward", layer, f"gradient of {layer}.{what}")
    both = planted(kernel=1.01, bias=1.01, in_=lambda op: isinstance(op, kind))
    assert first(both, model) == ("backward", layer, f"gradient of {layer}.bias")


def test_small_faults_on_the_way_back_are_named_in_a_large_model():
    conv, dense = (lambda op: isinstance(op, Conv2DOp)), (lambda op: isinstance(op, DenseOp))
    backends = {
        "conv kernel": planted(kernel=1.01, in_=conv),
        "conv input": planted(input_=1.01, in_=conv),
        "first conv": planted(bias=1.01, in_=wide(32)),
        "pool": planted(input_=1.01, in_=lambda op: isinstance(op, MaxPool2DOp)),
        "dense input": planted(input_=1.01, in_=dense),
    }
    found = compare_backends(question_about(load_preset("seed-tf").model, batch=2), backends).partings
    assert {name: (row.layer, row.what) for name, row in found.items()} == {
        "conv kernel": (3, "gradient of 3.kernel"),
        "conv input": (3, "gradient of its input"),
        "first conv": (1, "gradient of 1.bias"),
        "pool": (4, "gradient of its input"),
        "dense input": (8, "gradient of its input"),
    }


@pytest.mark.parametrize("number", [np.nan, np.inf, 3e37])
def test_numbers_that_leave_no_gradients_to_see_are_no_fault(number):
    model = Model(
        input_shape=(3, 3, 1), layers=[Conv2D(filters=2, kernel_size=2), Flatten(), Dense(units=2), Softmax()]
    )
    kernel = np.full((2, 2, 1, 2), 0.25 / 4, np.float32)
    parameters = question_about(model).parameters | {"0.kernel": kernel}
    images = np.full((2, 3, 3, 1), number, np.float32)
    found = compare_backends(question_about(model, images=images, parameters=parameters), {"a": right()})
    assert {cell.message for row in found.rows for cell in row.cells.values() if not cell.is_good} == set()
    assert {row.cells["a"].outcome for row in found.rows if row.what == "gradient of its input"} == {"unseen"}


def test_a_backend_that_knows_no_bread_is_not_blamed_for_it():
    model = Model(input_shape=(4, 3, 2), layers=[Flatten(), Tanh(), Dense(units=3), Softmax()])
    image = Model(input_shape=(4, 3, 2), layers=[Conv2D(filters=3, kernel_size=(4, 3)), Tanh(), Flatten(), Softmax()])

    def refuses(kind):
        return lambda plan: [
            Unsupported(f"layers[{op.layer}]", "kind", "none") for op in plan.operations if isinstance(op, kind)
        ]

    for asked, kind in ((model, Conv2DOp), (image, DenseOp)):
        found = compare_backends(question_about(asked), {"a": right()}, {"a": refuses(kind)})
        assert found.agree
        assert "refuses" not in {cell.outcome for row in found.rows for cell in row.cells.values()}


def test_right_backends_agree_in_both_precisions():
    for precision in ("float32", "float64"):
        found = compare_backends(question_about(MODEL, precision), {"a": right(precision), "b": right(precision)})
        assert found.agree
        assert found.is_clear
        assert 0 < found.worst < 20
        assert {row.direction for row in found.rows} == {"forward", "backward"}
        backward = [row.layer for row in found.rows[10:]]  # bias, kernel and input, and the input of an activation
        assert backward == [9, 8, 8, 8, 7, 7, 7, 6, 5, 4, 3, 3, 3, 3, 2, 1, 1]
        assert all(cell.outcome == "agrees" for row in found.rows for cell in row.cells.values())


def test_the_error_is_in_units_of_the_threshold():
    found = compare_backends(question_about(MODEL), {"wrong": WRONG_SIDE})
    cell = found.partings["wrong"].cells["wrong"]
    assert cell.outcome == "parts"
    assert cell.units > 1e4
    assert cell.message.startswith("output[")
    assert not found.agree


class OnlyWhole(Backend):
    """Wrong in deep models alone: three layers or more, as a compiler that fuses them may be."""

    def compile(self, plan, parameters):
        inner = right().compile(plan, parameters)

        class Fused(Program):
            def predict(self, images):
                return inner.predict(images) * np.float32(1.01 if len(plan.model.layers) > 4 else 1)

        return Fused()


def test_a_fault_of_the_whole_model_is_found_too():
    found = compare_backends(question_about(MODEL), {"wrong": OnlyWhole()})
    assert (found.partings["wrong"].direction, found.partings["wrong"].layer) == ("forward", 4)


def test_a_backend_that_only_predicts_is_not_wrong():
    class Predicts(Backend):
        def compile(self, plan, parameters):
            return right().compile(plan, parameters)

    found = compare_backends(question_about(MODEL), {"predicts": Predicts()})
    assert found.agree
    backward = [row.cells["predicts"] for row in found.rows if row.direction == "backward"]
    assert {cell.outcome for cell in backward} == {"does-not-train"}
    assert "Predicts only predicts" in backward[0].message


def test_a_refusal_is_named_at_the_layer_and_is_no_agreement():
    def refuses(plan):
        kinds = [layer.kind for layer in plan.model.layers]
        return [Unsupported("layers[4]", "tanh", "it cannot")] if "tanh" in kinds else []

    found = compare_backends(question_about(MODEL), {"a": right(), "b": right()}, {"b": refuses})
    row = found.partings["b"]
    assert (row.layer, row.cells["b"].outcome, row.cells["a"].outcome) == (4, "refuses", "agrees")
    assert row.cells["b"].message == "layers[4] needs tanh: it cannot"
    assert not found.agree


class Crashes(Backend):
    def compile(self, plan, parameters):
        if len(plan.model.layers) > 2:
            raise ZeroDivisionError("too deep")
        return right().compile(plan, parameters)


class Integers(Backend):
    def compile(self, plan, parameters):
        inner = right().compile(plan, parameters)

        class Rounded(Program):
            def predict(self, images):
                return inner.predict(images).astype(np.float64)

        return Rounded()


@pytest.mark.parametrize(
    ("backend", "layer", "said"),
    [(Crashes(), 2, "ZeroDivisionError: too deep"), (Integers(), 0, "the output is float64; expected float32")],
)
def test_a_backend_that_breaks_down_or_breaks_the_contract_is_named(backend, layer, said):
    found = compare_backends(question_about(MODEL), {"right": right(), "wrong": backend})
    row = found.partings["wrong"]
    assert (row.direction, row.layer, row.cells["wrong"].outcome) == ("forward", layer, "fails")
    assert said in row.cells["wrong"].message


class Panic(BaseException):
    pass


class Speechless(Exception):
    def __str__(self):
        raise ValueError("there are no words")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Panic("too deep"), "Panic: too deep"),
        (Speechless(), "Speechless, whose text cannot be had"),
        (ValueError("x" * 5_000_000), "(5,000,012 characters in all)"),
    ],
)
def test_whatever_a_backend_raises_is_its_answer(error, said):
    found = compare_backends(question_about(MODEL), {"right": right(), "wrong": Raises(error)})
    cell = found.partings["wrong"].cells["wrong"]
    assert said in cell.message
    assert len(cell.message) < 2500


class Raises(Crashes):
    """Raises the error that it is given."""

    def __init__(self, error):
        self.error = error

    def compile(self, plan, parameters):  # noqa: ARG002 - it looks at nothing that it is given
        raise self.error


def test_a_model_that_is_no_classifier_is_compared_forward():
    model = MODEL.prefix(4)
    found = compare_backends(question_about(model), {"a": right(), "b": NO_TANH})
    assert {row.direction for row in found.rows} == {"forward"}
    assert list(found.partings) == ["b"]


def test_random_numbers_leave_no_decision_to_rounding_and_biases_are_drawn():
    question = question_about(MODEL, batch=3, seed=5)
    assert question.images.shape == (3, 7, 6, 2)
    assert all(array.any() for array in question.parameters.values())
    again = question_about(MODEL, batch=3, seed=5)
    np.testing.assert_array_equal(question.images, again.images)
    assert not np.array_equal(question.images, question_about(MODEL, batch=3, seed=50).images)


def test_gradients_that_hang_on_rounding_are_said_to():
    model = Model(input_shape=(2,), layers=[Dense(units=2, activation="relu"), Dense(units=2), Softmax()])
    parameters = {
        "0.kernel": np.float32([[1, 1], [-1, 1]]),
        "0.bias": np.zeros(2, np.float32),
        "1.kernel": np.float32([[1, 0.5], [0, 1]]),
        "1.bias": np.zeros(2, np.float32),
    }
    edge = question_about(model, parameters=parameters, images=np.float32([[1, 1]]))
    assert not compare_backends(edge, {"a": right()}).is_clear
    assert compare_backends(replace(edge, images=np.float32([[2, 1]])), {"a": right()}).is_clear


def test_given_numbers_are_used():
    images, labels = np.zeros((2, 7, 6, 2), np.uint8), np.array([0, 2])
    given = question_about(MODEL).parameters
    question = question_about(MODEL, "float64", parameters=in_precision(given, "float64"), images=images, labels=labels)
    assert question.images is images
    assert question.labels is labels
    np.testing.assert_array_equal(question.parameters["1.kernel"], given["1.kernel"])
    assert question.parameters["1.kernel"].dtype == np.float64


def test_the_comparison_is_plain_data():
    found = compare_backends(question_about(MODEL), {"a": right(), "b": NO_TANH}).to_dict()
    assert found["agree"] is False
    assert found["partings"]["b"]["layer"] == 4
    assert found["rows"][4]["backends"]["a"]["outcome"] == "agrees"
    assert found["rows"][4]["backends"]["b"]["units"] > 128
