"""Failures as files: what comes back out of one, what is refused, and that a failure is repeated."""

import json
from dataclasses import replace

import numpy as np
import pytest
from faults import FAULTS, NO_TANH, SUMMED, WRONG_SIDE, right
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as stnp

from cnnkit import SGD, AdamW, Backend, Conv2D, Dense, Flatten, Model, Program, Softmax, StepDecay, Tanh
from cnnkit.conformance import repro as repro_module
from cnnkit.conformance.case import Case
from cnnkit.conformance.explore import explored_cases
from cnnkit.conformance.judging import judge
from cnnkit.conformance.measure import Numbers
from cnnkit.conformance.question import Question, draw
from cnnkit.conformance.repro import Repro, in_precision, load, replay, save_failure, to_json
from cnnkit.errors import OptionError

CLASSIFIER = [Conv2D(filters=2, kernel_size=2), Flatten(), Dense(units=4, activation="tanh"), Dense(units=3), Softmax()]


def steps(**options):
    """A question about two steps of training with everything that a question can have."""
    optimizer = AdamW(learning_rate=StepDecay(0.1, every=2), clip_global_norm=0.2, beta_1=0.8)
    question = draw(CLASSIFIER, (4, 5, 2), precision="float32", ask="steps", batch=3, optimizer=optimizer, **options)
    random = np.random.default_rng(0)
    slots = {
        slot: {name: random.random(array.shape, np.float32) for name, array in question.parameters.items()}
        for slot in optimizer.slot_names
    }
    return replace(question, slots=slots, step=7, seed=11, batch_size=2, epochs=2)


def failure(question=None, **changes):
    return replace(
        Repro(
            "a.case",
            question.precision if question else "float32",
            "x",
            "compare",
            "wrong",
            "It is right",
            5e5,
            question,
        ),
        **changes,
    )


def case_of(question, name="suite.case"):
    return Case(name, "It is right", "training", question.features, lambda subject: subject.ask(question))


def save(folder, backend, case, precision="float32"):
    return save_failure(
        folder,
        case_id=case.id,
        precision=precision,
        backend_name="x",
        backend=backend,
        refuses=None,
        verdict=judge(case, backend, precision),
    )


@pytest.fixture
def suite(monkeypatch):
    """A function that puts cases into the suite."""
    known = {}
    real = repro_module.find_case
    monkeypatch.setattr(repro_module, "find_case", lambda name: known.get(name) or real(name))
    return lambda case: known.setdefault(case.id, case)


def assert_same_bits(one, other):
    assert (one.dtype, one.shape) == (other.dtype, other.shape)
    payload_free = one if one.dtype.kind != "f" else np.where(np.isnan(one), np.nan, one)
    others = other if other.dtype.kind != "f" else np.where(np.isnan(other), np.nan, other)
    assert payload_free.tobytes() == others.tobytes()


# ---------------------------------------------------------------------------------------------------------------- files


def test_a_question_comes_back_whole(tmp_path):
    asked = steps()
    written = failure(asked)
    (tmp_path / "f.json").write_text(to_json(written))
    back = load(tmp_path / "f.json")
    assert replace(back, question=None) == replace(written, question=None)
    found = back.question
    assert (found.model, found.ask, found.precision, found.optimizer) == (
        asked.model,
        "steps",
        "float32",
        asked.optimizer,
    )
    assert (found.step, found.seed, found.batch_size, found.epochs) == (7, 11, 2, 2)
    assert_same_bits(found.images, asked.images)
    assert_same_bits(found.labels, asked.labels)
    assert list(found.parameters) == list(asked.parameters)
    for name, array in asked.parameters.items():
        assert_same_bits(found.parameters[name], array)
        for slot in ("m", "v"):
            assert_same_bits(found.slots[slot][name], asked.slots[slot][name])


DTYPES = st.sampled_from(["float32", "float64", "uint8"])
SHAPES = stnp.array_shapes(min_dims=1, max_dims=1, min_side=0, max_side=3).map(lambda count: (*count, 3))


