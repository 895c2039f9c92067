"""The tier `plan`: a right plugin passes it without its device, and each broken one is red at the case meant for it."""

import re
from pathlib import Path

import pytest

import cnnkit
from cnnkit import plugins
from cnnkit.backend import Backend
from cnnkit.conformance import listening, refusals, run
from cnnkit.conformance.judging import judge, judge_on
from cnnkit.conformance.planning import is_place, plan_cases
from cnnkit.conformance.plugin_subject import PluginSubject, can_be_planned
from cnnkit.conformance.selection import suite_cases
from cnnkit.errors import BackendOptionError, OptionError
from cnnkit.features import features_of
from cnnkit.model import Conv2D, Flatten, Model

RIGHT = (Path(__file__).parent.parent / "plugins" / "planned" / "cnnkit_planned" / "__init__.py").read_text()
DEVICE = {"probe.own-choice", "probe.listed", "probe.no-such-device", "create.no-device"}


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for variable in ("CNNKIT_BACKEND", "CNNKIT_DISABLE_BACKENDS", "CNNKIT_PROBE_TIMEOUT"):
        monkeypatch.delenv(variable, raising=False)
    refusals.refuses.cache_clear()


@pytest.fixture
def install(tmp_path, on_path):
    """A function that installs the plugin `broken`: the right one, with some of its text replaced."""

    def write(changes=(), *, added="", ledger=""):
        text = RIGHT
        for old, new in changes:
            assert text.count(old) >= 1, old
            text = text.replace(old, new)
        if ledger:
            (tmp_path / "conformance.toml").write_text(f"version = 1\n{ledger}")
            added += (
                "\n\nfrom pathlib import Path\n\n@hookimpl\ndef cnnkit_deviations():\n"
                "    return Path(__file__).with_name('conformance.toml')\n"
            )
        (tmp_path / "cnnkit_broken.py").write_text(text + added)
        information = tmp_path / "cnnkit_broken-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: cnnkit-broken\nVersion: 1.0\n")
        (information / "entry_points.txt").write_text("[cnnkit.backends]\nbroken = cnnkit_broken\n")
        on_path(tmp_path)
        return "broken"

    return write


def judged(name, *, only=".", precision="float32", device=None, options=None):
    """What becomes of the cases of the tier whose ids match, in this process, by their ids."""
    subject = PluginSubject(name, device, precision, options or {}, plugins.status(name, device))
    return {case.id: judge_on(case, subject) for case in plan_cases() if re.match(only, case.id)}


def failing(verdicts):
    return {name: verdict for name, verdict in verdicts.items() if verdict.outcome == "failed"}


def cases_with(feature):
    return {case.id for case in plan_cases() if feature in case.features}


# ----------------------------------------------------------------------------------------------------- what there is


def test_every_plan_that_a_case_compiles_is_heard_and_nothing_else():
    inner = cnnkit.get_backend("numpy")
    compiled = []

    class Recording(Backend):
        def compile(self, plan, parameters):
            compiled.append((plan, None))
            return inner.compile(plan, parameters)

        def compile_training(self, plan, state, optimizer):
            plan.require_trainable()
            compiled.append((plan, optimizer))
            return inner.compile_training(plan, state, optimizer)

    areas = ("conduct.", "relation.", "v46.", "company.")
    cases = [case for number, case in enumerate(suite_cases()) if number % 9 == 0 or case.id.startswith(areas)]
    several = 0
    for case in cases:
        if "float32" not in case.precisions:
            continue
        compiled.clear()
        judge(case, Recording())
        heard = listening.heard_in([case])
        assert [(one.plan, one.optimizer) for one in heard] == list(dict.fromkeys(compiled)), case.id
        assert {one.case for one in heard} <= {case.id}
        several += len(heard) > 1
    assert several > 5


