"""`cnnkit why`, `compare` and `repro`, with small plugins: one that refuses, one that is wrong, one that is not ready."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from cnnkit import plugins
from cnnkit.cli import explaining
from cnnkit.conformance.explore import explored_cases
from cnnkit.conformance.judging import judge
from cnnkit.conformance.repro import save_failure

PICKY = """
from cnnkit.plan import AvgPool2DOp, Conv2DOp
from cnnkit.plugins import Availability, Unsupported, hookimpl

@hookimpl
def cnnkit_probe(device):
    if device not in (None, "cpu"):
        return Availability.no_device(f"has no device {device!r}", 'Use device="cpu"', ["cpu"])
    return Availability.ready(["cpu"])

@hookimpl
def cnnkit_create_backend(device, precision, options):
    import heavy_engine
    import cnnkit
    return object.__new__(type("Picky", (type(cnnkit.get_backend("numpy", precision=precision)),), {}))

@hookimpl
def cnnkit_supports(plan, precision):
    found = [
        Unsupported(f"layers[{op.layer}].dilation", "conv2d.dilation", "its kernels have no holes")
        for op in plan.operations
        if isinstance(op, Conv2DOp) and op.dilation != (1, 1)
    ]
    return found + [Unsupported("precision", "precision.float64", "it is too slow")] * (precision == "float64")
"""

WRONG = """
from dataclasses import dataclass, replace
import cnnkit
from cnnkit.backend import Backend
from cnnkit.plan import ActivationOp
from cnnkit.plugins import Availability, hookimpl

@dataclass(frozen=True)
class Wrong(Backend):
    right: Backend

    def _rewritten(self, plan):
        tanh = lambda op: isinstance(op, ActivationOp) and op.function == "tanh"
        return replace(plan, operations=tuple(replace(op, function="sigmoid") if tanh(op) else op for op in plan.operations))

    def compile(self, plan, parameters):
        return self.right.compile(self._rewritten(plan), parameters)

@hookimpl
def cnnkit_probe(device):
    return Availability.ready(["cpu"])

@hookimpl
def cnnkit_create_backend(device, precision, options):
    return Wrong(cnnkit.get_backend("numpy", precision=precision, **options))
"""

BACK = """
from dataclasses import dataclass
import cnnkit
from cnnkit.backend import Backend
from cnnkit.plugins import Availability, hookimpl

@dataclass(frozen=True)
class Back(Backend):
    right: Backend

    def compile(self, plan, parameters):
        return self.right.compile(plan, parameters)

    def compile_training(self, plan, state, optimizer):
        program = self.right.compile_training(plan, state, optimizer)
        right, wrong = program.gradients, plan.model.layers[0].kind == "conv2d"

        def gradients(images, labels):
            loss, found = right(images, labels)
            return loss, {name: a * a.dtype.type(1.01) if wrong and name[0] == "0" else a for name, a in found.items()}

        program.gradients = gradients
        return program

@hookimpl
def cnnkit_probe(device):
    return Availability.ready(["cpu"])

@hookimpl
def cnnkit_create_backend(device, precision, options):
    return Back(cnnkit.get_backend("numpy", precision=precision, **options))
"""

ABSENT = """
from cnnkit.plugins import Availability, hookimpl

@hookimpl
def cnnkit_probe(device):
    return Availability.missing("fancy", "Install it with: python -m pip install fancy")

@hookimpl
def cnnkit_create_backend(device, precision, options):
    raise AssertionError("it is not ready")
