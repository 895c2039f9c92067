"""What a verdict says of a failure, and whose fault it is."""

import numpy as np
import pytest

from cnnkit.backend import Backend, Program
from cnnkit.conformance.case import Case
from cnnkit.conformance.judging import judge
from cnnkit.conformance.measure import CaseFault, Numbers
from cnnkit.errors import UnsupportedModel
from cnnkit.model import Dense, Model
from cnnkit.parameters import initial_parameters


class Nothing(Program):
    def predict(self, images):
        return images


class Anything(Backend):
    def compile(self, *_):
        return Nothing()


class Refusing(Backend):
    def compile(self, *_):
        raise UnsupportedModel("refusing", "layers[0]", "dense", "no")


def verdict_of(body, backend=None):
    return judge(Case("a.b", "It holds", "inference", frozenset(), body), backend or Anything())


def measure(subject, answer):
    subject.compare("output", [answer], Numbers(np.array([1.0]), np.array([1.0])))


def test_an_error_that_was_measured_before_is_not_the_size_of_one_that_has_none():
    def body(subject):
        measure(subject, 1.000001)
        subject.expect(False, "an array has been changed")

    verdict = verdict_of(body)
    assert (verdict.outcome, verdict.stage, verdict.units) == ("failed", "compare", None)


def test_an_exception_has_no_size_and_a_wrong_number_has():
    def body(subject):
        measure(subject, 1.000001)
        raise ValueError

    assert verdict_of(body).units is None
    assert verdict_of(lambda subject: measure(subject, 2.0)).units > 1e6
    assert 100 < verdict_of(lambda subject: measure(subject, 1.000007)).units < 128


def test_a_refusal_says_what_is_refused():
    model = Model(input_shape=(2,), layers=[Dense(units=2)])
    verdict = verdict_of(lambda subject: subject.compile(model, initial_parameters(model)), Refusing())
    assert (verdict.outcome, verdict.stage, verdict.feature) == ("failed", "refuse", "dense")


def test_a_case_that_proves_nothing_is_no_failure_of_the_backend():
    def body(subject):
        subject.compare("output", [1.0], Numbers(np.array([1.0]), np.array([np.inf])))

    with pytest.raises(CaseFault, match="the case proves nothing"):
        verdict_of(body)
    with pytest.raises(CaseFault, match="the case proves nothing"):
        verdict_of(lambda subject: subject.raises("it", TypeError, lambda: body(subject)))
