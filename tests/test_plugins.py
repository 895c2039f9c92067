"""The plugin host, with the real distributions of tests/plugins, and with small ones written where a test needs them."""

import inspect
import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import cnnkit.plugins
from cnnkit.backend import Backend
from cnnkit.errors import (
    BackendError,
    BackendNotFound,
    BackendOptionError,
    BackendUnavailable,
    OptionError,
    UnsupportedModel,
)
from cnnkit.model import Conv2D, Dense, Flatten, Model, Softmax
from cnnkit.optimizers import SGD
from cnnkit.plugins import (
    STATES,
    Availability,
    BackendStatus,
    Hooks,
    Rehearsal,
    availability,
    backend_names,
    backends,
    deviations,
    get_backend,
    own_precisions,
    rehearsals,
    reject_unknown_options,
    require_support,
    status,
    unsupported,
)
from cnnkit.state import initial_state, same_state

PLAN = Model(
    input_shape=(5, 4, 1),
    layers=[Conv2D(filters=2, kernel_size=2, dilation=2), Flatten(), Dense(units=3), Softmax()],
).plan()


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for variable in ("CNNKIT_BACKEND", "CNNKIT_DISABLE_BACKENDS", "CNNKIT_PROBE_TIMEOUT"):
        monkeypatch.delenv(variable, raising=False)


# ------------------------------------------------------------------------------- the distributions of tests/plugins

FACTS = """
import json, sys, time
from cnnkit import plugins

def imported(*packages):
    return sorted(name for name in sys.modules if name.partition(".")[0] in packages)

names = plugins.backend_names()
ours = [name for name in sys.modules if name.startswith("cnnkit_")]
start = time.monotonic()
statuses = plugins.backends()
print(json.dumps({
    "names": names,
    "plugins_imported_for_names": ours,
    "seconds": time.monotonic() - start,
    "engines_imported": imported("tensorflow", "cupy", "torch"),
    "statuses": {name: found.to_dict() for name, found in statuses.items()},
    "root_causes": {name: type(found.root_cause).__name__ for name, found in statuses.items()},
}))
"""
TIME_LIMIT = 4


