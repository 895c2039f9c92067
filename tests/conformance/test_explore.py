from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

import cnnkit
from cnnkit.arrays import Images, Labels, Parameters
from cnnkit.conformance import question
from cnnkit.conformance.case import Case
from cnnkit.conformance.explore import case_by_id, explored_cases
from cnnkit.conformance.judging import judge
from cnnkit.conformance.question import Question
from cnnkit.conformance.subject import Subject
from cnnkit.model import LAYER_KINDS, Dense, Model


class Asked(Subject):
    """A subject that keeps the question in place of answering it."""

    def __init__(self, precision: str = "float32") -> None:
        super().__init__(cnnkit.get_backend("numpy"), precision)

    def ask(self, question: Question, expected: object = None) -> None:
        assert expected is None
        self.question = question


def asked(case: Case, precision: str = "float32") -> Question:
    subject = Asked(precision)
    case.body(subject)
    assert subject.question is not None
    return subject.question


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_right_backend_passes_every_random_case(precision: str) -> None:
    backend = cnnkit.get_backend("numpy", precision=precision)
    verdicts = {case.id: judge(case, backend, precision) for case in explored_cases(100, seed=2)}
    assert {name: verdict.message for name, verdict in verdicts.items() if verdict.outcome != "passed"} == {}


def test_random_numbers_with_clear_decisions_are_found_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[Question] = []
    real = question.expected_answer

    def counted(asked: Question) -> question.Expected:
        tried.append(asked)
        return real(asked)

    monkeypatch.setattr(question, "expected_answer", counted)
    worst = 0
    for case in explored_cases(300, seed=3):
        tried.clear()
        asked(case)
        worst = max(worst, len(tried))
    assert worst < 20  # of the 100 after which draw gives up


def test_a_case_is_the_same_whatever_else_is_drawn() -> None:
    few, many = explored_cases(3, seed=5), explored_cases(40, seed=5)
    assert [case.claim for case in few] == [case.claim for case in many[:3]]
    again = case_by_id("explore.5.02")
    assert again is not None
    one, other = asked(few[2]), asked(again)
    assert one.model == other.model
    np.testing.assert_array_equal(one.images, other.images)
    for name, array in one.parameters.items():
        np.testing.assert_array_equal(array, other.parameters[name])


def test_other_names_are_no_random_cases() -> None:
    assert case_by_id("dense.forward.wide") is None
    assert case_by_id("explore.5.2x") is None


def test_seeds_draw_other_models() -> None:
    assert not {case.claim for case in explored_cases(20, 0)} & {case.claim for case in explored_cases(20, 1)}


def test_every_kind_of_layer_and_everything_that_can_be_asked_is_drawn() -> None:
    cases = explored_cases(150)
    questions = [asked(case) for case in cases]
    assert {layer.kind for drawn in questions for layer in drawn.model.layers} == set(LAYER_KINDS)
    assert {drawn.ask for drawn in questions} == {"predict", "gradients", "steps"}
    assert {drawn.images.dtype.name for drawn in questions} == {"float32", "uint8"}
    assert {type(drawn.optimizer).__name__ for drawn in questions if drawn.optimizer} == {"SGD", "Adam", "AdamW"}
    assert {bool(drawn.slots) for drawn in questions if drawn.ask == "steps"} == {True, False}
    wanted = {"conv2d.dilation", "conv2d.padding.uneven", "conv2d.no_bias", "pool.max.overlap", "pool.avg.padding"}
    assert wanted <= {feature for case in cases for feature in case.features}


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_case_says_beforehand_what_it_asks_of_a_backend(precision: str) -> None:
    for case in explored_cases(60):
        drawn = asked(case, precision)
        assert case.features == drawn.features - {"precision.float64"}
        assert case.level == ("inference" if drawn.ask == "predict" else "training")
        assert all(array.dtype == precision for array in drawn.parameters.values())
        assert all(array.dtype == precision for arrays in drawn.slots.values() for array in arrays.values())


@dataclass
class Halved(cnnkit.Backend):
    """Predicts with dense kernels that are a little too small."""

    right: cnnkit.Backend

    def compile(self, plan: cnnkit.Plan, parameters: Parameters) -> cnnkit.Program:
        wrong = {name: array * np.float32(0.9995) for name, array in parameters.items()}
        return self.right.compile(plan, wrong)


def test_a_fault_is_found() -> None:
    backend = Halved(cnnkit.get_backend("numpy"))
    found = [judge(case, backend) for case in explored_cases(30) if case.level == "inference"]
    assert sum(verdict.outcome == "failed" and verdict.stage == "compare" for verdict in found) > 5


def test_the_claim_says_which_model_it_is() -> None:
    drawn = asked(explored_cases(1)[0]).model
    claim = explored_cases(1)[0].claim
    dense = [layer for layer in drawn.layers if isinstance(layer, Dense)]
    assert isinstance(drawn, Model)
    assert all(f"dense {layer.units}" in claim for layer in dense)
    assert " x ".join(map(str, drawn.input_shape)) in claim


@dataclass
class Enlarged(cnnkit.Backend):
    """The gradients of convolution kernels are a little too large."""

    right: cnnkit.Backend

    def compile(self, plan: cnnkit.Plan, parameters: Parameters) -> cnnkit.Program:
        return self.right.compile(plan, parameters)

    def compile_training(
        self, plan: cnnkit.Plan, state: cnnkit.TrainingState, optimizer: cnnkit.Optimizer
    ) -> cnnkit.TrainingProgram:
        program = self.right.compile_training(plan, state, optimizer)
        gradients = program.gradients

        def enlarged(images: Images, labels: Labels) -> tuple[float, Parameters]:
            loss, found = gradients(images, labels)
            return loss, {name: array * array.dtype.type(1 + 5e-4 * (array.ndim == 4)) for name, array in found.items()}

        program.gradients = enlarged  # type: ignore[method-assign] - of this one program
        return program


def test_a_small_fault_in_a_gradient_is_found_in_most_models() -> None:
    backend = Enlarged(cnnkit.get_backend("numpy"))
    cases = [case for case in explored_cases(100) if "conv2d" in case.features]
    verdicts = [judge(case, backend) for case in cases if asked(case).ask == "gradients"]
    assert len(verdicts) > 10
    assert sum(verdict.stage == "compare" for verdict in verdicts) > 0.75 * len(verdicts)