"""

MODEL = """\
version = 1
input_shape = [8, 8, 1]
layers = [
    { kind = "conv2d", filters = 2, kernel_size = 3, dilation = 2 },
    { kind = "tanh" },
    { kind = "flatten" },
    { kind = "dense", units = 3 },
    { kind = "softmax" },
]
"""


def install(site, name, source):
    information = site / f"plug_{name}-1.0.dist-info"
    information.mkdir(parents=True)
    (site / f"plug_{name}.py").write_text(textwrap.dedent(source))
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: plug-{name}\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[cnnkit.backends]\n{name} = plug_{name}\n")


@pytest.fixture
def installed(tmp_path, on_path):
    """The folder in which picky, wrong and absent are installed; and the model file holes.toml is there."""
    site = tmp_path / "site"
    for name, source in (("picky", PICKY), ("wrong", WRONG), ("absent", ABSENT)):
        install(site, name, source)
    on_path(site)
    Path("holes.toml").write_text(MODEL)
    return site


def loaded(done, code):
    """What was printed with --json, whatever the exit code."""
    assert done.code == code, done.err
    return json.loads(done.out, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


# ----------------------------------------------------------------------------------------------------------------- why


@pytest.mark.usefixtures("installed")
def test_why_names_path_feature_reason_and_who_could(cnnkit):
    done = cnnkit("why", "holes.toml", "--backend", "picky")
    assert done.code == 1
    assert "picky: refuses layers[0].dilation: conv2d.dilation: its kernels have no holes" in done.out
    assert "Backends that could: " in done.out
    could = done.out.rpartition("Backends that could: ")[2].strip(".\n").split(", ")
    assert {"numpy", "wrong"} <= set(could)
    assert not {"picky", "absent"} & set(could)
    assert "holes.toml in float32 needs activation.tanh, conv2d, conv2d.dilation, dense, flatten, softmax." in done.out
    assert "To train it with Adam also takes optimizer.adam, training." in done.out


@pytest.mark.usefixtures("installed")
def test_why_as_json(cnnkit):
    found = loaded(cnnkit("why", "holes.toml", "--backend", "picky", "--precision", "float64", "--json"), 1)
    (answer,) = found["backends"]
    assert (answer["name"], answer["state"], answer["runs"], found["ok"]) == ("picky", "ready", False, False)
    assert answer["refuses"] == [
        {"path": "layers[0].dilation", "feature": "conv2d.dilation", "reason": "its kernels have no holes"},
        {"path": "precision", "feature": "precision.float64", "reason": "it is too slow"},
    ]
    assert "numpy" in found["alternatives"]
    assert "precision.float64" in found["needs"]
    assert set(found["to_train"]) - set(found["needs"]) == {"optimizer.adam", "training"}


@pytest.mark.usefixtures("installed")
def test_why_all_asks_every_backend(cnnkit):
    done = cnnkit("why", "seed-tf", "--all")
    assert done.code == 0  # absent is not ready, but others run it
    assert (
        "absent: is not ready (missing-dependency): needs fancy, which is not installed. Install it with: " in done.out
    )
    for name in ("numpy", "picky", "wrong"):
        assert f"{name}: runs it" in done.out
    rows = loaded(cnnkit("why", "seed-tf", "--all", "--json"), 0)["backends"]
    assert [row["name"] for row in rows] == plugins.backend_names()


@pytest.mark.usefixtures("installed")
def test_why_all_fails_where_no_backend_runs_the_model(cnnkit, monkeypatch):
    monkeypatch.setenv("CNNKIT_DISABLE_BACKENDS", "wrong")  # which takes any device
    assert cnnkit("why", "seed-tf", "--all", "--device", "nowhere").code == 1


@pytest.mark.usefixtures("installed")
def test_why_asks_about_the_device(cnnkit):
    assert cnnkit("why", "seed-tf", "--backend", "picky", "--device", "cpu").code == 0
    done = cnnkit("why", "seed-tf", "--backend", "picky", "--device", "gpu")
    assert done.code == 1
    assert "picky: is not ready (no-device): has no device 'gpu'. Use device=\"cpu\"." in done.out
    assert "numpy" in done.out.rpartition("Backends that could: ")[2]


def test_why_of_a_run_and_of_several(cnnkit, model_file, npz):
    assert cnnkit("train", model_file, npz, "--out", "run", "--epochs", 1).code == 0
    found = cnnkit("why", "run", "--backend", "numpy", "--json").json
    assert found["ok"]
    assert "dropout" in found["needs"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed-tf"], "give either --backend NAME, or --all"),
        (["seed-tf", "--all", "--backend", "numpy"], "give either --backend NAME, or --all"),
        (["seed-tf", "--backend", "nump"], "No backend is called 'nump'"),
        (["seed-tf", "--backend", "numpy,numpy"], "expected names with commas between them, each once"),
        (["seed-tf", "--backend", "numpy", "--precision", "half"], "precision is 'half'"),
        (["seed-tff", "--backend", "numpy"], "there is no preset 'seed-tff'"),
    ],
)
def test_why_used_wrongly(cnnkit, arguments, said):
    done = cnnkit("why", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


def test_why_answers_before_an_engine_is_imported(installed):
    (installed / "heavy_engine.py").write_text("")
    script = """