@pytest.fixture(scope="module")
def facts(plugin_folder, tmp_path_factory):
    """What a fresh interpreter says that has all of tests/plugins and stand-ins for three engines."""
    engines = tmp_path_factory.mktemp("engines")
    for engine in ("tensorflow", "cupy", "torch"):
        (engines / f"{engine}.py").write_text("")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CNNKIT_")}
    environment |= {
        "PYTHONPATH": os.pathsep.join([str(plugin_folder), str(engines)]),
        "CNNKIT_PROBE_TIMEOUT": str(TIME_LIMIT),
    }
    done = subprocess.run(
        [sys.executable, "-c", FACTS], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    return json.loads(done.stdout)


def test_names_are_listed_alphabetically_without_importing_any_plugin(facts):
    folders = {path.name for path in (Path(__file__).parent / "plugins").iterdir()}
    expected = {folder.replace("_", "-") for folder in folders} - {"duplicate-a", "duplicate-b"} | {"duplicate"}
    assert expected | {"numpy"} <= set(facts["names"])
    assert facts["names"] == sorted(facts["names"]) == list(facts["statuses"])
    assert facts["plugins_imported_for_names"] == []


def test_asking_every_backend_imports_no_engine(facts):
    assert facts["engines_imported"] == []


@pytest.mark.parametrize(
    ("name", "state", "reason", "fix"),
    [
        (
            "broken-import",
            "broken",
            "cannot be imported: RuntimeError: the engine is not set up (caused by KeyError: 'engine')",
            "See the cause with `cnnkit doctor broken-import`, and report it to the makers of cnnkit-broken-import 1.0",
        ),
        (
            "missing-dependency",
            "missing-dependency",
            (
                "needs the module 'cnnkit_engine_that_nobody_has', which cannot be imported: ModuleNotFoundError: No module "
                "named 'cnnkit_engine_that_nobody_has'"
            ),
            (
                "Install the package that provides 'cnnkit_engine_that_nobody_has', or the extra of "
                "cnnkit-missing-dependency that brings it"
            ),
        ),
        (
            "duplicate",
            "conflict",
            "is registered by cnnkit-duplicate-a 1.0 and by cnnkit-duplicate-b 2.5, so that nobody knows which is meant",
            (
                "Uninstall the one that you do not want: python -m pip uninstall cnnkit-duplicate-a or python -m pip "
                "uninstall cnnkit-duplicate-b"
            ),
        ),
        (
            "future",
            "incompatible-api",
            "is written for version 99 of the plugin interface; this cnnkit has version 1",
            "Upgrade cnnkit, or install a version of cnnkit-future made for it",
        ),
        (
            "future-hook",
            "incompatible-api",
            "has the hook cnnkit_explain, which this cnnkit does not know",
            "Upgrade cnnkit, or install a version of cnnkit-future-hook made for it",
        ),
        (
            "slow",
            "broken",
            f"did not answer within {TIME_LIMIT} s",
            "Set CNNKIT_PROBE_TIMEOUT to more seconds if it is only slow, or report it to the makers of cnnkit-slow 1.0",
        ),
        (
            "exits",
            "broken",
            "cannot be imported: SystemExit: no licence found",
            "See the cause with `cnnkit doctor exits`, and report it to the makers of cnnkit-exits 1.0",
        ),
        (
            "probe-raises",
            "broken",
            (
                "its probe raised RuntimeError: the driver did not start (caused by ModuleNotFoundError: No module named "
                "'cnnkit_driver_that_nobody_has')"
            ),
            "See the cause with `cnnkit doctor probe-raises`, and report it to the makers of cnnkit-probe-raises 1.0",
        ),
        ("no-device", "no-device", "finds no abacus", "Plug in an abacus"),
        (
            "forgetful",
            "no-device",
            "its probe answered 'no-device' and gave no reason",
            "Ask the makers of cnnkit-forgetful what it needs: its probe named no fix",
        ),
        ("null-create", "ready", "", ""),
    ],
)
def test_the_state_of_each_distribution_has_its_reason_and_its_fix(facts, name, state, reason, fix):
    found = facts["statuses"][name]
    assert (found["state"], found["reason"], found["fix"]) == (state, reason, fix)


def test_every_state_but_ready_has_a_reason_and_a_fix(facts):
    for found in facts["statuses"].values():
        assert found["state"] in STATES
        assert found["state"] == "ready" or (found["reason"] and found["fix"])


def test_a_status_says_where_the_plugin_comes_from(facts):
    found = facts["statuses"]["no-device"]
    assert found == {
        "name": "no-device",
        "state": "no-device",
        "reason": "finds no abacus",
        "fix": "Plug in an abacus",
        "devices": ["fingers"],
        "versions": {},
        "distribution": "cnnkit-no-device",
        "distribution_version": "1.0",
        "module": "cnnkit_no_device",
    }


@pytest.mark.parametrize(
    ("name", "root_cause"),
    [
        ("broken-import", "KeyError"),
        ("missing-dependency", "ModuleNotFoundError"),
        ("probe-raises", "ModuleNotFoundError"),
        ("exits", "SystemExit"),
        ("no-device", "NoneType"),
    ],
)
def test_the_root_cause_outlives_the_thread_of_the_probe(facts, name, root_cause):
    assert facts["root_causes"][name] == root_cause


def test_one_plugin_that_hangs_costs_the_listing_its_time_limit_once(facts):
    assert TIME_LIMIT <= facts["seconds"] < 2 * TIME_LIMIT


def test_a_plugin_that_creates_nothing_is_reported_and_not_returned(plugin_folder, on_path):
    on_path(plugin_folder)
    with pytest.raises(BackendUnavailable, match="cnnkit_create_backend returned None, which is no Backend") as caught:
        get_backend("null-create")
    assert caught.value.status.state == "broken"


def test_loopback_trains_as_the_backend_that_it_wraps(plugin_folder, on_path):
    on_path(plugin_folder)
    images = np.random.default_rng(0).random((2, *PLAN.input_shape), np.float32)
    states = []
    for name in ("numpy", "loopback"):
        backend = get_backend(name, precision="float64")
        program = backend.compile_training(
            PLAN, initial_state(PLAN.model, SGD(learning_rate=0.1), seed=3, precision="float64"), SGD(learning_rate=0.1)
        )
        program.step(images, np.array([0, 2]))
        states.append(program.state())
        assert backend.selection.name == name
    assert states[0].step == 1
    assert same_state(*states)


# ------------------------------------------------------------------------------------ plugins written by the tests

WORKING = """
from dataclasses import dataclass

from cnnkit.backend import Backend
from cnnkit.errors import BackendError, BackendOptionError
from cnnkit.plugins import Availability, Unsupported, hookimpl, reject_unknown_options

@dataclass(frozen=True)
class Made(Backend):
    device: str
    precision: str
    options: dict

    def compile(self, plan, parameters):
        raise NotImplementedError

@hookimpl
def cnnkit_probe(device):
    return Availability.ready(["cpu"]) if device in (None, "cpu") else Availability.no_device("has no " + device, "Use cpu")

@hookimpl
def cnnkit_create_backend(device, precision, options):
    return Made(device, precision, options)
"""


@pytest.fixture
def install(tmp_path, on_path):
    """A function that installs a one-module distribution `plug-NAME` which registers the backend NAME."""

    def write(name, source=WORKING, *, folder="site", **changes):
        distribution = changes.get("distribution", f"plug-{name}")
        version = changes.get("version", "1.0")
        module = changes.get("module", f"plug_{name}")
        site = tmp_path / folder
        information = site / f"{distribution.replace('-', '_')}-{version}.dist-info"
        information.mkdir(parents=True)
        (site / f"{module}.py").write_text(textwrap.dedent(source))
        metadata = f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        (information / "METADATA").write_bytes(changes.get("metadata", metadata.encode()))
        default = f"[cnnkit.backends]\n{name} = {module}\n"
        (information / "entry_points.txt").write_bytes(changes.get("entry_points", default.encode()))
        on_path(site)

    return write


def _with(hook):
    return WORKING + textwrap.dedent(hook)


def test_a_plugin_is_asked_about_the_device_that_was_named(install):
    install("one")
    assert status("one").ready
    assert status("one").devices == ("cpu",)
    assert status("one", "gpu:7").state == "no-device"
    assert backends("gpu:7")["one"].reason == "has no gpu:7"
    with pytest.raises(BackendUnavailable, match=r"'one' is not ready .no-device.: has no gpu:7. Use cpu."):
        get_backend("one", device="gpu:7")


def test_all_plugins_are_asked_at_the_same_time(install):
    together = """
    import threading
    from cnnkit.plugins import Availability, hookimpl
    import rendezvous

    @hookimpl
    def cnnkit_probe():
        rendezvous.barrier.wait(timeout=10)  # nobody passes before both are there
        return Availability.ready()

    @hookimpl
    def cnnkit_create_backend():
        return None
    """
    install("here", together)
    install("there", together)
    install("barrier", "import threading\nbarrier = threading.Barrier(2)\n", module="rendezvous")
    found = backends()
    assert (found["here"].state, found["there"].state) == ("ready", "ready")


def test_two_hooks_of_one_name_in_two_plugins_do_not_answer_for_each_other(install):
    install("first", WORKING.replace('["cpu"]', '["first"]'))
    install("second", WORKING.replace('["cpu"]', '["second"]'))
    found = backends()
    assert (found["first"].devices, found["second"].devices) == (("first",), ("second",))


@pytest.mark.parametrize(
    ("source", "state", "reason"),
    [
        ("import plug_odd.inner", "broken", "cannot be imported: ModuleNotFoundError: .*plug_odd.inner"),
        ("from json import nonsense", "missing-dependency", "needs the module 'json', .*cannot import name 'nonsense'"),
        ("from cnnkit.plugins import telepathy", "incompatible-api", "this cnnkit does not have: .*'telepathy'"),
        ("raise ImportError('said the plugin itself')", "broken", "ImportError: said the plugin itself"),
        (
            "try:\n    import nobody_has_this\nexcept ImportError:\n    raise ImportError('sorry') from None",
            "missing-dependency",
            "needs the module 'nobody_has_this'",
        ),
        (
            "from cnnkit.errors import MissingDependency\nraise MissingDependency('odd', 'CuPy', 'cuda12')",
            "missing-dependency",
            "needs the module 'CuPy'.*pip install 'cnnkit.cuda12.'",
        ),
        (
            "try:\n    import nobody_has_this\nexcept ImportError as error:\n    raise RuntimeError('sorry') from error",
            "broken",
            r"RuntimeError: sorry \(caused by ModuleNotFoundError: .*nobody_has_this",
        ),
        ("this is no Python", "broken", "SyntaxError"),
        ("raise KeyboardInterrupt", "broken", "KeyboardInterrupt"),
        ("", "broken", "plug_odd has no hook cnnkit_probe, or it is not marked with @hookimpl"),
        (
            WORKING.replace("@hookimpl\ndef cnnkit_create", "def cnnkit_create"),
            "broken",
            "no hook cnnkit_create_backend",
        ),
        (
            WORKING.replace("probe(device)", "probe(device, moon)"),
            "incompatible-api",
            "'moon'.*not be found in the hook",
        ),
        (WORKING + "cnnkit_plugin_api = '1'", "incompatible-api", "version '1' of the plugin interface"),
        (WORKING + "cnnkit_plugin_api = 1", "ready", ""),
        (
            WORKING.replace("return Avail", "return {}\n    Avail"),
            "broken",
            r"its probe returned \{\}, which is no Avail",
        ),
        (
            WORKING.replace("return Avail", "return Availability('fine')\n    Avail"),
            "broken",
            "OptionError: Availability: state is 'fine'; expected one of ready, missing-dependency",
        ),
        (
            WORKING.replace("return Avail", "return Availability.ready('cpu')\n    Avail"),
            "broken",
            r"OptionError: Availability: devices is 'cpu'; expected a list of names: \['cpu'\]",
        ),
        (WORKING.replace("return Avail", "raise SystemExit(3)\n    Avail"), "broken", "its probe raised SystemExit: 3"),
    ],
)
def test_what_a_module_does_wrong_becomes_its_state(install, source, state, reason):
    install("odd", source)
    install("sound")
    found = backends()
    assert found["odd"].state == state
    if reason:
        assert found["odd"].fix
        with pytest.raises(BackendUnavailable, match=rf"^Backend 'odd' is not ready \({state}\): .*{reason}"):
            get_backend("odd")
    assert found["sound"].ready


def test_an_optional_hook_of_a_later_cnnkit_is_no_reason_to_refuse(install):
    install("polite", _with("@hookimpl(optionalhook=True)\ndef cnnkit_explain(plan):\n    return 'no'"))
    assert status("polite").ready


def test_a_status_is_plain_data_whatever_the_probe_wrote(install):
    install("loose", WORKING.replace('["cpu"])', 'iter(["cpu", 1]), {"odd": 2.5})'))
    assert json.loads(json.dumps(status("loose").to_dict()))["versions"] == {"odd": "2.5"}
    assert status("loose").devices == ("cpu", "1")


def test_an_error_is_kept_but_neither_printed_nor_compared():
    one = BackendStatus("x", "broken", "r", "f", error=ValueError("secret"))
    assert "secret" not in repr(one)
    assert one == BackendStatus("x", "broken", "r", "f")


# ------------------------------------------------------------------------------------------- who registers what


def test_a_distribution_that_lies_on_the_path_twice_is_no_conflict(install):
    install("twice", folder="one")
    install("twice", folder="two")
    assert status("twice").ready
    assert status("twice").distribution == "plug-twice"


def test_of_two_versions_of_a_distribution_the_first_on_the_path_counts(install):
    install("old", folder="one", module="plug_before")
    install("old", folder="two", module="plug_after", version="2.0", distribution="Plug.Old")
    assert (status("old").state, status("old").distribution_version, status("old").module) == (
        "ready",
        "2.0",
        "plug_after",
    )


def test_who_shadows_a_backend_of_cnnkit_is_the_one_to_uninstall(install):
    install("numpy")
    found = status("numpy")
    assert found.state == "conflict"
    assert found.fix == "Uninstall the one that you do not want: python -m pip uninstall plug-numpy"
    with pytest.raises(BackendUnavailable, match=r"is registered by cnnkit \S+ and by plug-numpy 1\.0"):
        get_backend()


def test_damaged_distributions_stop_no_listing(install):
    install("sound")
    install("a", entry_points=b"[cnnkit.backends]\nnonsense\n")
    install("b", entry_points=b"[other.group]\nnonsense\n")
    install("c", entry_points=b"\xff\xfe[cnnkit.backends]\n")
    install("d", metadata=b"")
    install("f", metadata=b"\xff\xfe")
    install("e", entry_points=b"[cnnkit.backends]\ne = not a module!\n")
    found = backends()
    assert found["sound"].ready
    assert found["plug-a"].state == "broken"
    assert found["plug-a"].reason == "its entry_points.txt cannot be read"
    assert not {"b", "c", "plug-b", "plug-c"} & set(found)
    assert found["d"].ready
    assert found["f"].ready
    assert found["e"].state == "broken" if "e" in found else found["plug-e"].state == "broken"


# ------------------------------------------------------------------------------------------ the environment, read late


def test_a_disabled_backend_is_listed_but_not_imported(install, monkeypatch):
    install("unwanted")
    install("wanted")
    monkeypatch.setenv("CNNKIT_DISABLE_BACKENDS", "nobody, unwanted")
    found = backends()["unwanted"]
    assert found.state == "disabled"
    assert found.fix == "Remove 'unwanted' from the environment variable CNNKIT_DISABLE_BACKENDS"
    assert "plug_unwanted" not in sys.modules
    assert "plug_wanted" in sys.modules
    with pytest.raises(BackendUnavailable, match="CNNKIT_DISABLE_BACKENDS names it"):
        get_backend("unwanted")
    monkeypatch.delenv("CNNKIT_DISABLE_BACKENDS")
    assert status("unwanted").ready


def test_the_environment_names_the_backend_where_the_caller_does_not(install, monkeypatch):
    install("one")
    install("two")
    monkeypatch.setenv("CNNKIT_BACKEND", "one")
    assert get_backend().selection.name == "one"
    assert get_backend("two").selection.name == "two"
    monkeypatch.setenv("CNNKIT_BACKEND", "absent, two")
    assert get_backend().selection.name == "two"
    monkeypatch.setenv("CNNKIT_BACKEND", "onne")
    with pytest.raises(
        BackendNotFound, match=r"'onne' \(the environment variable CNNKIT_BACKEND is 'onne'\).*mean 'one'"
    ):
        get_backend()
    monkeypatch.setenv("CNNKIT_BACKEND", "one,,two")
    with pytest.raises(OptionError, match="CNNKIT_BACKEND is 'one,,two'"):
        get_backend()


def test_without_a_choice_the_default_is_taken(install, monkeypatch):
    install("usual")
    monkeypatch.setattr(cnnkit.plugins, "DEFAULT_BACKEND", "usual")
    monkeypatch.setenv("CNNKIT_BACKEND", "")
    assert get_backend().selection.name == "usual"


def test_the_time_limit_counts_the_import_too(install, monkeypatch):
    install("sleepy", "import time\ntime.sleep(3)\n")
    monkeypatch.setenv("CNNKIT_PROBE_TIMEOUT", "0.2")
    assert status("sleepy").reason == "did not answer within 0.2 s"


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_time_limit_that_is_none_is_an_error(monkeypatch, text):
    monkeypatch.setenv("CNNKIT_PROBE_TIMEOUT", text)
    with pytest.raises(OptionError, match=f"CNNKIT_PROBE_TIMEOUT is '{text}'; expected seconds, such as 20"):
        backends()


# ----------------------------------------------------------------------------------------------------- get_backend


def test_a_selection_says_what_was_chosen_even_on_a_frozen_backend(install):
    install("one")
    backend = get_backend("one", device="cpu", precision="float64", threads=2)
    assert (backend.device, backend.precision, backend.options) == ("cpu", "float64", {"threads": 2})
    chosen = backend.selection
    assert (chosen.name, chosen.device, chosen.precision, chosen.options) == ("one", "cpu", "float64", {"threads": 2})
    assert chosen.rejected == ()


def test_a_plugin_cannot_change_the_options_that_the_selection_keeps(install):
    install("greedy", WORKING.replace("return Made(", "options.clear()\n    return Made("))
    assert get_backend("greedy", threads=2).selection.options == {"threads": 2}


def test_an_unknown_name_is_answered_with_the_nearest_and_with_all(install):
    install("abacus")
    with pytest.raises(BackendNotFound, match=r"^No backend is called 'abcus'. Did you mean 'abacus'\? Installed are "):
        get_backend("abcus")
    with pytest.raises(BackendNotFound, match=r"^No backend is called 'xyz'. Installed are .*abacus.*numpy"):
        status("xyz")


def test_without_any_plugin_the_error_says_so(monkeypatch):
    monkeypatch.setattr("importlib.metadata.distributions", list)
    assert backend_names() == []
    with pytest.raises(BackendNotFound, match=r"'numpy'\. No plugin is installed that brings one\."):
        get_backend()


def test_an_error_of_the_engine_is_wrapped_with_its_cause(install):
    install("fails", WORKING.replace("return Made(", "raise ZeroDivisionError('in the engine')\n    return Made("))
    with pytest.raises(BackendUnavailable, match="could not be created: ZeroDivisionError: in the engine") as caught:
        get_backend("fails")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)
    assert isinstance(caught.value.status.error, ZeroDivisionError)
    assert caught.value.status.state == "broken"
    assert caught.value.status.devices == ("cpu",)