def test_every_plan_of_the_suite_is_in_one_case_of_its_features():
    heard = listening.heard_in(suite_cases())
    assert len(heard) == len({(one.plan, one.optimizer) for one in heard}) > 1000
    rehearsals = [case for case in plan_cases() if case.id.startswith("rehearse.")]
    assert len(rehearsals) == len({case.features for case in rehearsals})
    assert {feature for case in rehearsals for feature in case.features} == {
        feature for case in suite_cases() for feature in case.features
    }
    assert {case.level for case in rehearsals if "training" in case.features} == {"training"}
    assert {case.level for case in rehearsals if "training" not in case.features} == {"inference"}
    assert {case.tier for case in plan_cases()} == {"plan"}


def test_models_of_explore_are_planned_too():
    assert len(listening.heard_in(suite_cases(3, 1))) > len(listening.heard_in(suite_cases()))


# ------------------------------------------------------------------------------------------------- right and wrong


def test_a_backend_passes_without_its_device_and_the_report_is_no_green_one(plugin_folder, on_path):
    on_path(plugin_folder)
    report = run("planned", tier="plan")
    assert (report.tier, report.verdict, report.reasons) == ("plan", "plan", ())
    assert (report.green, report.red, report.partial, report.planned) == (False, False, False, True)
    assert {case.id for case in report.cases} == {case.id for case in plan_cases()}
    assert {case.id for case in report.cases if case.outcome == "refused"} == cases_with("conv2d.dilation")
    assert report.counts["passed"] + report.counts["refused"] == len(report.cases) == 2 * len(plan_cases())
    assert (report.device, report.device_given) == (None, False)
    assert report.probed == "no-device: finds no chip"
    assert report.compiled_for == ("chip-1", "chip-2")
    assert {"Conv2DOp", "SoftmaxOp"} <= set(report.kernels)
    assert {case.units for case in report.cases} == {None}
    assert report.platform
    assert report.started.endswith("+00:00")


def test_without_its_device_a_backend_is_red_in_the_tier_run_and_is_told_of_the_other(plugin_folder, on_path):
    on_path(plugin_folder)
    report = run("planned", only="dense.forward.square")
    assert (report.tier, report.verdict) == ("run", "red")
    [failure] = report.failures
    assert (failure.stage, failure.error) == ("load", "no-device")
    says = "The device is not here: `cnnkit conformance planned --tier plan` says what can be said without it."
    assert report.reasons[0] == "Backend 'planned' could not be loaded: the first failure says why."
    assert report.reasons[-1] == says
    assert not any("--tier plan" in reason for reason in run("null", only="dense.forward.square").reasons)


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_a_backend_that_is_ready_and_has_no_hook_is_rehearsed_by_compiling(precision):
    verdicts = judged("numpy", only=r"probe|create|rehearse\.(dense|optimizer)", precision=precision)
    assert {verdict.outcome for verdict in verdicts.values()} == {"passed"}
    assert len(verdicts) > 10
    with pytest.raises(BackendOptionError, match="'numpy' has no option 'treads'"):
        PluginSubject("numpy", None, precision, {"treads": 2}, plugins.status("numpy")).require_options()


def test_what_a_backend_without_the_hook_refuses_beforehand_is_not_compiled(plugin_folder, on_path):
    on_path(plugin_folder)
    dilated = judged("declared", only=r"rehearse\.conv2d\.forward")
    refused = {name for name, verdict in dilated.items() if verdict.outcome == "refused"}
    assert refused == cases_with("conv2d.dilation") & dilated.keys()
    assert refused
    assert not failing(dilated)
    undeclared = failing(judged("refusing", only=r"rehearse\.conv2d\.forward"))
    assert undeclared.keys() == refused
    assert {verdict.stage for verdict in undeclared.values()} == {"refuse"}


NOT_READY = 'return Availability.no_device(f"has no device {device!r}", "Use device=\'chip\'")'

