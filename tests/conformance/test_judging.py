"""What a verdict says of a failure, and whose fault it is."""

from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import pytest

from cnnkit.backend import Backend, Program
from cnnkit.conformance.case import Case
from cnnkit.conformance.judging import judge
from cnnkit.conformance.measure import CaseFault, Numbers
from cnnkit.errors import UnsupportedModel
from cnnkit.model import Dense, Model, ReLU, Softmax
from cnnkit.optimizers import SGD
from cnnkit.parameters import initial_parameters
from cnnkit.state import initial_state
from cnnkit_numpy.backend import NumpyBackend


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


class Overwriting(Backend):
    def compile(self, *_):
        class Adding(Program):
            def predict(self, images):
                images += 1
                return images.copy()

        return Adding()


def test_an_array_that_a_backend_has_changed_is_as_it_was_for_the_next_case():
    images = np.zeros((2, 3), np.float32)
    model = Model(input_shape=(3,), layers=[ReLU()])
    verdict = verdict_of(lambda subject: subject.compile(model, {}).predict(images), Overwriting())
    assert verdict.message == "an array that was handed over has been changed"
    assert not images.any()


@dataclass(frozen=True)
class Wrapping(Backend):
    """Hands out states whose arrays by name are `kind`."""

    kind: type

    def compile(self, plan, parameters):
        return NumpyBackend().compile(plan, parameters)

    def compile_training(self, plan, state, optimizer):
        program, kind = NumpyBackend().compile_training(plan, state, optimizer), self.kind

        class Wrapped(type(program)):
            def state(self):
                state = super().state()
                return replace(state, parameters=kind(state.parameters))

        program.__class__ = Wrapped
        return program


@pytest.mark.parametrize(("kind", "message"), [(MappingProxyType, ""), (list, "parameters are a list; expected ")])
def test_a_state_may_hold_its_arrays_in_any_mapping(kind, message):
    model = Model(input_shape=(3,), layers=[Dense(units=2), Softmax()])
    state = initial_state(model, SGD(learning_rate=0.1))
    verdict = verdict_of(lambda subject: subject.train(model, state, SGD(learning_rate=0.1)).state(), Wrapping(kind))
    assert verdict.message.startswith(message)
    assert verdict.outcome == ("failed" if message else "passed")