REFUSING = WORKING.replace("return Made(", "raise BackendError('is out of beads')\n    return Made(")


def test_an_error_of_ours_comes_through_unchanged(install):
    install("refuses", REFUSING)
    with pytest.raises(BackendError, match=r"^is out of beads$"):
        get_backend("refuses")


def test_the_cause_of_a_failed_import_is_chained_to_the_error(install):
    install("fails", "import nobody_has_this")
    with pytest.raises(BackendUnavailable) as caught:
        get_backend("fails")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert caught.value.status.error is caught.value.__cause__


def test_a_chain_takes_the_first_that_can_be_had_and_keeps_why_not_the_others(install):
    install("refuses", REFUSING)
    install("fails", "import nobody_has_this")
    install("one")
    install("two")
    backend = get_backend(("absent", "refuses", "fails", "one", "two"), device="cpu")
    assert backend.selection.name == "one"
    names, reasons = zip(*backend.selection.rejected, strict=True)
    assert names == ("absent", "refuses", "fails")
    assert reasons[0].startswith("No backend is called 'absent'.")
    assert reasons[1] == "is out of beads"
    assert reasons[2].startswith(
        "Backend 'fails' is not ready (missing-dependency): needs the module 'nobody_has_this'"
    )
    assert "plug_two" not in sys.modules