BROKEN = {
    "its probe raises": (
        [('if device not in (None, "chip"):\n', "if device:\n        raise RuntimeError('no driver')\n    if 0:\n")],
        {"probe.no-such-device", "create.no-device"},
        "cnnkit_probe, asked about the device 'no-such-device': its probe raised RuntimeError: no driver",
    ),
    "its probe always raises": (
        [('if device not in (None, "chip"):\n', "raise RuntimeError('no driver')\n    if 0:\n")],
        DEVICE,
        "its probe raised RuntimeError: no driver",
    ),
    "its probe answers nothing": (
        [("return Availability.no_device(REASON, FIX)", "return None")],
        {"probe.own-choice", "probe.listed", "create.no-device"},
        "its probe returned None, which is no Availability",
    ),
    "its probe gives no reason": (
        [("return Availability.no_device(REASON, FIX)", "return Availability.no_device('', FIX)")],
        {"probe.own-choice", "probe.listed", "create.no-device"},
        "answers 'no-device' and gives no reason",
    ),
    "its probe names no fix": (
        [(NOT_READY, "return Availability.no_device('has none', '')")],
        {"probe.no-such-device", "create.no-device"},
        "answers 'no-device' and says of no fix",
    ),
    "its probe is ready for anything": (
        [(NOT_READY, "return Availability.ready()")],
        {"probe.no-such-device"},
        "whoever asks for a device that is not there runs elsewhere",
    ),
    "it falls back silently": (
        [("raise unavailable(BackendStatus(", "return plugins.get_backend('numpy')\n    ("), ("REASON, FIX))", "REASON, FIX)")],
        {"create.no-device"},
        r"cnnkit_create_backend makes .* although the probe answers 'no-device' \(finds no chip\): it falls back silently",
    ),
    "its creation raises what an engine raises": (
        [("raise unavailable(BackendStatus(", "raise OSError("), ("REASON, FIX))", "REASON, FIX)")],
        {"create.no-device"},
        "cnnkit_create_backend without its device raises no error of cnnkit.errors: .*OSError",
    ),
    "its creation blames the caller": (
        [("raise unavailable(BackendStatus(", "raise OptionError("), ("REASON, FIX))", "REASON, FIX)")],
        {"create.no-device"},
        "raises OptionError: .*; expected BackendUnavailable",
    ),
    "it takes any option": (
        [('    reject_unknown_options("planned", options, known=["streams"])\n', "")],
        {"create.options"},
        "cnnkit_rehearse takes the option 'no_such_option'; expected BackendOptionError",
    ),
    "it says of an option only that it is wrong": (
        [('reject_unknown_options("planned", options, known=["streams"])', "[oops() for name in options]")],
        {"create.options"},
        "says 'wrong option', without no_such_option",
    ),
    "its option is another error": (
        [('reject_unknown_options("planned", options, known=["streams"])', "[oops(OptionError) for name in options]")],
        {"create.options"},
        "raises OptionError; expected BackendOptionError",
    ),
    "it refuses a place that is not there": (
        [('f"layers[{op.layer}].dilation"', "'layers[99].dilation'")],
        {"supports.answers"},
        r"layers\[99\].*has no such place",
    ),
    "it refuses without a reason": (
        [("there is no kernel for it", " ")],
        {"supports.answers"},
        "which has no reason",
    ),
    "it refuses something that has no name": (
        [('f"layers[{op.layer}].dilation", "conv2d.dilation"', "'', 'holes'")],
        {"supports.answers"},
        "names neither a feature id .* nor a place in the model",
    ),
    "it keeps memory for what it is asked": (
        [("def cnnkit_supports(plan):\n", "def cnnkit_supports(plan):\n    KEPT.append(bytes(10_000))\n")],
        {"supports.keeps-nothing"},
        r"after cnnkit_supports has answered about \d+ plans, [\d,]+ bytes more are held; expected at most 1,048,576",
    ),
    "its hook and its refusals disagree": (
        [("    for one in refused(plan):\n        raise UnsupportedModel", "    for one in []:\n        raise UnsupportedModel")],
        cases_with("conv2d.dilation"),
        r"cnnkit_supports says that layers\[\d+\]\.dilation needs conv2d\.dilation: .*; cnnkit_rehearse does not refuse it",
    ),
    "it refuses only in the rehearsal": (
        [("def cnnkit_supports(plan):\n    return refused(plan)", "def cnnkit_supports(plan):\n    return []")],
        cases_with("conv2d.dilation"),
        "needs conv2d.dilation: there is no kernel for it. Neither cnnkit_supports nor the ledger said so beforehand",
    ),
    "its rehearsal raises what an engine raises": (
        [("    size = 8", "    1 / ('Adam(' not in repr(optimizer))\n    size = 8")],
        cases_with("optimizer.adam") - cases_with("conv2d.dilation"),
        "its cnnkit_rehearse raised ZeroDivisionError",
    ),
    "it forgets a shape": (
        [("for op in plan.operations]\n    copies", "for op in plan.operations][1:]\n    copies")],
        {case.id for case in plan_cases() if case.id.startswith("rehearse.")} - cases_with("conv2d.dilation"),
        "has 1 operations; the rehearsal has 0 shapes",
    ),
    "it takes parameters for nothing": (
        [("bytes_fixed=size * copies", "bytes_fixed=4 * size * (optimizer is not None) + 0 * size")],
        None,
        "bytes_fixed is .*, but parameters and slots alone take",
    ),
    "it takes images for nothing": (
        [("bytes_per_image=size * sum(map(math.prod, [plan.input_shape, *shapes]))", "bytes_per_image=1")],
        None,
        "bytes_per_image is 1, but an image alone takes",
    ),
}  # fmt: skip

