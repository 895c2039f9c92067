import dataclasses

import numpy as np
import pytest

from cnnkit.errors import DataError
from cnnkit.model import Dense, Model, Softmax
from cnnkit.optimizers import SGD, Adam
from cnnkit.parameters import initial_parameters
from cnnkit.state import TrainingState, check_state, fresh_state, initial_state, same_state

MODEL = Model(input_shape=(3,), layers=[Dense(units=2), Softmax()])
MOMENTUM = SGD(learning_rate=0.1, momentum=0.9)


def bits(arrays):
    return {name: array.tobytes() for name, array in arrays.items()}


# --------------------------------------------------------------------------------------------------------- beginnings


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize(
    ("optimizer", "slots"), [(SGD(learning_rate=0.1), []), (MOMENTUM, ["velocity"]), (Adam(), ["m", "v"])]
)
def test_training_begins_at_the_drawn_parameters_with_zero_slots_and_no_step(optimizer, slots, precision):
    state = initial_state(MODEL, optimizer, seed=4, precision=precision)
    assert bits(state.parameters) == bits(initial_parameters(MODEL, 4, precision))
    assert (state.step, state.seed) == (0, 4)
    assert list(state.slots) == slots
    for arrays in state.slots.values():
        assert {name: (array.shape, array.dtype) for name, array in arrays.items()} == {
            "0.kernel": ((3, 2), np.dtype(precision)),
            "0.bias": ((2,), np.dtype(precision)),
        }
        assert not any(array.any() for array in arrays.values())


def test_slots_share_no_memory_with_one_another():
    state = initial_state(MODEL, Adam())
    state.slots["m"]["0.bias"][:] = 1
    assert not state.slots["v"]["0.bias"].any()


def test_a_fresh_state_begins_at_a_copy_of_what_it_was_given():
    parameters = initial_parameters(MODEL, seed=1)
    kept = bits(parameters)
    state = fresh_state(parameters, MOMENTUM, seed=9)
    parameters["0.kernel"][:] = 0
    assert bits(state.parameters) == kept
    assert (state.step, state.seed) == (0, 9)
    assert not any(array.any() for array in state.slots["velocity"].values())


# -------------------------------------------------------------------------------------------------------------- checks


def test_a_state_of_the_model_and_optimizer_passes():
    check_state(MODEL.plan(), initial_state(MODEL, Adam()), Adam(learning_rate=0.5))


@pytest.mark.parametrize(
    ("change", "optimizer", "message"),
    [
        ({}, MOMENTUM, r"the state has slots m, v, but SGD keeps velocity. Continue with the optimizer that made"),
        ({}, SGD(learning_rate=1), r"the state has slots m, v, but SGD keeps none.*cnnkit.fresh_state\("),
        ({"slots": {}}, Adam(), "the state has slots none, but Adam keeps m, v"),
        ({"parameters": {}}, Adam(), "parameters lack 0.kernel, 0.bias"),
        ({"slots": {"m": {}, "v": {}}}, Adam(), "parameters lack 0.kernel, 0.bias"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, optimizer, message):
    state = dataclasses.replace(initial_state(MODEL, Adam()), **change)
    with pytest.raises(DataError, match=message):
        check_state(MODEL.plan(), state, optimizer)


def test_a_slot_of_another_shape_is_refused():
    state = initial_state(MODEL, MOMENTUM)
    state.slots["velocity"]["0.bias"] = np.zeros(3, np.float32)
    with pytest.raises(DataError, match=r"'0.bias' is float32 of shape \(3,\)"):
        check_state(MODEL.plan(), state, MOMENTUM)


# ------------------------------------------------------------------------------------------------------------ equality


def changed(state, **changes):
    parameters = {name: array.copy() for name, array in state.parameters.items()}
    slots = {slot: {name: array.copy() for name, array in arrays.items()} for slot, arrays in state.slots.items()}
    return TrainingState(**{"parameters": parameters, "slots": slots, "step": state.step, "seed": state.seed} | changes)


def with_bias(state, values, dtype=np.float32):
    other = changed(state)
    other.parameters["0.bias"] = np.array(values, dtype)
    return other


def test_a_copy_is_the_same_state():
    state = initial_state(MODEL, Adam(), seed=2)
    assert same_state(state, changed(state))


def test_nan_is_equal_to_itself():
    state = with_bias(initial_state(MODEL, Adam()), [np.nan, 1])
    assert same_state(state, changed(state))


def test_whatever_differs_makes_another_state():
    state = initial_state(MODEL, Adam())
    other_slot = changed(state)
    other_slot.slots["v"]["0.kernel"][0, 0] = np.nextafter(np.float32(0), np.float32(1))
    others = [
        changed(state, step=1),
        changed(state, seed=1),
        with_bias(state, [0, -0.0]),
        with_bias(state, [0, 0], np.float64),
        with_bias(state, [[0, 0]]),
        with_bias(state, [0, 1e-45]),
        changed(state, parameters={"0.kernel": state.parameters["0.kernel"]}),
        changed(state, slots={"m": state.slots["m"]}),
        changed(state, slots={"m": state.slots["m"], "w": state.slots["v"]}),
        other_slot,
    ]
    assert [same_state(state, other) for other in others] == [False] * 10
    assert [same_state(other, state) for other in others] == [False] * 10


@pytest.mark.parametrize(("field", "value"), [("step", -3), ("seed", -1), ("step", 1.5), ("seed", None)])
def test_a_state_counts_its_steps_and_its_seed_from_0(field, value):
    model = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
    optimizer = SGD(learning_rate=0.1)
    wrong = dataclasses.replace(initial_state(model, optimizer), **{field: value})
    with pytest.raises(DataError, match=f"the state has {field} .*; expected a whole number of at least 0"):
        check_state(model.plan(), wrong, optimizer)