def test_a_wrong_option_ends_a_chain(install):
    picky = WORKING.replace("return Made(", "reject_unknown_options('picky', options, ['threads'])\n    return Made(")
    install("picky", picky)
    install("one")
    with pytest.raises(
        BackendOptionError, match=r"'picky' has no option 'thread'; .*threads. Did you mean 'threads'\?"
    ):
        get_backend(["picky", "one"], thread=2)


def test_an_exhausted_chain_lists_every_reason(install):
    install("refuses", REFUSING)
    install("fails", "import nobody_has_this")
    with pytest.raises(
        BackendUnavailable, match=r"(?s)absent, fails, refuses .*'absent'.*nobody_has_this.*beads"
    ) as caught:
        get_backend(["absent", "fails", "refuses"])
    assert (caught.value.status.name, caught.value.status.state) == ("fails", "missing-dependency")
    with pytest.raises(BackendUnavailable, match="beads") as caught:
        get_backend(["absent", "refuses"])
    refused = caught.value.status
    assert (refused.name, refused.state, refused.reason) == ("refuses", "broken", "is out of beads")
    assert isinstance(refused.root_cause, BackendError)
    install("fails-late", WORKING.replace("return Made(", "raise ZeroDivisionError\n    return Made("), module="late")
    with pytest.raises(BackendUnavailable, match="could not be created") as caught:
        get_backend(["fails-late", "absent"])
    assert (caught.value.status.name, caught.value.status.state) == ("fails-late", "broken")
    with pytest.raises(BackendNotFound, match=r"(?s)'absent'.*'gone'"):
        get_backend(["absent", "gone"])