HELP = """

import cnnkit
from cnnkit import plugins
from cnnkit.errors import BackendOptionError, OptionError

KEPT = []


def oops(kind=BackendOptionError):
    raise kind("wrong option")
"""


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_plugin_is_red_at_the_case_meant_for_it_and_nowhere_else(install, how):
    changes, meant, says = BROKEN[how]
    failures = failing(judged(install(changes, added=HELP)))
    if meant is not None:
        assert failures.keys() == meant
    assert failures
    assert all(re.search(says, verdict.message) for verdict in failures.values() if "operations" not in verdict.message)
    assert any(re.search(says, verdict.message) for verdict in failures.values())


def test_the_plugin_that_the_broken_ones_are_made_of_is_right(install):
    verdicts = judged(install(added=HELP))
    assert not failing(verdicts)
    assert {name for name, verdict in verdicts.items() if verdict.outcome == "refused"} == cases_with("conv2d.dilation")


def test_one_model_that_is_refused_among_others_is_not_overlooked(install):
    """Rows of an odd number, say, which no feature names."""
    odd = [("    size = 8", "    plan.input_shape[0] % 2 == 0 or odd()\n    size = 8")]
    more = "\n\ndef odd():\n    raise UnsupportedModel('broken', 'input_shape', 'odd', 'only even ones')\n"
    failures = failing(judged(install(odd, added=more)))
    with_odd = {
        features_of(one.plan, one.optimizer)
        for one in listening.heard_in(suite_cases())
        if one.plan.input_shape[0] % 2 and "conv2d.dilation" not in features_of(one.plan)
    }
    assert failures.keys() == {case.id for case in plan_cases() if case.features in with_odd}
    assert {(verdict.stage, verdict.feature) for verdict in failures.values()} == {("refuse", "odd")}


def test_a_layout_of_its_own_is_found_wherever_it_can_be_seen(install):
    turned = [("shapes = [op.output_shape", "shapes = [op.output_shape[::-1]")]
    failures = failing(judged(install(turned)))
    visible = {
        features_of(one.plan, one.optimizer)
        for one in listening.heard_in(suite_cases())
        if any(op.output_shape != op.output_shape[::-1] for op in one.plan.operations)
    }
    assert failures.keys() == {case.id for case in plan_cases() if case.features in visible} - cases_with(
        "conv2d.dilation"
    )
    pattern = r"the model of .*: operation \d+ \(\w+, layers\[\d+\]\) gives \(.*\); expected \(.*\)"
    assert all(re.fullmatch(pattern, verdict.message) for verdict in failures.values())