@settings(deadline=None, derandomize=True, max_examples=150)
@given(DTYPES.flatmap(lambda dtype: stnp.arrays(dtype, SHAPES)))
def test_every_number_comes_back_to_the_last_bit(tmp_path_factory, images):
    path = tmp_path_factory.mktemp("f") / "f.json"
    question = draw([Dense(units=2)], (3,), precision="float64", images=images)
    path.write_text(to_json(failure(question)))
    assert_same_bits(load(path).question.images, images)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_largest_numbers_come_back(tmp_path, dtype):
    images = np.array([[np.finfo(dtype).max, np.finfo(dtype).min, np.finfo(dtype).tiny]], dtype)
    question = draw([Dense(units=2)], (3,), precision="float64", images=images)
    (tmp_path / "f.json").write_text(to_json(failure(question)))
    assert_same_bits(load(tmp_path / "f.json").question.images, images)


def test_a_file_is_short_and_holds_nothing_but_json(tmp_path):
    images = np.float32([[0.1, np.nan, np.inf], [-np.inf, -0.0, 1e-45]])
    question = draw([Dense(units=2)], (3,), precision="float32", images=images)
    text = to_json(failure(question, units=np.inf))
    data = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert '[0.1, "NaN", "Infinity"]' in text
    assert '["-Infinity", -0.0, 1e-45]' in text
    assert data["units"] == "Infinity"
    (tmp_path / "f.json").write_text(text)
    assert load(tmp_path / "f.json").units == np.inf


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data.update(format=2), r"f.json has format 2, but this cnnkit reads 1. Upgrade cnnkit"),
        (lambda data: data.update(format="1"), r"f.json holds no failure that can be replayed: format: "),
        (lambda data: data.pop("case"), r"case: Field required. Correct it there"),
        (lambda data: data.update(colour=1), r"colour: Extra inputs are not permitted"),
        (lambda data: data.update(precision="float16"), r"precision: Input should be 'float32' or 'float64'"),
        (lambda data: data["question"].update(ask="sing"), r"question.ask: Input should be 'predict'"),
        (lambda data: data["question"].update(step=-1), r"question.step: Input should be greater than"),
        (lambda data: data["question"].update(batch_size=0), r"question.batch_size: Input should be greater than"),
        (lambda data: data["question"]["model"].update(version=9), r"question: model: version is 9"),
        (lambda data: data["question"]["model"]["layers"].pop(1), r"question: model 'm': layers\[1\] is Dense"),
        (lambda data: data["question"]["parameters"].pop("0.bias"), r"question: parameters lack 0.bias"),
        (lambda data: data["question"].update(labels=None), r"question: labels are null, but to ask for steps"),
        (lambda data: data["question"].update(optimizer=None), r"question: optimizer is null"),
        (lambda data: data["question"].update(optimizer={"kind": "best"}), r"question: optimizer kind is 'best'"),
        (lambda data: data["question"]["slots"].pop("m"), r"question: the state has slots v, but AdamW keeps m, v"),
        (lambda data: data["question"]["images"].update(dtype="complex64"), r"question.images.dtype: "),
        (lambda data: data["question"]["images"].update(shape=[3, 4, 5]), r"images.values\[0\]\[0\]\[0\] is \["),
        (lambda data: data["question"]["images"]["values"].pop(), r"images.values is 2 values; expected a list of 3"),
        (
            lambda data: data["question"]["labels"].update(values=[0, 1, 3]),
            r"question: labels\[2\] is 3, but the model",
        ),
        (
            lambda data: data["question"]["labels"].update(values=[0, 1, 0.5]),
            r"labels.values\[2\] is 0.5; expected a num",
        ),
        (
            lambda data: data["question"]["labels"].update(values=[0, 1, True]),
            r"labels.values\[2\] is True; expected a",
        ),
        (
            lambda data: data["question"]["labels"].update(values=[0, 1, 2**63]),
            r"labels.values\[2\] is 92233720368547758",
        ),
        (
            lambda data: data["question"]["parameters"]["0.bias"].update(values=["nan", 1]),
            r"0.bias.values\[0\] is 'nan'",
        ),
        (
            lambda data: data["question"]["parameters"]["0.bias"].update(values=[1e39, 1]),
            r"values\[0\] is 1e\+39; expected",
        ),
        (
            lambda data: data["question"]["parameters"]["0.bias"].update(values=7),
            r"0.bias.values is 7; expected a list",
        ),
    ],
)
def test_a_file_that_is_wrong_says_where(tmp_path, change, said):
    asked = steps()
    asked = replace(asked, model=asked.model.model_copy(update={"name": "m"}))
    data = json.loads(to_json(failure(asked)))
    change(data)
    (tmp_path / "f.json").write_text(json.dumps(data))
    with pytest.raises(OptionError, match=said):
        load(tmp_path / "f.json")


