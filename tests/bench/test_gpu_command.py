"""`cnnkit bench --gpu`: it refuses plainly where there is no card, and otherwise prints, writes and ends as the run went."""

import json
import sys

import pytest
from typer.testing import CliRunner

from cnnkit.bench import gpu
from cnnkit.bench.gpu import everything, ways
from cnnkit.bench.gpu.driver import Driver
from cnnkit.bench.gpu.results import Card, GpuReport, Part
from cnnkit.bench.gpu.targets import judge
from cnnkit.cli.app import app, main
from cnnkit.errors import BackendNotFound, OptionError
from cnnkit.plugins import BackendStatus

NO_GPU = BackendStatus("cupy", "no-device", "no driver of NVIDIA is installed", "Install it, on a machine with a card")


@pytest.fixture
def status(monkeypatch):
    """A function that lets the plugin host answer with a status, or an error."""

    def answer(found):
        def asked(name, device=None):
            asked.said.append((name, device))
            if isinstance(found, Exception):
                raise found
            return found

        asked.said = []
        monkeypatch.setattr(ways.plugins, "status", asked)
        return asked.said

    return answer


def command(monkeypatch, capsys, *arguments):
    """Exit code and what is printed of the real command."""
    monkeypatch.setattr(sys, "argv", ["cnnkit", "bench", *arguments])
    with pytest.raises(SystemExit) as caught:
        main()
    printed = capsys.readouterr()
    return caught.value.code, printed.out, printed.err


def test_without_a_card_it_refuses_in_one_line_with_reason_and_fix(status, monkeypatch, capsys, tmp_path):
    asked = status(NO_GPU)
    monkeypatch.chdir(tmp_path)
    code, out, err = command(monkeypatch, capsys, "--gpu", "--out", str(tmp_path / "out"))
    assert (code, out) == (2, "")
    assert err == (
        "error: --gpu needs an NVIDIA GPU, but the backend 'cupy' cannot run on gpu:0: no driver of NVIDIA is installed. "
        "Install it, on a machine with a card.\n"
    )
    assert asked == [("cupy", "gpu:0")]
    assert list(tmp_path.iterdir()) == []  # nothing looks like a report


def test_a_backend_that_is_not_installed_is_no_reason_to_run_on_another(status, monkeypatch, capsys):
    status(BackendNotFound("No backend is called 'mine'. Installed are numpy."))
    code, _, err = command(monkeypatch, capsys, "--gpu", "-b", "mine")
    assert code == 2
    assert err == (
        "error: --gpu needs a backend that runs on an NVIDIA GPU, and no backend is called 'mine'. Installed are numpy.\n"
    )


def test_a_backend_for_cpus_is_refused_by_what_its_own_plugin_says(monkeypatch, capsys):
    code, _, err = command(monkeypatch, capsys, "--gpu", "-b", "numpy")
    assert code == 2
    assert "the backend 'numpy' cannot run on gpu:0: runs on the CPU" in err


def test_a_plugin_that_sees_a_card_does_not_do_where_there_is_no_driver(status, monkeypatch):
    status(BackendStatus("cupy", "ready"))

    def load(_):
        raise OSError("not there")

    monkeypatch.setattr(everything, "Driver", lambda index: Driver(index, load))
    with pytest.raises(OptionError, match="there is no driver for NVIDIA cards here"):
        everything.run(everything.Ask("cupy"), lambda _: None)


@pytest.mark.parametrize(
    ("device", "index"), [("gpu:0", 0), ("gpu:3", 3), ("gpu", 0), ("cpu", None), ("gpu:", None), ("cuda:0", None)]
)
def test_the_device_is_a_card_by_its_number(status, device, index):
    status(BackendStatus("cupy", "ready"))
    if index is not None:
        assert ways.check_device("cupy", device) == index
    else:
        with pytest.raises(OptionError, match=f"--device is '{device}'; expected a card, such as gpu:0"):
            ways.check_device("cupy", device)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--gpu", "--images", "64"], "--images goes with the plain `cnnkit bench`, not with --gpu"),
        (["--gpu", "--rounds", "2"], "--rounds goes with the plain"),
        (["--gpu", "--set", "a=1"], "--set goes with the plain"),
        (["--gpu", "-b", "cupy", "-b", "numpy"], "--gpu measures one backend; there are 2: cupy, numpy"),
        (["--gpu", "--budget", "soon"], "--budget is 'soon'"),
        (["--quick"], "--quick goes with --gpu only"),
        (["--out", "x"], "--out goes with --gpu only"),
        (["--device", "gpu:0"], "--device goes with --gpu only"),
        (["--budget", "60s"], "--budget goes with --gpu only"),
        (["--gpu", "batches"], "--gpu stands before `batches`"),
    ],
)
def test_options_that_would_be_ignored_are_refused(arguments, said, monkeypatch, capsys):
    code, out, err = command(monkeypatch, capsys, *arguments)
    assert (code, out) == (2, "")
    assert said in err


# ------------------------------------------------------------------------------------------------------ with a card