@pytest.mark.parametrize("which", [[], (), "", [""], [1], {"numpy"}, 3])
def test_what_names_no_backend_is_an_option_error(which):
    with pytest.raises(OptionError, match="expected a name, a list of names, or a Backend"):
        get_backend(which)


def test_a_wrong_precision_is_found_before_the_plugin_makes_anything(install):
    install("one", WORKING.replace("return ", "raise ZeroDivisionError\n    return "))
    with pytest.raises(OptionError, match=r"precision is 'half'; expected 'float32' or 'float64'\."):
        get_backend("one", precision="half")
    with pytest.raises(OptionError, match=r"precision is 'half'; expected 'float32' or 'float64'\."):
        unsupported("one", PLAN, precision="half")


ROUNDING = "@hookimpl\ndef cnnkit_precisions():\n    return {'coarse': 'all but 3 bits'}"


def test_a_precision_of_a_plugins_own_reaches_it_and_says_what_it_rounds(install):
    install("blunt", _with(ROUNDING))
    backend = get_backend("blunt", precision="coarse")
    assert (backend.precision, backend.selection.precision) == ("coarse", "coarse")
    assert (backend.selection.rounded, backend.selection.outside) == ("all but 3 bits", "float32")
    assert own_precisions("blunt") == {"coarse": "all but 3 bits"}
    for usual in ("float32", "float64"):
        selection = get_backend("blunt", precision=usual).selection
        assert (selection.rounded, selection.outside) == ("", usual)