def test_a_backend_with_neither_hook_nor_device_is_told_to_write_the_hook(install):
    hookless = [("@hookimpl\ndef cnnkit_rehearse", "def cnnkit_rehearse")]
    failures = failing(judged(install(hookless)))
    dilated = cases_with("conv2d.dilation")
    rehearsals = {case.id for case in plan_cases() if case.id.startswith("rehearse.")}
    assert failures.keys() == {"create.options"} | (rehearsals - dilated)
    assert all("has no hook cnnkit_rehearse" in verdict.message for verdict in failures.values())
    assert all("Write the hook" in verdict.message for verdict in failures.values())


def test_a_ready_backend_has_every_device_that_it_lists(install):
    ready = [("return Availability.no_device(REASON, FIX)", "return Availability.ready(['chip', 'chip:1'])")]
    verdicts = judged(install(ready), only="probe")
    [(name, verdict)] = failing(verdicts).items()
    assert name == "probe.listed"
    assert verdict.message == (
        "cnnkit_probe is ready and lists the device 'chip:1', but asked about it answers 'no-device': has no device 'chip:1'"
    )


def test_options_of_the_run_are_known_and_have_to_be_listed(install):
    assert not failing(judged(install(), only=r"create|rehearse\.dense\.forward", options={"streams": 2}))


def test_a_wrong_option_of_the_run_is_an_error_and_no_finding(install):
    name = install()
    with pytest.raises(BackendOptionError, match="Backend 'planned' has no option 'streems'; its options are streams"):
        run(name, tier="plan", only="probe.*", options={"streems": 2})


# ------------------------------------------------------------------------------------------- processes, and the ledger


def test_a_rehearsal_that_ends_its_process_fails_its_case_and_the_run_goes_on(install):
    crash = [("    size = 8", "    import os\n    'DropoutOp' in repr(plan.operations) and os._exit(3)\n    size = 8")]
    names = [case.id for case in plan_cases() if case.id.startswith("rehearse.")]
    dropout = next(name for name in names if name in cases_with("dropout"))
    [before, *_, after] = (name for name in names if name not in cases_with("dropout") | cases_with("conv2d.dilation"))
    report = run(install(crash), tier="plan", precisions=["float32"], only=[before, dropout, after])
    assert [(case.id, case.stage, case.error, case.repro) for case in report.failures] == [
        (dropout, "crash", "exit code 3", None)
    ]
    assert report.counts["passed"] == 2


def test_a_probe_that_hangs_is_red_at_its_case(plugin_folder, on_path, monkeypatch):
    on_path(plugin_folder)
    monkeypatch.setenv("CNNKIT_PROBE_TIMEOUT", "0.5")
    [failure] = run("slow", tier="plan", precisions=["float32"], only=["probe.own-choice"]).failures
    assert failure.message == "cnnkit_probe, asked about no device in particular: did not answer within 0.5 s"


@pytest.mark.parametrize("name", ["broken-import", "missing-dependency", "duplicate", "future"])
def test_a_plugin_that_cannot_be_loaded_is_red_in_either_tier(plugin_folder, on_path, name):
    on_path(plugin_folder)
    assert not can_be_planned(plugins.status(name))
    if name == "broken-import":
        report = run(name, tier="plan")
        [failure] = report.failures
        assert (failure.stage, failure.id) == ("load", "probe.own-choice")
        assert report.red