@pytest.mark.parametrize("text", ["", "{", "[" * 100000, "\xff"])
def test_what_is_no_json_is_no_failure(tmp_path, text):
    (tmp_path / "f.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(OptionError, match=r"f.json cannot be read: .*Give a file that `cnnkit conformance` saved"):
        load(tmp_path / "f.json")


def test_a_list_is_no_failure_and_no_file_neither(tmp_path):
    (tmp_path / "f.json").write_text("[]")
    with pytest.raises(OptionError, match="the file: Input should be a valid dictionary"):
        load(tmp_path / "f.json")
    with pytest.raises(OptionError, match=r"none.json cannot be read: .*No such file"):
        load(tmp_path / "none.json")


# -------------------------------------------------------------------------------------------------- saving and replaying


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_saved_failure_fails_again_and_a_right_backend_passes_it(tmp_path, name, precision):
    faulty = replace(FAULTS[name], precision=precision)
    case = next(case for case in explored_cases(60, 9) if judge(case, faulty, precision).outcome == "failed")
    path = save(tmp_path / "new", faulty, case, precision)
    assert path == tmp_path / "new" / f"{case.id}.{precision}.json"
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    found = load(path)
    assert (found.case, found.precision, found.backend, found.stage) == (case.id, precision, "x", "compare")
    assert found.claim == case.claim
    assert found.question is not None
    again = replay(found, faulty)
    assert (again.outcome, again.stage, again.message, again.units) == ("failed", "compare", found.message, found.units)
    assert replay(found, right(precision)).outcome == "passed"


def test_a_failure_is_shrunk_before_it_is_saved(tmp_path, suite):
    question = draw([Tanh(), Conv2D(filters=3, kernel_size=3), Tanh()], (6, 5, 2), precision="float32", batch=3)
    case = suite(case_of(question))
    found = load(save(tmp_path, NO_TANH, case)).question
    assert found.images.size == 1
    assert len(found.model.layers) == 1


def test_a_failure_can_be_replayed_in_another_precision(tmp_path, suite):
    case = suite(case_of(draw(CLASSIFIER, (4, 5, 2), precision="float32", ask="gradients")))
    found = load(save(tmp_path, SUMMED, case))
    assert replay(found, replace(SUMMED, precision="float64"), precision="float64").outcome == "failed"
    assert replay(found, right("float64"), precision="float64").outcome == "passed"
    doubled = in_precision(steps(), "float64")
    assert {
        array.dtype.name for array in [doubled.images, *doubled.parameters.values(), *doubled.slots["v"].values()]
    } == {"float64"}
    pixels = draw([Tanh()], (3,), precision="float32", images="uint8")
    assert in_precision(pixels, "float64").images.dtype == np.uint8


class Counting(Backend):
    """Right, but its programs share one count of calls, and the second call on any of them is wrong."""

    def __init__(self):
        self.calls = 0

    def compile(self, plan, parameters):
        outer, inner = self, right().compile(plan, parameters)

        class Counted(Program):
            def predict(self, images):
                outer.calls += 1
                return inner.predict(images) + np.float32(outer.calls == 2)

        return Counted()


def test_a_failure_that_one_question_does_not_show_is_replayed_by_its_case(tmp_path, suite):
    question = draw([Dense(units=2)], (3,), precision="float32")

    def twice(subject):
        subject.ask(question)
        subject.ask(question)

    case = suite(Case("suite.twice", "Two questions are answered alike", "inference", frozenset(), twice))
    found = load(save(tmp_path, Counting(), case))
    assert found.question is None
    assert "output[" in found.message
    assert found.claim == "Two questions are answered alike"
    again = replay(found, Counting())
    assert (again.outcome, again.stage) == ("failed", "compare")
    assert replay(found, right()).outcome == "passed"


class FortranHater(Backend):
    def compile(self, plan, parameters):
        inner = right().compile(plan, parameters)

        class Hating(Program):
            def predict(self, images):
                return inner.predict(images) + np.float32(not images.flags.c_contiguous)

        return Hating()


def test_what_a_file_cannot_hold_is_replayed_by_its_case(tmp_path, suite):
    question = draw([Tanh()], (3, 4, 2), precision="float32")
    odd = suite(case_of(replace(question, images=np.asfortranarray(question.images))))
    found = load(save(tmp_path, FortranHater(), odd))
    assert found.question is None
    assert replay(found, FortranHater()).outcome == "failed"
    assert replay(found, right()).outcome == "passed"


def test_a_case_with_an_answer_of_its_own_is_not_judged_by_another(tmp_path, suite):
    """The case promises less than the oracle says of a question with a decision on an edge."""
    model = Model(input_shape=(2,), layers=[Dense(units=2, activation="relu"), Dense(units=2), Softmax()])
    ones = {"0.kernel": [[1, 1], [-1, 1]], "0.bias": [0, 0], "1.kernel": [[1, 0], [0, 1]], "1.bias": [0, 0]}
    parameters = {name: np.float32(values) for name, values in ones.items()}
    question = Question(model, parameters, np.float32([[1, 1]]), "gradients", labels=np.array([0]))
    expected = {"loss": Numbers(np.float64(9), np.float64(1))}
    body = lambda subject: subject.ask(question, expected)  # noqa: E731 - a case holds a function
    case = suite(Case("suite.literal", "The loss is 9", "training", frozenset(), body))
    found = load(save(tmp_path, right(), case))
    assert found.question is None
    assert replay(found, right()).message.startswith("loss is 2.1269")


def test_a_question_with_a_decision_on_an_edge_is_left_to_its_case(tmp_path, suite):
    """A case of ties knows what it may ask; the file alone would ask right backends for more."""
    layers = [Dense(units=2, activation="relu"), Dense(units=2, activation="tanh"), Softmax()]
    model = Model(input_shape=(2,), layers=layers)
    values = {"0.kernel": [[1, 1], [-1, 1]], "0.bias": [0, 0], "1.kernel": [[1, 0], [0, 1]], "1.bias": [0, 0]}
    parameters = {name: np.float32(rows) for name, rows in values.items()}
    edge = Question(model, parameters, np.float32([[1, 1]]), "gradients", labels=np.array([0]))
    found = load(save(tmp_path, NO_TANH, suite(case_of(edge, "suite.edge"))))
    assert found.question is None
    clear = replace(edge, images=np.float32([[2, 1]]))
    assert load(save(tmp_path, NO_TANH, suite(case_of(clear, "suite.clear")))).question is not None


class Crashing(Backend):
    def compile(self, plan, parameters):  # noqa: ARG002 - the contract's names
        raise ZeroDivisionError("division by \udcff zero")


def test_a_backend_that_breaks_down_is_asked_the_whole_question_again(tmp_path, suite):
    case = suite(case_of(draw(CLASSIFIER, (4, 5, 2), precision="float32", batch=3)))
    found = load(save(tmp_path, Crashing(), case))
    assert found.question.images.shape == (3, 4, 5, 2)
    assert (found.stage, found.message) == ("compile", "ZeroDivisionError: division by \udcff zero")
    assert replay(found, Crashing()).stage == "compile"


def test_a_failure_without_a_question_finds_random_cases_by_name():
    case = explored_cases(4, 9)[3]
    found = failure(case=case.id)
    assert replay(found, right()).outcome == "passed"
    assert replay(failure(case="explore.9.00"), WRONG_SIDE).outcome == "failed"


def test_a_case_that_is_gone_is_said_to_be_gone():
    with pytest.raises(OptionError, match=r"has no case 'a.case'; the failure is one of suite 0.5. Replay it"):
        replay(failure(suite="0.5"), right())


def test_a_refusal_beforehand_is_no_failure():
    from cnnkit.plugins import Unsupported

    found = failure(draw([Tanh()], (3,), precision="float32"))
    verdict = replay(found, NO_TANH, lambda _: [Unsupported("layers[0]", "tanh", "it cannot")])
    assert verdict.outcome == "refused"


def test_an_optimizer_that_no_file_holds_is_replayed_by_its_case(tmp_path, suite):
    class Own(SGD):
        pass

    question = draw(CLASSIFIER, (4, 5, 2), precision="float32", ask="steps", optimizer=Own(0.1))
    case = suite(case_of(question))
    assert load(save(tmp_path, NO_TANH, case)).question is None