import sys
import cnnkit.cli
sys.argv = ["cnnkit", "why", "holes.toml", "--all"]
try:
    cnnkit.cli.main()
except SystemExit as end:
    assert not end.code, end.code
    print("imported", "heavy_engine" in sys.modules, "plug_picky" in sys.modules)
import cnnkit
cnnkit.get_backend("picky")
print("imported", "heavy_engine" in sys.modules)
"""
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert "picky: refuses layers[0].dilation" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["imported False True", "imported True"]


LEDGER = """
from pathlib import Path

@hookimpl
def cnnkit_deviations():
    return Path(__file__).with_name("picky.toml")
"""

ENTRY = """
[[deviation]]
feature = "{}"
kind = "refuses"
reason = "Not written yet"
issue = "https://example.org/4"
expiry = 2999-01-01
"""


@pytest.fixture
def ledger(installed):
    """A function that writes the ledger of picky."""
    module = installed / "plug_picky.py"
    module.write_text(module.read_text() + LEDGER)
    return lambda *parts: (installed / "picky.toml").write_text("version = 1\n" + "".join(parts))


def test_why_says_who_predicts_only(cnnkit, ledger):
    ledger('level = "inference"\n')
    done = cnnkit("why", "seed-tf", "--backend", "picky,numpy")
    assert done.code == 0
    assert done.out.splitlines()[-2:] == ["picky: runs it, but predicts only", "numpy: runs it"]
    one, other = loaded(cnnkit("why", "seed-tf", "--backend", "picky,numpy", "--json"), 0)["backends"]
    assert (one["runs"], one["ledger"]["level"], other["ledger"]["level"]) == (True, "inference", "training")
    (none,) = loaded(cnnkit("why", "seed-tf", "--backend", "wrong", "--json"), 0)["backends"]
    assert none["ledger"] is None


def test_why_reads_what_the_ledger_refuses(cnnkit, ledger):
    ledger(*map(ENTRY.format, ("conv2d", "conv2d.dilation", "grayscale", "optimizer.adam", "optimizer.sgd")))
    done = cnnkit("why", "seed-tf", "--backend", "picky")
    assert done.code == 1
    assert "picky: refuses, as its ledger says, conv2d: Not written yet\n" in done.out
    assert "picky: does not train it, as its ledger says, optimizer.adam: Not written yet\n" in done.out
    assert done.out.count("picky:") == 2  # the others are not needed
    assert "picky" not in done.out.rpartition("could: ")[2]
    (answer,) = loaded(cnnkit("why", "seed-tf", "--backend", "picky", "--json"), 1)["backends"]
    said = {"reason": "Not written yet", "issue": "https://example.org/4"}
    assert not answer["runs"]
    assert answer["ledger"]["refuses"] == [{"feature": "conv2d", **said}]
    assert answer["ledger"]["does_not_train"] == [{"feature": "optimizer.adam", **said}]
    assert answer["ledger"]["problems"] == []


def test_why_of_a_backend_that_does_not_train_with_an_optimizer_still_runs_it(cnnkit, ledger):
    ledger(ENTRY.format("optimizer.adam"))
    done = cnnkit("why", "seed-tf", "--backend", "picky")
    assert done.code == 0
    assert "picky: runs it\npicky: does not train it, as its ledger says, optimizer.adam" in done.out


def test_why_names_a_refusal_once_where_hook_and_ledger_have_it(cnnkit, ledger):
    ledger(ENTRY.format("conv2d.dilation"))
    done = cnnkit("why", "holes.toml", "--backend", "picky")
    assert done.out.count("picky:") == 1
    assert "picky: refuses layers[0].dilation" in done.out


def test_why_says_that_a_ledger_is_wrong(cnnkit, ledger, installed):
    ledger("what is this\n")
    done = cnnkit("why", "seed-tf", "--backend", "picky")
    assert done.code == 0
    assert f"picky: has a ledger that is wrong: {installed / 'picky.toml'}: it cannot be read" in done.out
    (installed / "picky.toml").unlink()
    assert "but there is none" in cnnkit("why", "seed-tf", "--backend", "picky").out


# ------------------------------------------------------------------------------------------------------------- compare


@pytest.mark.usefixtures("installed")
def test_compare_names_the_first_layer_that_is_wrong(cnnkit, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    done = cnnkit("compare", "holes.toml", "--backends", "numpy,wrong")
    assert done.code == 1
    assert "wrong parts from what is right at layer 1 (tanh): output[" in done.out
    assert "units" in done.out
    assert "numpy parts" not in done.out
    assert "Without gradients, since they only predict: wrong." in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    (tanh,) = [line.split() for line in done.out.splitlines() if line.split()[1:2] == ["tanh"]]
    assert tanh[:2] == ["1", "tanh"]
    assert float(tanh[2]) < 10
    assert tanh[3] == ">"


@pytest.mark.usefixtures("installed")
def test_compare_shows_a_refusal_and_its_reason(cnnkit, installed):
    (installed / "heavy_engine.py").write_text("")
    done = cnnkit("compare", "holes.toml", "--backends", "numpy,picky")
    assert done.code == 1
    assert "picky refuses the model at layer 0 (conv2d): layers[0].dilation needs conv2d.dilation: its" in done.out


def test_compare_of_backends_that_agree(cnnkit):
    done = cnnkit("compare", "mlp-1h", "--backends", "numpy", "--precision", "float64")
    assert done.code == 0
    assert "numpy agrees with what is right: the worst error is" in done.out
    found = cnnkit("compare", "mlp-1h", "--backends", "numpy", "--batch", 2, "--seed", 3, "--json").json
    assert (found["agree"], found["batch"], found["partings"], found["threshold"]) == (True, 2, {}, 128)
    assert all(row["backends"]["numpy"]["outcome"] == "agrees" for row in found["rows"])
    assert {row["direction"] for row in found["rows"]} == {"forward", "backward"}


@pytest.mark.usefixtures("installed")
def test_compare_names_a_layer_on_the_way_back_and_says_what_is_unseen(cnnkit, installed, monkeypatch):
    monkeypatch.setenv("COLUMNS", "400")
    install(installed, "back", BACK)
    done = cnnkit("compare", "holes.toml", "--backends", "numpy,back", "--set", "threads=1")
    assert done.code == 1
    assert "back parts from what is right at layer 0 on the way back (gradient of 0.bias): " in done.out
    assert "? could not be seen, for what would show it is itself wrong" in done.out
    wrong = cnnkit("compare", "holes.toml", "--backends", "numpy", "--set", "nothing=1")
    assert (wrong.code, wrong.out) == (2, "")
    assert "nothing" in wrong.err


@pytest.mark.usefixtures("installed")
def test_compare_on_data_and_on_what_a_run_has_learned(cnnkit, model_file, npz):
    found = loaded(
        cnnkit("compare", "holes.toml", "--backends", "numpy,wrong", "--data", npz, "--batch", 5, "--json"), 1
    )
    assert (found["batch"], found["partings"]["wrong"]["layer"]) == (5, 1)
    assert cnnkit("compare", "seed-numpy", "--backends", "numpy", "--data", npz).code == 0  # 8 x 8 images
    assert cnnkit("train", model_file, npz, "--out", "run", "--epochs", 1).code == 0
    assert cnnkit("compare", "run", "--backends", "numpy", "--data", npz, "--precision", "float64").code == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["seed-tf", "--backends", "numpy,"], "backends are 'numpy,'; expected names with commas"),
        (["seed-tf", "--backends", "none"], "No backend is called 'none'"),
        (["seed-tf", "--backends", "numpy", "--data", "nothing"], "nothing"),
        (["nothing.toml", "--backends", "numpy"], "nothing.toml cannot be read"),
    ],
)
def test_compare_used_wrongly(cnnkit, arguments, said):
    done = cnnkit("compare", *arguments)
    assert (done.code, done.out) == (2, "")
    assert said in done.err


# --------------------------------------------------------------------------------------------------------------- repro


@pytest.fixture
def failure(installed):
    """A file with a failure of the backend `wrong`: its tanh is none."""
    assert installed
    backend = plugins.get_backend("wrong")
    for case in explored_cases(40, seed=9):
        verdict = judge(case, backend)
        if verdict.stage == "compare":
            return save_failure(
                Path("failures"),
                case_id=case.id,
                precision="float32",
                backend_name="wrong",
                backend=backend,
                refuses=None,
                verdict=verdict,
            )
    raise AssertionError("no case fails")


def test_repro_fails_again_on_the_backend_that_failed(cnnkit, failure, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    done = cnnkit("repro", failure)
    assert done.code == 1
    lines = dict(re.split("  +", line.strip(), maxsplit=1) for line in done.out.splitlines())
    assert lines["case"].startswith("explore.9.")
    assert "random model" in lines["claim"]
    assert lines["question"].startswith("predict 1 ")
    assert lines["question"].endswith("tanh")
    assert lines["then, wrong in float32"] == lines["now, wrong in float32"]
    assert "expected" in lines["now, wrong in float32"]
    assert "units" in lines["now, wrong in float32"]


def test_repro_passes_on_a_right_backend(cnnkit, failure):
    done = cnnkit("repro", failure, "--backend", "numpy", "--precision", "float64")
    assert done.code == 0
    assert "now, numpy in float64   passes; the worst error is" in done.out
    found = cnnkit("repro", failure, "--backend", "numpy", "--json").json
    assert (found["outcome"], found["backend"], found["precision"]) == ("passed", "numpy", "float32")
    assert found["then"]["backend"] == "wrong"
    wrong = loaded(cnnkit("repro", failure, "--backend", "wrong", "--set", "threads=1", "--json"), 1)
    assert (wrong["outcome"], wrong["stage"]) == ("failed", "compare")
    assert wrong["units"] > wrong["threshold"]


@pytest.mark.parametrize(
    ("deed", "says"),
    [
        ("os._exit(0)", "fails: crash: the process ended itself with exit code 0"),
        ("print('loud'); os.abort()", "fails: crash: the process was ended by SIGABRT"),
        ("time.sleep(60)", "fails: timeout: the process gave no answer within 3 s and was killed"),
        ("raise KeyboardInterrupt", "fails: run: KeyboardInterrupt"),
    ],
)
def test_repro_of_what_takes_the_process_with_it_does_not_pass(cnnkit, failure, installed, monkeypatch, deed, says):
    monkeypatch.setattr(explaining, "REPLAY_LIMIT", 3.0)
    program = f"    def compile(self, plan, parameters):\n        import os, time\n        {deed}\n"
    install(
        installed,
        "fatal",
        WRONG.split("    def compile", 1)[0] + program + "\n@hookimpl" + WRONG.split("@hookimpl", 1)[1],
    )
    done = cnnkit("repro", failure, "--backend", "fatal")
    assert done.code == 1
    assert says in done.out + done.err
    assert "Traceback" not in done.err


def test_repro_of_a_refusal_does_not_pass(cnnkit, failure, installed):
    (installed / "heavy_engine.py").write_text("")
    done = cnnkit("repro", failure, "--backend", "picky", "--precision", "float64")
    assert done.code == 1
    assert "now, picky in float64   refuses it: precision needs precision.float64: it is too slow" in done.out


def test_repro_runs_the_case_where_there_is_no_question(cnnkit):
    data = {"format": 1, "suite": "1.0", "case": "explore.9.05", "precision": "float32", "backend": "numpy"}
    Path("f.json").write_text(json.dumps({**data, "stage": "compare", "message": "wrong"}))
    done = cnnkit("repro", "f.json")
    assert done.code == 0
    assert "that case" in done.out


@pytest.mark.parametrize("text", ["{}", "[]", "no json"])
def test_repro_of_what_is_no_failure(cnnkit, text):
    Path("f.json").write_text(text)
    done = cnnkit("repro", "f.json", "--backend", "numpy")
    assert (done.code, done.out) == (2, "")
    assert "f.json" in done.err


def test_repro_without_a_file_or_with_an_unknown_backend(cnnkit, failure):
    assert cnnkit("repro", "none.json").code == 2
    done = cnnkit("repro", failure, "--backend", "nump")
    assert (done.code, done.out) == (2, "")


def test_the_words_for_a_question_that_trains():
    from cnnkit import SGD, Dense, Softmax
    from cnnkit.cli.explaining import _question_in_words
    from cnnkit.conformance.question import draw

    question = draw(
        [Dense(units=2), Softmax()], (3,), precision="float32", ask="steps", optimizer=SGD(0.1), batch_size=1
    )
    words = _question_in_words(question)
    assert words.startswith("train 2 steps with SGD(learning_rate=0.1")
    assert words.endswith("on 2 float32 images with 8 parameters: 3, dense 2, softmax")
    assert np.size(question.images) == 6