def test_a_feature_that_the_ledger_refuses_may_be_refused_in_the_rehearsal(install):
    silent = [
        ("def cnnkit_supports(plan):\n    return refused(plan)", "def cnnkit_supports(plan):\n    return []"),
    ]
    entry = (
        '[[deviation]]\nfeature = "{}"\nkind = "refuses"\nreason = "r"\nissue = "https://example.org/1"\n'
        "expiry = 2999-01-01\n"
    )
    ledger = entry.format("conv2d.dilation") + entry.format("optimizer.adamw")
    report = run(install(silent, ledger=ledger), tier="plan")
    assert report.counts["failed"] == 0
    assert {case.id for case in report.cases if case.outcome == "refused"} == cases_with("conv2d.dilation")
    [problem] = report.ledger_problems
    assert problem.endswith("feature optimizer.adamw: no case that needs it was refused for it. Remove the entry.")


def test_a_precision_that_the_backend_does_not_have_is_refused_as_the_ledger_says(install):
    only32 = [("    size = 8", "    precision == 'float32' or half()\n    size = 8")]
    more = "\n\nfrom cnnkit.errors import BackendOptionError\n\n\ndef half():\n    raise BackendOptionError('no float64')\n"
    ledger = (
        '[[deviation]]\nfeature = "precision.float64"\nkind = "refuses"\nreason = "r"\n'
        'issue = "https://example.org/1"\nexpiry = 2999-01-01\n'
    )
    report = run(install(only32, added=more, ledger=ledger), tier="plan")
    assert (report.verdict, report.reasons) == ("plan", ())
    assert {case.outcome for case in report.cases if case.precision == "float64"} == {"refused"}


def test_a_plan_of_a_backend_that_is_ready_names_no_device_that_it_ran_on():
    report = run("numpy", tier="plan", precisions=["float32"], only=["probe.*"])
    assert (report.device, report.device_given, report.probed) == (None, False, "ready")
    asked = run("numpy", tier="plan", precisions=["float32"], only=["probe.*"], device="cpu")
    assert (asked.device, asked.device_given) == ("cpu", True)
    assert run("numpy", precisions=["float32"], only=["dense.forward.square"]).probed == "ready"


def test_a_backend_that_only_predicts_is_planned_at_its_level(install):
    predicts = [
        (
            "    size = 8",
            "    if optimizer is not None:\n        raise TrainingNotSupported('only predicts')\n    size = 8",
        )
    ]
    more = "\n\nfrom cnnkit.errors import TrainingNotSupported\n"
    name = install(predicts, added=more, ledger='level = "inference"\n')
    report = run(name, tier="plan", precisions=["float32"])
    assert (report.verdict, report.level) == ("plan", "inference")
    asked = run(name, tier="plan", level="training", precisions=["float32"], only=["rehearse.optimizer.*"])
    assert {(case.stage, case.error) for case in asked.failures} == {("refuse", "TrainingNotSupported")}
    assert any("only predicts" in reason for reason in asked.reasons)


# -------------------------------------------------------------------------------------------------------- wrong use


def test_a_tier_that_there_is_not_and_a_ledger_to_rewrite_are_wrong_use():
    with pytest.raises(OptionError, match="tier is 'dream'; expected one of plan, run"):
        run("numpy", tier="dream")
    from cnnkit.conformance.runner import Settings

    with pytest.raises(OptionError, match="the ledger tells of what the tier run finds"):
        Settings(name="numpy", tier="plan", needs_ledger=True)


@pytest.mark.parametrize(
    ("path", "there"),
    [
        ("layers[0]", True),
        ("layers[0].dilation", True),
        ("layers[1].dilation", False),
        ("layers[2]", False),
        ("input_shape", True),
        ("outputs", False),
        ("layers[0].dilation.x", False),
        ("layers[-1]", False),
    ],
)
def test_a_place_is_a_layer_or_a_field_of_the_model(path, there):
    plan = Model(input_shape=(5, 4, 1), layers=[Conv2D(filters=2, kernel_size=2), Flatten()]).plan()
    assert is_place(plan, path) == there