def test_a_precision_of_one_plugins_own_is_unknown_to_another_also_in_a_chain(install):
    install(
        "blunt", _with(ROUNDING).replace('return Availability.ready(["cpu"])', 'return Availability.missing("it", "-")')
    )
    install("sharp")
    assert own_precisions("sharp") == {}
    with pytest.raises(OptionError, match=r"precision is 'coarse'; expected 'float32' or 'float64'\."):
        get_backend(["blunt", "sharp"], precision="coarse")
    with pytest.raises(OptionError, match=r"precision is 'course'; expected 'float32', 'float64' or 'coarse'\."):
        get_backend(["blunt", "sharp"], precision="course")


@pytest.mark.parametrize("answer", ["['coarse']", "{'coarse': ''}", "{'coarse': 3}", "{'float32': 'a little'}"])
def test_a_wrong_answer_about_precisions_is_broken(install, answer):
    install("vague", _with(f"@hookimpl\ndef cnnkit_precisions():\n    return {answer}"))
    with pytest.raises(BackendUnavailable, match=r"'vague' is not ready \(broken\): its cnnkit_precisions returned"):
        get_backend("vague", precision="coarse")
    assert get_backend("vague").selection.precision == "float32"


def test_who_refuses_in_a_precision_of_its_own_names_alternatives_in_float32(install):
    install("blunt", PARTIAL + ROUNDING)
    install("alike", PARTIAL.replace('"float64"', '"coarse"'))  # refuses in float32 and not in what it does not have
    install("whole", PARTIAL.replace('"float64"', '"float32"'))
    with pytest.raises(UnsupportedModel) as caught:
        require_support(get_backend("blunt", precision="coarse"), PLAN)
    assert set(caught.value.alternatives) - {"numpy", "numpy-batched"} == {"whole"}


class HandMade(Backend):
    def compile(self, plan, parameters):
        raise NotImplementedError


def test_a_backend_comes_back_as_it_is():
    mine = HandMade()
    assert get_backend(mine) is mine
    assert mine.selection is None


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"device": "cpu"}, "device='cpu'"),
        ({"precision": "float64"}, "precision='float64'"),
        ({"threads": 2}, "threads=2"),
    ],
)
def test_a_backend_takes_nothing_along(arguments, named):
    with pytest.raises(OptionError, match=f"^{named} came along with a HandMade, which is already made"):
        get_backend(HandMade(), **arguments)


