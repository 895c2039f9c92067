"""The subject: a backend on trial. Every call goes through it, so that what holds of all calls is checked at each.

Whatever is asked, images and labels are left as they were, and what comes back is a fresh, writable NumPy array in the
program's precision. A case calls `compile` or `train` and judges what the programs answer with `compare`, `same` and
`expect`; or it hands over a whole `Question`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, SupportsFloat, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cnnkit.arrays import Array, Images, Labels, Parameters, dtype_of
from cnnkit.backend import Backend, EpochTotals, Program, TrainingProgram
from cnnkit.conformance.measure import CaseFault, Mismatch, Numbers, compare
from cnnkit.conformance.question import Question, expected_answer, state_answer
from cnnkit.errors import UnsupportedModel
from cnnkit.features import features_of
from cnnkit.model import Model
from cnnkit.optimizers import SGD, Optimizer
from cnnkit.plan import Plan
from cnnkit.plugins import Unsupported
from cnnkit.state import TrainingState

Stage: TypeAlias = Literal["load", "refuse", "compile", "run", "compare", "crash", "timeout"]


class Refusal(Exception):
    """The backend refuses the model. `declared` says whether its plugin said so before anything was compiled."""

    def __init__(self, path: str, feature: str, reason: str, *, declared: bool) -> None:
        super().__init__(f"{path} needs {feature}: {reason}")
        self.path, self.feature, self.reason, self.declared = path, feature, reason, declared


class Subject:
    """A backend in one precision on trial in one case.

    Args:
        backend: The backend.
        precision: That of its programs.
        refuses: What its plugin says of a plan beforehand, as `cnnkit_supports` does; None for a backend without plugin.
    """

    def __init__(
        self,
        backend: Backend,
        precision: str = "float32",
        refuses: Callable[[Plan], Sequence[Unsupported]] | None = None,
    ) -> None:
        self.backend, self.precision, self.refuses = backend, precision, refuses
        self.dtype: np.dtype[Any] = dtype_of(precision)
        self.stage: Stage = "compile"
        self.worst = 0.0
        """The worst error so far, in units."""
        self.features: set[str] = set()
        """The ids of what was asked for so far."""
        self.question: Question | None = None
        """The question that was asked last, for the file that repeats a failure."""

    # ------------------------------------------------------------------------------------------------------- programs

    def compile(self, model: Model, parameters: Parameters) -> Watched:
        """A program that predicts."""
        plan = self._accepted(model, None)
        with self._at("compile"):
            return Watched(self, self._made(Program, lambda: self.backend.compile(plan, parameters)), plan)

    def train(self, model: Model, state: TrainingState, optimizer: Optimizer) -> WatchedTraining:
        """A program that trains."""
        plan = self._accepted(model, optimizer)
        with self._at("compile"):
            program = self._made(TrainingProgram, lambda: self.backend.compile_training(plan, state, optimizer))
            return WatchedTraining(self, program, plan)

    def _accepted(self, model: Model, optimizer: Optimizer | None) -> Plan:
        plan = model.plan()
        self.features |= features_of(plan, optimizer, self.precision)
        self.stage = "refuse"
        for refusal in self.refuses(plan) if self.refuses is not None else ():
            raise Refusal(refusal.path, refusal.feature, refusal.reason, declared=True)
        return plan

    def _made(self, kind: type[Any], make: Callable[[], Any]) -> Any:
        try:
            program = make()
        except UnsupportedModel as error:
            self.stage = "refuse"
            raise Refusal(error.path, error.feature, error.reason, declared=False) from error
        if not isinstance(program, kind):
            raise Mismatch(f"compiling gave {program!r}; expected a {kind.__name__}")
        return program

    @contextmanager
    def _at(self, stage: Stage) -> Iterator[None]:
        """While the backend works, it is at `stage`; afterwards the suite compares."""
        self.stage = stage
        yield
        self.stage = "compare"

    # ------------------------------------------------------------------------------------------------------- judgement

    def compare(self, what: str, answer: Any, expected: Numbers) -> None:
        """Demand that `answer` is within the threshold of `expected`."""
        self.stage = "compare"
        try:
            self.worst = max(self.worst, compare(what, answer, expected, self.precision))
        except Mismatch as mismatch:
            self.worst = max(self.worst, mismatch.units or 0.0)
            raise

    def same(self, what: str, one: Any, other: Any) -> None:
        """Demand that two arrays are equal in every number, NaN being equal to NaN."""
        self.stage = "compare"
        one, other = np.asarray(one), np.asarray(other)
        if one.shape != other.shape or not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            how = f"differ by {np.abs(one - other).max():.3g}" if one.shape == other.shape else "differ in shape"
            raise Mismatch(f"{what} must be equal to the last bit, but they {how}")

    def same_states(self, what: str, one: TrainingState, other: TrainingState) -> None:
        """Demand that two states are equal in every number."""
        self.expect((one.step, one.seed) == (other.step, other.seed), f"{what}: steps or seeds differ")
        mine, others = state_answer(one), state_answer(other)
        self.expect(mine.keys() == others.keys(), f"{what}: one has {sorted(mine)}, the other {sorted(others)}")
        for name, array in mine.items():
            self.same(f"{what}: {name}", array, others[name])

    def expect(self, condition: bool, message: str) -> None:
        """Demand a fact; `message` says what is the case instead."""
        self.stage = "compare"
        if not condition:
            raise Mismatch(message)

    def raises(self, what: str, kind: type[Exception], call: Callable[[], object]) -> Exception:
        """Demand that `call` raises `kind`, and return the error."""
        try:
            call()
        except kind as error:
            self.stage = "compare"
            return error
        except (Refusal, CaseFault):
            raise
        except Exception as error:  # whatever an engine raises instead is the finding
            self.stage = "compare"
            raise Mismatch(f"{what} raises {type(error).__name__} ({error}); expected {kind.__name__}") from error
        self.stage = "compare"
        raise Mismatch(f"{what} is accepted; expected {kind.__name__}")

    # ------------------------------------------------------------------------------------------------------- questions

    def ask(self, question: Question, expected: dict[str, Numbers] | None = None) -> None:
        """Demand that the backend answers `question` as the oracle does, or as `expected` says."""
        self.question = question
        right = expected_answer(question).numbers if expected is None else expected
        answer = self.answer(question)
        for what, numbers in right.items():
            self.compare(what, answer[what], numbers)

    def answer(self, question: Question) -> dict[str, Any]:
        """The backend's answer, by the names that the oracle gives."""
        if question.ask == "predict":
            return {"output": self.compile(question.model, question.parameters).predict(question.images)}
        labels = question.labels
        assert labels is not None  # noqa: S101 - every question that learns has labels
        if question.ask == "gradients":
            state = TrainingState(question.parameters, {}, question.step, question.seed)
            program = self.train(question.model, state, SGD(learning_rate=0.1))
            loss, found = program.gradients(question.images, labels)
            return {"loss": loss, **{f"gradient of {name}": gradient for name, gradient in found.items()}}
        assert question.optimizer is not None  # noqa: S101 - every question that trains has an optimizer
        program = self.train(question.model, question.state, question.optimizer)
        losses = [float(program.step(question.images[rows], labels[rows])) for rows in question.batches()]
        state = program.state()
        self.expect(
            state.step == question.step + len(losses),
            f"after {len(losses)} steps from step {question.step} the state has step {state.step}",
        )
        self.expect(state.seed == question.seed, f"the state has seed {state.seed}; expected {question.seed}")
        return {"losses": np.array(losses), **state_answer(state)}


