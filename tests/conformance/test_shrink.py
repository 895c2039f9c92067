"""Shrinking: what is small, what fails as it did, and what a right backend still answers."""

import time
from dataclasses import replace

import numpy as np
import pytest
from faults import FAULTS, NO_TANH, SLOWER, SUMMED, WRONG_SIDE, Faulty, Rounding, right

from cnnkit import SGD, Conv2D, Dense, Flatten, MaxPool2D, Program, ReLU, Softmax, Tanh
from cnnkit.conformance.explore import explored_cases
from cnnkit.conformance.judging import judge
from cnnkit.conformance.question import draw, expected_answer
from cnnkit.conformance.shrink import is_fair, mismatch, shrink
from cnnkit.conformance.subject import Subject

DEEP = [
    Conv2D(filters=3, kernel_size=3, activation="relu", padding="same"),
    Tanh(),
    MaxPool2D(pool_size=2, strides=1),
    Flatten(),
    Dense(units=5, activation="sigmoid"),
    Dense(units=3),
    Softmax(),
]
SMOOTH = [Conv2D(filters=2, kernel_size=2), Flatten(), Dense(units=4, activation="tanh"), Dense(units=3), Softmax()]


def numbers(question):
    return sum(array.size for array in [question.images, *question.parameters.values()])


def failures(backend, count=50, seed=9):
    """Questions of random cases that `backend` answers wrongly."""
    verdicts = [judge(case, backend) for case in explored_cases(count, seed)]
    return [verdict.question for verdict in verdicts if verdict.outcome == "failed"]


def test_a_wrong_layer_is_all_that_is_left_of_a_deep_model():
    question = draw(DEEP, (6, 5, 2), precision="float32", batch=3)
    small = shrink(question, NO_TANH)
    assert [layer.kind for layer in small.model.layers] == ["tanh"]
    assert (small.ask, small.images.shape) == ("predict", (1, 1, 1, 1))


def test_a_wrong_layer_under_training_is_found_by_predicting():
    question = draw(SMOOTH, (4, 5, 2), precision="float32", ask="steps", batch=3, optimizer=SGD(0.1), batch_size=2)
    small = shrink(question, NO_TANH)
    assert (small.ask, small.optimizer, small.labels) == ("predict", None, None)


def test_a_wrong_optimizer_needs_one_step_on_one_image():
    question = draw(
        SMOOTH, (4, 5, 2), precision="float32", ask="steps", batch=3, optimizer=SGD(0.1, momentum=0.9), batch_size=2
    )
    small = shrink(question, SLOWER)
    assert (small.ask, len(small.images), len(list(small.batches()))) == ("steps", 1, 1)
    assert small.optimizer == SGD(0.1)
    assert len(small.parameters) == 1


def test_what_only_two_images_show_keeps_two():
    question = draw(SMOOTH, (4, 5, 2), precision="float32", ask="gradients", batch=4)
    small = shrink(question, SUMMED)
    assert (small.ask, len(small.images)) == ("gradients", 2)


def test_numbers_that_do_not_matter_become_zeros_and_ones():
    question = draw([Conv2D(filters=3, kernel_size=2, padding="same")], (5, 4, 2), precision="float32", batch=3)
    small = shrink(question, WRONG_SIDE)
    values = np.concatenate([array.ravel() for array in [small.images, *small.parameters.values()]])
    assert np.isin(values, (0, 1)).mean() >= 0.5
    assert values.size <= 6


@pytest.mark.parametrize("name", FAULTS)
def test_a_small_question_fails_as_the_large_one_did_and_only_there(name):
    found = failures(FAULTS[name])
    assert len(found) >= 3
    for question in found[:6]:
        small = shrink(question, FAULTS[name])
        assert mismatch(small, FAULTS[name]) is not None
        assert is_fair(small, expected_answer(small))
        Subject(right()).ask(small)  # raises where a right backend fails
        if small.ask == "predict":
            Subject(Rounding()).ask(small)
        assert numbers(small) < numbers(question)