@pytest.mark.parametrize(
    ("known", "message"),
    [
        (
            ["threads", "workspace"],
            "'x' has no option 'thraeds'; its options are threads, workspace. Did you mean 'threads'?",
        ),
        (["workspace"], "'x' has no option 'thraeds'; its options are workspace. Leave it out."),
        ([], "'x' has no option 'thraeds'; it takes no options. Leave it out."),
    ],
)
def test_an_unknown_option_is_answered_with_the_known_ones(known, message):
    with pytest.raises(BackendOptionError) as caught:
        reject_unknown_options("x", {"thraeds": 1}, known)
    assert str(caught.value) == f"Backend {message}"
    assert reject_unknown_options("x", dict.fromkeys(known), known) is None


# ---------------------------------------------------------------------------------------------- the optional hooks

PARTIAL = _with(
    """
    @hookimpl
    def cnnkit_supports(plan, device, precision):
        if precision == "float64":
            return []
        return [Unsupported("layers[0].dilation", "conv2d.dilation", f"no kernel on {device}")] * 2
    """
)


def test_a_plugin_is_asked_what_it_refuses(install):
    install("partial", PARTIAL)
    install("whole")
    first, _second = unsupported("partial", PLAN, device="moon")
    assert (first.path, first.feature, first.reason) == ("layers[0].dilation", "conv2d.dilation", "no kernel on moon")
    assert unsupported("partial", PLAN, precision="float64") == []
    assert unsupported("whole", PLAN) == []
    with pytest.raises(BackendNotFound, match="'nobody'"):
        unsupported("nobody", PLAN)


def test_a_model_is_refused_with_the_backends_that_could(install):
    install("partial", PARTIAL)
    install("alike", PARTIAL)
    install("whole")
    install("asleep", WORKING.replace("return Avail", "return Availability('no-device')\n    Avail"))
    install("fails", _with("@hookimpl\ndef cnnkit_supports():\n    raise ZeroDivisionError"))
    with pytest.raises(
        UnsupportedModel, match=r"conv2d\.dilation, which layers\[0\].dilation needs: no kernel on cpu"
    ) as caught:
        require_support(get_backend("partial", device="cpu"), PLAN)
    assert caught.value.backend == "partial"
    assert set(caught.value.alternatives) - {"numpy", "numpy-batched"} == {"whole"}


def test_a_backend_is_not_its_own_alternative_on_another_device(install):
    install("torn", PARTIAL.replace('precision == "float64"', "device is None"))
    with pytest.raises(UnsupportedModel) as caught:
        require_support(get_backend("torn", device="cpu"), PLAN)
    assert "torn" not in caught.value.alternatives


def test_support_is_judged_by_the_selection_and_never_for_a_hand_made_backend(install):
    install("partial", PARTIAL)
    require_support(get_backend("partial", precision="float64"), PLAN)
    require_support(HandMade(), PLAN)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("return None", "its cnnkit_supports returned None, which is no list of Unsupported"),
        ("return ['dilation']", r"its cnnkit_supports returned \['dilation'\], which is no list of Unsupported"),
        ("raise ZeroDivisionError('oh')", "its cnnkit_supports raised ZeroDivisionError: oh"),
    ],
)
def test_a_wrong_answer_about_support_is_broken_and_not_consent(install, body, reason):
    install("vague", _with(f"@hookimpl\ndef cnnkit_supports():\n    {body}"))
    with pytest.raises(BackendUnavailable, match=rf"'vague' is not ready \(broken\): {reason}"):
        unsupported("vague", PLAN)


def test_a_plugin_says_where_its_deviations_are(install):
    install("honest", _with("@hookimpl\ndef cnnkit_deviations():\n    return '/somewhere/conformance.toml'"))
    install("silent")
    install("vague", _with("@hookimpl\ndef cnnkit_deviations():\n    return 3"))
    assert deviations("honest") == Path("/somewhere/conformance.toml")
    assert deviations("silent") is None
    with pytest.raises(BackendUnavailable, match="its cnnkit_deviations returned 3, which is no path"):
        deviations("vague")


def test_a_plan_is_rehearsed_without_a_probe_and_with_all_that_was_asked_for(install):
    install(
        "far",
        """
        from cnnkit.plugins import Availability, Rehearsal, hookimpl

        @hookimpl
        def cnnkit_probe():
            return Availability.no_device("finds no GPU", "Plug one in")

        @hookimpl
        def cnnkit_create_backend():
            raise AssertionError

        @hookimpl
        def cnnkit_rehearse(plan, optimizer, device, precision, options):
            return Rehearsal([plan.output_shape], [f"{optimizer} {device} {precision} {options}"], ["sm_90"])
        """,
    )
    rehearsed = rehearsals("far")(PLAN, SGD(0.5), "gpu:1", "float32", {"threads": 2})
    assert rehearsed.shapes == ((3,),)
    assert rehearsed.kernels == (f"{SGD(0.5)} gpu:1 float32 {{'threads': 2}}",)
    assert (rehearsed.bytes_fixed, rehearsed.bytes_per_image) == (None, None)