class Watched:
    """A program whose every call is checked for what holds of all calls."""

    def __init__(self, subject: Subject, program: Any, plan: Plan) -> None:
        self.subject, self.program, self.plan = subject, program, plan

    def predict(self, images: Images) -> Array:
        """As `Program.predict`."""
        with self._watched(images):
            output = self.program.predict(images)
        self._check_array("the output", output, (len(images), *self.plan.output_shape), images)
        return output  # type: ignore[no-any-return] # the check has seen an array

    @contextmanager
    def _watched(self, *arrays: NDArray[Any]) -> Iterator[None]:
        before = [array.copy() for array in arrays]
        with self.subject._at("run"):  # noqa: SLF001 - the two are one module
            try:
                yield
            except UnsupportedModel as error:
                raise Mismatch(f"refused only when it ran, not when it was compiled: {error}") from error
        for array, copy in zip(arrays, before, strict=True):
            same = np.array_equal(array, copy, equal_nan=array.dtype.kind == "f")
            if not same and array.flags.writeable:
                array[...] = copy  # cases share arrays, and the next one is innocent
            self.subject.expect(same, "an array that was handed over has been changed")

    def _check_array(self, what: str, array: Any, shape: tuple[int, ...], *given: NDArray[Any]) -> None:
        expect = self.subject.expect
        expect(type(array) is np.ndarray, f"{what} is a {type(array).__name__}; expected a numpy.ndarray")
        expect(array.shape == shape, f"{what} has shape {array.shape}; expected {shape}")
        expect(array.dtype == self.subject.dtype, f"{what} is {array.dtype}; expected {self.subject.dtype}")
        expect(array.flags.writeable, f"{what} is read-only; expected a fresh array")
        for other in given:
            expect(not np.shares_memory(array, other), f"{what} shares memory with an array that was handed over")


class WatchedTraining(Watched):
    """A training program, watched."""

    def gradients(self, images: Images, labels: Labels) -> tuple[float, dict[str, Array]]:
        """As `TrainingProgram.gradients`."""
        with self._watched(images, labels):
            answer = self.program.gradients(images, labels)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise Mismatch(f"gradients gave {answer!r}; expected (loss, gradients)")
        loss, found = answer
        self._check_arrays("gradients", found)
        return float(loss), found

    def step(self, images: Images, labels: Labels) -> SupportsFloat:
        """As `TrainingProgram.step`."""
        with self._watched(images, labels):
            loss = self.program.step(images, labels)
            float(loss)
        return loss  # type: ignore[no-any-return] # float() has taken it

    def epoch(self, images: Images, labels: Labels, order: NDArray[np.int64], batch_size: int) -> EpochTotals:
        """As `TrainingProgram.epoch`."""
        with self._watched(images, labels, order):
            totals = self.program.epoch(images, labels, order, batch_size)
        self.subject.expect(isinstance(totals, EpochTotals), f"epoch gave {totals!r}; expected EpochTotals")
        return totals  # type: ignore[no-any-return] # checked above

    def state(self) -> TrainingState:
        """As `TrainingProgram.state`."""
        with self._watched():
            state = self.program.state()
        if not isinstance(state, TrainingState):
            raise Mismatch(f"state gave {state!r}; expected a TrainingState")
        self._check_arrays("parameters", state.parameters)
        for slot, arrays in state.slots.items():
            self._check_arrays(f"slot {slot}", arrays)
        return state

    def _check_arrays(self, what: str, arrays: Any) -> None:
        wanted = {spec.name: spec.shape for spec in self.plan.parameters}
        if not isinstance(arrays, Mapping):
            raise Mismatch(f"{what} are a {type(arrays).__name__}; expected arrays by name")
        self.subject.expect(
            set(arrays) == set(wanted),
            f"{what} are named {', '.join(map(str, arrays))}; expected {', '.join(wanted)}",
        )
        for name, shape in wanted.items():
            self._check_array(f"{what}: {name}", arrays[name], shape)