def test_the_same_question_comes_out_of_the_same():
    for question in failures(WRONG_SIDE)[:4]:
        one, other = (shrink(question, WRONG_SIDE, seconds=60) for _ in range(2))
        assert (one.model, one.ask) == (other.model, other.ask)
        np.testing.assert_array_equal(one.images, other.images)
        for name, array in one.parameters.items():
            np.testing.assert_array_equal(array, other.parameters[name])


def test_a_question_that_is_answered_rightly_stays_as_it_is():
    question = draw(SMOOTH, (4, 5, 2), precision="float32")
    assert shrink(question, right()) is question


def test_a_slow_backend_is_not_asked_for_longer_than_allowed():
    calls = []

    def slow(op):
        calls.append(time.sleep(0.02))
        return NO_TANH.operation(op)

    question = draw(DEEP, (6, 5, 2), precision="float32", batch=3)
    small = shrink(question, Faulty(operation=slow), seconds=0.0)
    assert len(calls) <= 2 * len(question.plan.operations)
    assert small is question
    shrink(question, Faulty(operation=slow), seconds=0.2)
    assert len(calls) < 0.7 / 0.02  # 0.2 s, the last question of that time, and the two questions above


def test_the_one_image_that_shows_the_fault_is_kept():
    class Marked(Faulty):
        def compile(self, plan, parameters):
            return MarkedProgram(super().compile(plan, parameters))

    class MarkedProgram(Program):
        def __init__(self, program):
            self.program = program

        def predict(self, images):
            output = self.program.predict(images)
            output[(images > 5).any(axis=tuple(range(1, images.ndim)))] += 1
            return output

    question = draw([Tanh()], (3,), precision="float32", batch=5)
    question.images[3, 1] = 6
    small = shrink(question, Marked())
    assert small.images.ravel().tolist() == [6]


def test_another_way_of_failing_is_not_taken_for_the_one_looked_for():
    """The backend is 1 % wrong on whole questions, and answers NaN to small images."""

    class Mixed(Faulty):
        def compile(self, plan, parameters):
            program = super().compile(plan, parameters)
            real = program.predict
            wrong = np.float32(1.01) if plan.input_shape[0] > 2 else np.float32("nan")

            class Program(type(program)):
                def predict(self, images):
                    return real(images) * wrong

            object.__setattr__(program, "__class__", Program)
            return program

    question = draw([Conv2D(filters=2, kernel_size=1), ReLU()], (5, 4, 2), precision="float32")
    small = shrink(question, Mixed())
    assert small.model.input_shape[0] == 3
    found = mismatch(small, Mixed())
    assert found is not None
    assert np.isfinite(found.units)


def test_a_question_on_an_edge_is_not_fair():
    layers = [MaxPool2D(pool_size=2), Conv2D(filters=2, kernel_size=1, activation="relu"), Flatten(), Softmax()]
    fair = draw(layers, (4, 4, 2), precision="float32", ask="gradients")
    assert is_fair(fair, expected_answer(fair))
    edge = {"1.kernel": np.zeros_like(fair.parameters["1.kernel"]), "1.bias": np.full(2, 1e-9, np.float32)}
    near = {"1.kernel": np.full_like(fair.parameters["1.kernel"], 1e-3), "1.bias": np.full(2, 1e-9, np.float32)}
    images = np.tile(np.float32([1, -1]), (*fair.images.shape[:3], 1))  # in exact arithmetic 1e-3 - 1e-3 + 1e-9
    unfair = replace(fair, parameters=near, images=images)
    assert not is_fair(unfair, expected_answer(unfair))
    assert is_fair(replace(unfair, ask="predict"), expected_answer(replace(unfair, ask="predict")))
    assert is_fair(replace(fair, parameters=edge), expected_answer(replace(fair, parameters=edge)))


def test_a_question_whose_right_answer_no_float32_holds_is_not_fair():
    question = draw([Dense(units=2)], (3,), precision="float32")
    large = replace(question, images=np.full((2, 3), 1e38, np.float32))
    larger = replace(large, parameters={name: 100 * np.ones_like(a) for name, a in question.parameters.items()})
    assert not is_fair(larger, expected_answer(larger))