def test_a_plugin_without_the_hook_rehearses_nothing(install):
    install("silent")
    assert rehearsals("silent") is None


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        ("return None", BackendUnavailable, "its cnnkit_rehearse returned None, which is no Rehearsal"),
        ("return 1 / 0", BackendUnavailable, "its cnnkit_rehearse raised ZeroDivisionError"),
        ("raise SystemExit(2)", BackendUnavailable, "its cnnkit_rehearse raised SystemExit: 2"),
        ("raise BackendOptionError('no bfloat16')", BackendOptionError, "^no bfloat16$"),
    ],
)
def test_a_rehearsal_that_is_none_is_the_plugins_fault_and_an_error_of_ours_passes(install, body, error, message):
    install("vague", _with(f"@hookimpl\ndef cnnkit_rehearse():\n    {body}"))
    with pytest.raises(error, match=message):
        rehearsals("vague")(PLAN, None, None, "float32", {})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"shapes": [(2.5,)]}, "shapes is .* expected a tuple of whole numbers for each operation"),
        ({"shapes": (3, 2)}, "shapes is .* expected a tuple of whole numbers for each operation"),
        ({"kernels": "im2col"}, "kernels is 'im2col'; expected a list of names"),
        ({"compiled_for": [90]}, r"compiled_for is \[90\]; expected a list of names"),
        ({"kernels": ["im2col"]}, "what is compiled is compiled for something"),
        ({"compiled_for": ["sm_90"]}, "what is compiled is compiled for something"),
        ({"bytes_fixed": -1}, "bytes_fixed is -1"),
        ({"bytes_per_image": 2.5}, "bytes_per_image is 2.5"),
    ],
)
def test_a_rehearsal_of_something_else_is_refused(fields, says):
    with pytest.raises(OptionError, match=says):
        Rehearsal(**{"shapes": [(3,)]} | fields)


def test_the_words_of_a_probe_can_be_had_as_they_are(install):
    install("curt", WORKING.replace('"has no " + device, "Use cpu"', '"", ""'))
    assert availability("curt").devices == ("cpu",)
    assert (availability("curt", "gpu").reason, availability("curt", "gpu").fix) == ("", "")
    assert "gave no reason" in status("curt", "gpu").reason
    install("rude", WORKING.replace("return Availability.ready", "return 3, Availability.ready"))
    with pytest.raises(BackendUnavailable, match=r"its probe returned .3, Availability.* which is no Availability"):
        availability("rude")


def test_the_examples_of_the_hooks_together_are_a_plugin(install):
    optional = ("cnnkit_supports", "cnnkit_rehearse", "cnnkit_precisions", "cnnkit_deviations")
    hooks = ("cnnkit_probe", "cnnkit_create_backend", *optional)
    examples = [textwrap.dedent(inspect.getdoc(getattr(Hooks, hook)).partition("::\n\n")[2]) for hook in hooks]
    install("fancy", "\n".join(examples).replace("cnnkit_fancy.backend", "fancy_backend"))
    assert status("fancy").state == "missing-dependency"
    assert status("fancy").fix == "Install it with: python -m pip install fancy"
    engine = WORKING.replace("class Made", "class FancyBackend").replace("options: dict", "threads: int = 1")
    install("engine", engine, module="fancy_backend", distribution="fancy", version="4.2")
    install("package", "", module="fancy")
    assert (status("fancy").devices, status("fancy").versions) == (("cpu",), {"fancy": "4.2"})
    assert status("fancy", "gpu").state == "no-device"
    assert get_backend("fancy", threads=3).threads == 3
    assert [refusal.path for refusal in unsupported("fancy", PLAN)] == ["layers[0].dilation"]
    rehearsed = rehearsals("fancy")(PLAN, None, None, "float64", {"threads": 2})
    assert rehearsed.shapes == ((3, 2, 2), (12,), (3,), (3,))
    assert (rehearsed.bytes_fixed, rehearsed.bytes_per_image) == (
        8 * (4 * 2 + 2 + 12 * 3 + 3),
        8 * (20 + 12 + 12 + 3 + 3),
    )
    assert list(own_precisions("fancy")) == ["bfloat16"]
    assert deviations("fancy").name == "conformance.toml"


# ------------------------------------------------------------------------------------------------- the records


def test_a_reason_is_kept_without_its_full_stop_and_on_one_line():
    answer = Availability("no-device", "finds\n  nothing.", None)
    assert (answer.reason, answer.fix) == ("finds nothing", "")


def test_a_missing_package_is_a_state_with_its_cure():
    answer = Availability.missing("CuPy", "Install it with: python -m pip install 'cnnkit[cuda12]'")
    assert answer.state == "missing-dependency"
    assert answer.reason == "needs CuPy, which is not installed"
    assert answer.fix.endswith("'cnnkit[cuda12]'")


def test_a_probe_may_write_none_for_no_devices_and_no_versions():
    answer = Availability("ready", None, None, None, None)
    assert (answer.devices, answer.versions) == ((), {})