def report(ask, outcome):
    card = Card(name="NVIDIA Imaginary 1", capability="9.0", memory_mib=1, driver="1", cuda="13.0")
    names = ("conformance", "layers", "steps", "inference")
    return GpuReport(
        made="2026-11-24T12:00:00+00:00",
        command=ask.command,
        seconds=1.0,
        budget=ask.budget,
        quick=ask.quick,
        backend=ask.backend,
        device=ask.device,
        card=card,
        machine={},
        versions={},
        parts=[Part(name=name, outcome=outcome, seconds=1.0, why="It rained.") for name in names],
        targets=judge((), ask.backend, card.name, quick=ask.quick),
    )


@pytest.fixture
def ran(monkeypatch):
    """What was asked for, of a run that is made up and does nothing."""
    asked = []

    def run(ask, save, told):
        asked.append(ask)
        told("a part")
        made = report(ask, "skipped")
        save(made)
        return made

    monkeypatch.setattr(gpu, "run", run)
    return asked


def test_what_is_asked_for_gets_there(ran, tmp_path):
    CliRunner().invoke(app, ["bench", "--gpu", "--out", str(tmp_path)])
    arguments = ["-b", "mine", "--device", "gpu:1", "--budget", "2m", "--quick", "--out", str(tmp_path)]
    CliRunner().invoke(app, ["bench", "--gpu", *arguments])
    plain, other = ran
    assert (plain.backend, plain.device, plain.budget, plain.quick) == ("cupy", "gpu:0", 480.0, False)
    assert (other.backend, other.device, other.budget, other.quick) == ("mine", "gpu:1", 120.0, True)


def test_it_says_what_was_not_done_where_the_report_is_and_fails(ran, tmp_path):
    done = CliRunner().invoke(app, ["bench", "--gpu", "--out", str(tmp_path / "deep" / "out")])
    assert ran
    assert done.exit_code == 1
    assert "layers is skipped: It rained." in done.stdout
    assert "not judged: 50,000 images in at most 0.20 s at batch 1024." in done.stdout
    assert f"The report is in {tmp_path / 'deep' / 'out'}" in done.stdout
    assert sorted(path.name for path in (tmp_path / "deep" / "out").iterdir()) == ["REPORT.md", "report.json"]


def test_a_sound_run_ends_in_exit_code_0(ran, tmp_path, monkeypatch):
    monkeypatch.setattr(GpuReport, "sound", True)
    assert CliRunner().invoke(app, ["bench", "--gpu", "--out", str(tmp_path)]).exit_code == 0
    assert ran


def test_json_is_the_report_itself(ran, tmp_path):
    done = CliRunner().invoke(app, ["bench", "--gpu", "--json", "--out", str(tmp_path)])
    assert ran
    assert json.loads(done.stdout) == json.loads((tmp_path / "report.json").read_text())


# ---------------------------------------------------------------------------------------------------- the peer


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("cuda = type('', (), {'is_available': staticmethod(lambda: True)})", ""),
        ("cuda = type('', (), {'is_available': staticmethod(lambda: False)})", "PyTorch finds no GPU, so there is"),
        ("raise ImportError('libcudnn is broken')", "PyTorch finds no GPU (ImportError: libcudnn is broken), so there"),
    ],
)
def test_pytorch_takes_part_if_it_sees_a_gpu(program, said, tmp_path, monkeypatch):
    (tmp_path / "torch.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(everything, "torch_missing", lambda: "")
    found = everything.missing_peer()
    assert found.startswith(said)
    assert bool(found) == bool(said)
    assert "torch" not in sys.modules or not sys.modules["torch"].__file__.startswith(str(tmp_path))


def test_a_pytorch_that_is_not_installed_is_told_with_its_extra(monkeypatch):
    monkeypatch.setattr(type(ways.PEERS["torch"]), "installed", False)
    assert everything.missing_peer().endswith("pip install 'cnnkit[peers]'")


def test_the_ways_of_each_table_are_asked_for_by_options():
    found = ways.step_contestants("cupy", "gpu:1", torch=True)
    assert [it.title for it in found] == [
        f"{library}, {way}, {precision}"
        for precision in ("float32", "tf32")
        for library in ("cupy", "torch")
        for way in ("eager", "graph")
    ]
    assert found[1].options == {
        "backend": "cupy",
        "device": "gpu:1",
        "precision": "float32",
        "options": {"graphs": True},
    }
    assert found[3].options == {"device": "cuda:1", "precision": "float32", "graph": True}
    single = ways.layer_contestants("cupy", "gpu:0", torch=False)
    assert [it.options["options"] for it in single] == [{"cudnn": False}, {"cudnn": True}] * 2
    assert [it.options["options"] for it in ways.inference_contestants("cupy", "gpu", torch=False)] == [{}, {}]


def test_the_options_are_those_that_cupys_plugin_takes():
    from cnnkit_cupy import plugin

    for contestant in (
        *ways.step_contestants("cupy", "gpu:0", torch=False),
        *ways.layer_contestants("cupy", "gpu:0", torch=False),
    ):
        plugin._checked(contestant.options["options"])  # raises for others
        assert contestant.precision == "float32" or contestant.precision in plugin.cnnkit_precisions()
