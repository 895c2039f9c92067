import dataclasses
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.errors import OptionError
from cnnkit.optimizers import (
    SGD,
    Adam,
    AdamW,
    ConstantRate,
    CosineDecay,
    Optimizer,
    StepDecay,
    optimizer_from_dict,
    optimizer_to_dict,
    rate_at,
)

# Powers of two, and an epsilon that cannot be overlooked, so that every step can be worked out by hand.
ROUND = {"learning_rate": 0.1, "beta_1": 0.5, "beta_2": 0.75, "epsilon": 0.5}

EVERY_OPTIMIZER = [
    SGD(learning_rate=0.1),
    SGD(learning_rate=0.1, weight_decay=0.01),
    SGD(learning_rate=StepDecay(0.1, every=2), momentum=0.9),
    SGD(learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    Adam(),
    Adam(learning_rate=CosineDecay(0.1, steps=3), epsilon=1e-3),
    AdamW(learning_rate=0.1, weight_decay=0.1),
]


def walk(optimizer, gradients, start=1.0):
    """The parameter after every step, in Python floats."""
    p, slots, path = start, tuple(0.0 for _ in optimizer.slot_names), []
    for step, g in enumerate(gradients):
        p, slots = optimizer.update(p, g, slots, step)
        path.append(p)
    return path


# -------------------------------------------------------------------------------------------- rules, worked out by hand


def test_plain_sgd():
    assert SGD(learning_rate=0.1).slot_names == ()
    assert walk(SGD(learning_rate=0.1), [1, 2, -1]) == pytest.approx([0.9, 0.7, 0.8])


def test_sgd_with_momentum():
    # v: 1, 0.9 + 2 = 2.9, 2.61 - 1 = 1.61
    optimizer = SGD(learning_rate=0.1, momentum=0.9)
    assert optimizer.slot_names == ("velocity",)
    assert walk(optimizer, [1, 2, -1]) == pytest.approx([1 - 0.1, 0.9 - 0.29, 0.61 - 0.161])


def test_sgd_with_nesterov_momentum():
    # g + 0.9 v: 1.9, 2 + 2.61 = 4.61, -1 + 1.449 = 0.449
    optimizer = SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    assert optimizer.slot_names == ("velocity",)
    assert walk(optimizer, [1, 2, -1]) == pytest.approx([1 - 0.19, 0.81 - 0.461, 0.349 - 0.0449])


def test_weight_decay_of_sgd_is_added_to_the_gradient_and_so_goes_through_the_momentum():
    # g: 1 + 0.1 = 1.1, 2 + 0.089 = 2.089; v: 1.1, 0.99 + 2.089 = 3.079
    optimizer = SGD(learning_rate=0.1, momentum=0.9, weight_decay=0.1)
    assert walk(optimizer, [1, 2]) == pytest.approx([0.89, 0.89 - 0.3079])
    assert walk(SGD(learning_rate=0.1, weight_decay=0.1), [1, 2]) == pytest.approx([0.89, 0.89 - 0.2089])


def test_the_velocity_does_not_hold_the_learning_rate():
    """Where it does, as in other libraries, the second step would be 0.09 + 0.05 * 2 = 0.19."""
    optimizer = SGD(learning_rate=StepDecay(0.1, every=1, factor=0.5), momentum=0.9)
    assert walk(optimizer, [1, 2, -1]) == pytest.approx([0.9, 0.9 - 0.05 * 2.9, 0.755 - 0.025 * 1.61])


ADAM_STEPS = [
    # m = 1, v = 1; corrected by 1 - 0.5 and 1 - 0.75: 2 and 4
    0.1 * 2 / (2 + 0.5),
    # m = 0.5 + 0.5 = 1, v = 0.75 + 0.25 = 1; corrected by 1 - 0.25 and 1 - 0.5625: 4/3 and 16/7
    0.1 * (4 / 3) / (4 / math.sqrt(7) + 0.5),
    # m = 0.5 - 1 = -0.5, v = 0.75 + 1 = 1.75; corrected by 7/8 and 37/64: -4/7 and 112/37
    0.1 * (-4 / 7) / (math.sqrt(112 / 37) + 0.5),
]


def test_adam():
    optimizer = Adam(**ROUND)
    assert optimizer.slot_names == ("m", "v")
    one, two, three = ADAM_STEPS
    assert walk(optimizer, [2, 1, -2]) == pytest.approx([1 - one, 1 - one - two, 1 - one - two - three])


def test_adamw_decays_the_parameter_by_rate_times_decay_before_adam_and_not_the_gradient():
    optimizer = AdamW(**ROUND, weight_decay=0.5)
    assert optimizer.slot_names == ("m", "v")
    one, two, _ = ADAM_STEPS
    assert walk(optimizer, [2, 1]) == pytest.approx([0.95 - one, (0.95 - one) * 0.95 - two])


def test_without_a_gradient_adamw_only_decays():
    """L2 decay inside of Adam would move the parameter by the whole learning rate instead."""
    assert walk(AdamW(learning_rate=0.1, weight_decay=0.5), [0.0, 0.0]) == pytest.approx([0.95, 0.95 * 0.95])
    assert walk(Adam(learning_rate=0.1), [0.0]) == [1.0]


def test_adamw_decays_by_the_scheduled_rate():
    optimizer = AdamW(learning_rate=StepDecay(0.1, every=1, factor=0.1), weight_decay=0.5)
    assert walk(optimizer, [0.0, 0.0]) == pytest.approx([0.95, 0.95 * (1 - 0.01 * 0.5)])


@pytest.mark.parametrize("number", [float, np.float32])
@pytest.mark.parametrize("optimizer", [Adam(learning_rate=0.1), AdamW(learning_rate=0.1, weight_decay=0.0)])
def test_epsilon_stands_outside_the_root_and_after_the_bias_correction(optimizer, number):
    """A gradient of epsilon's size: inside the root the step would be 1e-5, before the correction 0.0031."""
    p, g, slots = (np.array([value], number) for value in (0.0, 1e-8, 0.0))
    p, _ = optimizer.update(p, g, (slots, slots.copy()), 0)
    assert p[0] == pytest.approx(-0.1 * 1e-8 / (1e-8 + 1e-8), rel=1e-6)


def test_the_defaults_are_those_of_the_papers():
    assert dataclasses.astuple(Adam()) == (1e-3, 0.9, 0.999, 1e-8, None)
    assert dataclasses.astuple(AdamW()) == (1e-3, 0.9, 0.999, 1e-8, 0.01, None)
    assert dataclasses.astuple(SGD(learning_rate=0.5)) == (0.5, 0.0, False, 0.0, None)


# ----------------------------------------------------------------------------------------------- any kind of array


@dataclass(frozen=True)
class Number:
    """An array type with nothing but the operators that a rule may use, and none in place."""

    value: float

    def __add__(self, other):
        return Number(self.value + bare(other))

    def __radd__(self, other):
        return Number(other + self.value)

    def __sub__(self, other):
        return Number(self.value - bare(other))

    def __mul__(self, other):
        return Number(self.value * bare(other))

    def __rmul__(self, other):
        return Number(other * self.value)

    def __truediv__(self, other):
        return Number(self.value / bare(other))

    def __pow__(self, other):
        return Number(self.value**other)


def bare(value):
    return value.value if isinstance(value, Number) else value


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_a_rule_needs_only_arithmetic_and_gives_the_same_numbers_on_every_kind_of_array(optimizer):
    gradients = [0.5, -2.0, 0.125, 1.0]
    in_floats = walk(optimizer, gradients)
    p, slots = Number(1.0), tuple(Number(0.0) for _ in optimizer.slot_names)
    q, arrays = np.ones((2, 3)), [np.zeros((2, 3)) for _ in optimizer.slot_names]
    for step, g in enumerate(gradients):
        p, slots = optimizer.update(p, Number(g), slots, step)
        q, arrays = optimizer.update(q, np.full((2, 3), g), arrays, step)
        assert p.value == in_floats[step]
        assert q == pytest.approx(np.full((2, 3), in_floats[step]), rel=1e-14)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_an_array_keeps_its_type_and_is_changed_in_place(optimizer, dtype):
    p = np.ones((2, 3), dtype)
    slots = tuple(np.zeros((2, 3), dtype) for _ in optimizer.slot_names)
    new_p, new_slots = optimizer.update(p, np.full((2, 3), 0.5, dtype), slots, 0)
    assert new_p is p
    assert len(new_slots) == len(slots)
    assert all(new is old for new, old in zip(new_slots, slots, strict=True))
    assert {array.dtype for array in (new_p, *new_slots)} == {np.dtype(dtype)}
    assert (p < 1).all()
    assert all((slot > 0).all() for slot in slots)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_all_that_a_step_changes_in_a_rule_is_in_its_coefficients(optimizer):
    """So that an engine may compile the rule once: as many numbers at every step, of any type that multiplies."""
    assert len({len(optimizer.coefficients(step)) for step in (0, 1, 5, 1000)}) == 1
    for step in (0, 7):
        coefficients = [np.float64(number) for number in optimizer.coefficients(step)]
        slots = [np.full(3, 0.5) for _ in optimizer.slot_names]
        applied, kept = optimizer.apply(np.ones(3), np.full(3, 0.2), [slot.copy() for slot in slots], coefficients)
        updated, others = optimizer.update(np.ones(3), np.full(3, 0.2), slots, step)
        np.testing.assert_array_equal(applied, updated)
        np.testing.assert_array_equal(kept, others)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_nan_in_a_gradient_reaches_the_parameter_and_only_its_own(optimizer):
    p, slots = np.ones(2), tuple(np.zeros(2) for _ in optimizer.slot_names)
    p, _ = optimizer.update(p, np.array([math.nan, 1.0]), slots, 0)
    assert np.isnan(p).tolist() == [True, False]


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_the_slots_come_in_the_order_of_their_names(optimizer):
    """After the first step from zero, with a gradient of 0.5 and no decay, every slot is known."""
    bare_optimizer = (
        dataclasses.replace(optimizer, weight_decay=0.0) if hasattr(optimizer, "weight_decay") else optimizer
    )
    _, slots = bare_optimizer.update(1.0, 0.5, tuple(0.0 for _ in optimizer.slot_names), 0)
    known = {"velocity": 0.5, "m": 0.05, "v": 0.00025}
    assert slots == pytest.approx(tuple(known[name] for name in optimizer.slot_names))


# ---------------------------------------------------------------------------------------------------------- schedules


def test_a_constant_rate_is_a_plain_number():
    assert [ConstantRate(0.1).at(step) for step in (0, 7, 10**9)] == [0.1, 0.1, 0.1]
    assert rate_at(0.25, 99) == rate_at(ConstantRate(0.25), 99) == 0.25


def test_step_decay_multiplies_after_every_so_many_steps():
    schedule = StepDecay(2.0, every=3)
    assert [schedule.at(step) for step in range(8)] == pytest.approx([2, 2, 2, 0.2, 0.2, 0.2, 0.02, 0.02])
    assert StepDecay(1.0, every=10, factor=0.5).at(25) == 0.25


def test_cosine_decay_goes_down_half_a_wave_and_stays():
    schedule = CosineDecay(1.0, steps=4, final=0.2)
    half = math.sqrt(2) / 2  # cos(pi / 4)
    expected = [1.0, 0.2 + 0.4 * (1 + half), 0.6, 0.2 + 0.4 * (1 - half), 0.2, 0.2, 0.2]
    assert [schedule.at(step) for step in range(7)] == pytest.approx(expected)
    assert CosineDecay(3.0, steps=2).at(2) == 0.0


@pytest.mark.parametrize("optimizer", [SGD, Adam, AdamW])
def test_the_rate_of_a_step_is_the_schedules(optimizer):
    early, late = optimizer(learning_rate=0.5), optimizer(learning_rate=0.05)
    scheduled = optimizer(learning_rate=StepDecay(0.5, every=3))
    slots = tuple(1.0 for _ in early.slot_names)
    assert scheduled.update(1.0, 1.0, slots, 2) == early.update(1.0, 1.0, slots, 2)
    assert scheduled.update(1.0, 1.0, slots, 3)[0] == pytest.approx(late.update(1.0, 1.0, slots, 3)[0], rel=1e-14)


# ----------------------------------------------------------------------------------------------------------- clipping


@pytest.mark.parametrize("optimizer", [SGD(learning_rate=1), Adam(), AdamW()])
def test_gradients_longer_than_the_limit_are_shortened_to_it(optimizer):
    clipped = dataclasses.replace(optimizer, clip_global_norm=2.0)
    assert clipped.clip_factor(25.0) == 2.0 / 5.0
    assert clipped.clip_factor(4.0) == 1.0
    assert clipped.clip_factor(3.9) == 1.0
    assert clipped.clip_factor(0.0) == 1.0
    assert optimizer.clip_factor(1e30) == 1.0


def test_a_norm_that_is_nan_clips_nothing_so_that_nan_stays_seen():
    assert Adam(clip_global_norm=1.0).clip_factor(math.nan) == 1.0


# -------------------------------------------------------------------------------------------------------------- files


def test_an_optimizer_as_plain_data():
    assert optimizer_to_dict(SGD(learning_rate=0.1, momentum=0.9)) == {
        "kind": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "nesterov": False,
        "weight_decay": 0.0,
    }
    assert optimizer_to_dict(Adam(clip_global_norm=1.0)) == {
        "kind": "adam",
        "learning_rate": 0.001,
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-8,
        "clip_global_norm": 1.0,
    }
    assert optimizer_to_dict(AdamW(learning_rate=StepDecay(0.1, every=5)))["learning_rate"] == {
        "kind": "step",
        "rate": 0.1,
        "every": 5,
        "factor": 0.1,
    }
    assert optimizer_to_dict(AdamW())["kind"] == "adamw"
    assert optimizer_to_dict(SGD(learning_rate=ConstantRate(0.1)))["learning_rate"]["kind"] == "constant"
    assert optimizer_to_dict(SGD(learning_rate=CosineDecay(0.1, steps=3)))["learning_rate"]["kind"] == "cosine"


def test_short_data_means_the_defaults():
    assert optimizer_from_dict({"kind": "adam"}) == Adam()
    assert optimizer_from_dict({"kind": "sgd", "learning_rate": 1}) == SGD(learning_rate=1)


numbers = st.floats(0, 1e6)
fractions = st.floats(0, 1, exclude_max=True)
steps = st.integers(1, 10**6)
rates = st.one_of(
    numbers,
    st.builds(ConstantRate, numbers),
    st.builds(StepDecay, numbers, steps, numbers),
    st.builds(CosineDecay, numbers, steps, numbers),
)
common = {"learning_rate": rates, "clip_global_norm": st.none() | st.floats(1e-6, 1e6)}
adams = common | {"beta_1": fractions, "beta_2": fractions, "epsilon": st.floats(1e-300, 1)}


@settings(deadline=None)
@given(
    st.one_of(
        st.builds(SGD, **common, momentum=st.floats(0.01, 0.99), nesterov=st.booleans(), weight_decay=numbers),
        st.builds(Adam, **adams),
        st.builds(AdamW, **adams, weight_decay=numbers),
    )
)
def test_every_optimizer_comes_back_from_json(optimizer):
    again = optimizer_from_dict(json.loads(json.dumps(optimizer_to_dict(optimizer), allow_nan=False)))
    assert again == optimizer
    assert type(again) is type(optimizer)


def test_an_optimizer_of_somebody_else_is_no_plain_data():
    class Mine(SGD):
        pass

    with pytest.raises(OptionError, match="Mine is not an optimizer that a file can hold; those are SGD, Adam, AdamW"):
        optimizer_to_dict(Mine(learning_rate=0.1))


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SGD(learning_rate=-0.1), "SGD: learning_rate is -0.1; expected a finite number of at least 0"),
        (lambda: SGD(learning_rate=math.nan), "SGD: learning_rate is nan; expected"),
        (lambda: SGD(learning_rate=math.inf), "SGD: learning_rate is inf; expected"),
        (lambda: SGD(learning_rate="0.1"), "SGD: learning_rate is '0.1'; expected"),
        (lambda: SGD(learning_rate=True), "SGD: learning_rate is True; expected"),
        (lambda: SGD(learning_rate=None), "SGD: learning_rate is None; expected"),
        (lambda: SGD(learning_rate=1, momentum=1), "SGD: momentum is 1; expected .* at least 0 and less than 1"),
        (lambda: SGD(learning_rate=1, weight_decay=-1), "SGD: weight_decay is -1; expected"),
        (lambda: SGD(learning_rate=1, nesterov=True), "SGD: nesterov is True with momentum 0, .* Give a momentum"),
        (lambda: SGD(learning_rate=1, momentum=0.9, nesterov="no"), "SGD: nesterov is 'no'; expected True or False"),
        (
            lambda: SGD(learning_rate=1, clip_global_norm=0),
            "clip_global_norm is 0; expected a finite number of more than 0",
        ),
        (lambda: Adam(beta_1=1.0), "Adam: beta_1 is 1.0; expected a finite number of at least 0 and less than 1"),
        (lambda: Adam(beta_2=-0.1), "Adam: beta_2 is -0.1; expected"),
        (lambda: Adam(epsilon=0), "Adam: epsilon is 0; expected a finite number of more than 0"),
        (lambda: AdamW(weight_decay=math.inf), "AdamW: weight_decay is inf; expected"),
        (lambda: AdamW(beta_1=2), "AdamW: beta_1 is 2; expected"),
        (lambda: ConstantRate(-1), "ConstantRate: rate is -1; expected"),
        (lambda: StepDecay(0.1, every=0), "StepDecay: every is 0; expected a finite number of at least 1"),
        (lambda: StepDecay(0.1, every=3, factor=-1), "StepDecay: factor is -1; expected"),
        (lambda: CosineDecay(0.1, steps=0), "CosineDecay: steps is 0; expected a finite number of at least 1"),
        (lambda: CosineDecay(0.1, steps=9, final=math.nan), "CosineDecay: final is nan; expected"),
        (
            lambda: optimizer_from_dict({"kind": "rmsprop"}),
            "optimizer kind is 'rmsprop'; expected one of sgd, adam, adamw",
        ),
        (lambda: optimizer_from_dict({}), "optimizer kind is None; expected one of"),
        (lambda: optimizer_from_dict({"kind": ["sgd"]}), r"optimizer kind is \['sgd'\]; expected one of"),
        (
            lambda: optimizer_from_dict({"kind": "adam", "lr": 1}),
            "'lr' is not an option of optimizer 'adam'; its options are l",
        ),
        (lambda: optimizer_from_dict({"kind": "sgd"}), "optimizer 'sgd' needs all of learning_rate.*'learning_rate'"),
        (
            lambda: optimizer_from_dict({"kind": "adam", "learning_rate": {"kind": "linear"}}),
            "schedule kind is 'linear'; expected one of constant, step, cosine",
        ),
        (
            lambda: optimizer_from_dict({"kind": "adam", "learning_rate": {"kind": "step", "rate": 1}}),
            "schedule 'step' needs .*'every'",
        ),
        (
            lambda: optimizer_from_dict({"kind": "adam", "learning_rate": [1]}),
            r"Adam: learning_rate is \[1\]; expected",
        ),
    ],
)
def test_what_is_out_of_range_or_unknown_is_refused(make, message):
    with pytest.raises(OptionError, match=message):
        make()


def test_optimizers_are_values():
    assert Adam() == Adam()
    assert hash(Adam()) == hash(Adam())
    with pytest.raises(dataclasses.FrozenInstanceError):
        Adam().epsilon = 1.0
    assert issubclass(SGD, Optimizer)


def test_a_numpy_scalar_as_hyperparameter_makes_no_array_float64():
    scalars = Adam(learning_rate=np.float64(0.1), beta_1=np.float64(0.9), epsilon=np.float64(1e-8))
    plain = Adam(learning_rate=0.1, beta_1=0.9, epsilon=1e-8)
    results = []
    for optimizer in (scalars, plain):
        p, slots = np.ones(3, np.float32), (np.zeros(3, np.float32), np.zeros(3, np.float32))
        p, _ = optimizer.update(p, np.full(3, 0.3, np.float32), slots, 0)
        results.append(p.tobytes())
    assert results[0] == results[1]
    assert type(scalars.beta_1) is float
