"""The process in which a backend is judged, spoken to as the runner does: real plugins that print, hang and crash."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from cnnkit.conformance.process import Ended, SuiteFault, WorkerProcess

SQUARE, WIDE, DEEP, ONE_FEATURE = (f"dense.forward.{name}" for name in ("square", "wide", "deep", "one-feature"))


@pytest.fixture
def worker(plugin_folder, on_path):
    """A function that starts a worker for a backend in float32, and what it said of the plugin."""
    on_path(plugin_folder)
    started = []

    def start(name, **options):
        process = WorkerProcess()
        started.append(process)
        process.loaded = process.ask(60, ask="start", name=name, device=None, options=options, explore=0, seed=0)
        process.created = process.ask(60, ask="create", precision="float32")
        return process

    yield start
    for process in started:
        process.close()


def judge(process, case, limit=30):
    return process.ask(limit, ask="judge", case=case, precision="float32", time_limit=limit)


def test_it_says_where_the_plugin_comes_from_and_where_its_ledger_is(worker, plugin_folder):
    loaded = worker("deviating").loaded
    assert loaded["ready"] is True
    assert loaded["distribution"] == "cnnkit-deviating 1.0"
    assert loaded["versions"] == {"cnnkit-deviating": "1.0"}
    assert loaded["ledger"] == str(plugin_folder / "cnnkit_deviating" / "conformance.toml")


def test_what_a_backend_prints_does_not_get_into_the_answers(worker):
    process = worker("crashing")  # writes a line to the standard output whenever it compiles
    for _ in range(2):
        answer = judge(process, SQUARE)
        assert (answer["outcome"], answer["message"]) == ("passed", "")
        assert 0 < answer["units"] < 5


def test_an_exception_of_the_backend_is_an_answer_with_its_class_and_traceback(worker):
    answer = judge(worker("crashing"), ONE_FEATURE)
    assert (answer["outcome"], answer["stage"], answer["error"]) == ("failed", "compile", "ZeroDivisionError")
    assert "four is too many" in answer["message"]
    assert "cnnkit_crashing" in answer["traceback"]


def test_a_panic_that_is_no_exception_is_an_answer_too(worker):
    process = worker("crashing")
    answer = judge(process, "dense.forward.tall")
    assert (answer["outcome"], answer["stage"], answer["error"]) == ("failed", "compile", "Panic")
    assert answer["message"] == "Panic: three is too few"
    assert judge(process, SQUARE)["outcome"] == "passed"


@pytest.mark.skipif(os.name == "nt", reason="there are no signals on Windows")
def test_a_segmentation_fault_is_named_and_shows_where_the_backend_was(worker):
    with pytest.raises(Ended, match="the process was ended by SIGSEGV") as ended:
        judge(worker("crashing"), WIDE)
    assert (ended.value.stage, ended.value.error) == ("crash", "SIGSEGV")
    assert "cnnkit_crashing" in ended.value.traceback


def test_a_process_that_ends_itself_leaves_its_exit_code_and_its_last_words(worker):
    process = worker("crashing")
    judge(process, SQUARE)
    with pytest.raises(Ended, match="ended itself with exit code 3") as ended:
        judge(process, DEEP)
    assert (ended.value.stage, ended.value.error) == ("crash", "exit code 3")
    assert ended.value.traceback == "compiling (7,)\nthe engine says goodbye"  # and nothing of the case before


def test_a_hang_is_ended_in_time_and_shows_where_the_backend_was(worker):
    process = worker("sleeping")
    begin = time.monotonic()
    with pytest.raises(Ended, match="gave no answer within 1 s and was killed") as ended:
        judge(process, ONE_FEATURE, limit=1)
    assert 1 <= time.monotonic() - begin < 5
    assert (ended.value.stage, ended.value.error) == ("timeout", "timeout")
    assert "cnnkit_sleeping" in ended.value.traceback
    assert "in predict" in ended.value.traceback


@pytest.mark.skipif(not hasattr(signal, "SIGRTMIN"), reason="every signal has a name here")
def test_a_signal_without_a_name_is_told_by_its_number(worker):
    with pytest.raises(Ended, match=rf"was ended by signal {signal.SIGRTMIN + 6}"):
        judge(worker("unruly", does="nameless-signal"), WIDE)


@pytest.mark.skipif(os.name == "nt", reason="nothing forks on Windows")
def test_a_forked_copy_of_the_process_answers_for_no_case_but_its_own(worker):
    process = worker("unruly", does="forks-and-returns")
    outputs = [judge(process, case)["outcome"] for case in (SQUARE, WIDE)]
    with pytest.raises(SuiteFault, match=r"KeyError: 'no\.such\.case'"):
        judge(process, "no.such.case")
    assert outputs == ["passed", "passed"]
    assert _members(process, at_last=1) == [process._process.pid]


@pytest.mark.skipif(os.name == "nt", reason="nothing forks on Windows")
def test_what_a_process_has_started_ends_with_it(worker):
    process = worker("unruly", does="leaves-a-child")
    judge(process, SQUARE)
    assert len(_members(process, at_last=2)) == 2
    begin = time.monotonic()
    process.close()
    assert time.monotonic() - begin < 1.5
    assert _members(process, at_last=0) == []


def _members(process, at_last):
    """The processes that live in the group of a worker, as soon as there are so many, or after ten seconds."""
    deadline = time.monotonic() + 10
    while True:
        listed = subprocess.run(["ps", "-eo", "pid,pgid,stat"], capture_output=True, text=True, check=True).stdout
        rows = [line.split() for line in listed.splitlines()[1:]]
        found = [int(pid) for pid, group, state in rows if int(group) == process._process.pid and state[0] != "Z"]
        if len(found) == at_last or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


def test_what_is_no_answer_ends_the_process(worker):
    process = worker("loopback")
    process._answers.put("passed, honestly\n")
    with pytest.raises(Ended, match="the process wrote among its answers what is none") as ended:
        judge(process, SQUARE)
    assert ended.value.stage == "crash"


def test_an_engine_that_replaces_what_the_answers_are_written_with_changes_none(worker):
    assert judge(worker("unruly", does="replaces-dumps"), SQUARE)["outcome"] == "passed"


def test_a_process_that_is_gone_does_not_answer(worker):
    process = worker("loopback")
    process.kill()
    with pytest.raises(Ended, match="SIGKILL" if os.name == "posix" else "exit code"):
        judge(process, SQUARE)


def test_a_fault_of_the_suite_is_not_taken_for_one_of_the_backend(worker):
    process = worker("loopback")
    with pytest.raises(SuiteFault, match=r"the suite itself failed to judge: KeyError: 'no\.such\.case'") as fault:
        judge(process, "no.such.case")
    assert "in judge" in fault.value.traceback
    assert judge(process, SQUARE)["outcome"] == "passed"


def test_a_backend_that_cannot_be_created_says_why(worker):
    assert (
        worker("null-create").created["message"].startswith("Backend 'null-create' is not ready (broken): its cnnkit")
    )
    assert worker("loopback", threads=0).created["wrong_use"] is True


def test_a_precision_that_the_plugin_refuses_is_not_created(worker):
    process = worker("declared")
    assert process.created == {"ready": True}
    answer = process.ask(60, ask="create", precision="float64")
    assert answer == {
        "ready": False,
        "refused": True,
        "message": "precision.float64: the hardware has none",
        "error": "",
    }


@pytest.mark.skipif(os.name == "nt", reason="a process is looked for with a signal")
def test_no_worker_outlives_a_runner_that_was_killed(plugin_folder):
    code = textwrap.dedent(f"""
        import os, threading, time
        from cnnkit.conformance.process import WorkerProcess
        worker = WorkerProcess()
        worker.ask(60, ask="start", name="sleeping", device=None, options={{}}, explore=0, seed=0)
        worker.ask(60, ask="create", precision="float32")
        request = dict(ask="judge", case="{ONE_FEATURE}", precision="float32", time_limit=600)
        threading.Thread(target=worker.ask, args=(600,), kwargs=request, daemon=True).start()
        time.sleep(0.5)
        print(worker._process.pid, flush=True)
        os._exit(0)
    """)
    environment = os.environ | {"PYTHONPATH": str(plugin_folder)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    deadline = time.monotonic() + 20
    while _runs(pid):
        if time.monotonic() > deadline:
            os.kill(pid, signal.SIGKILL)
            pytest.fail("the worker goes on hanging after its runner is gone")
        time.sleep(0.1)


def _runs(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Where nobody collects orphans they stay, dead, in the table of processes.
    status = f"/proc/{pid}/stat"
    if not os.path.exists(status):  # noqa: PTH110 - as short as it gets
        return os.path.isdir("/proc/self") is False  # noqa: PTH112 - no /proc here: the signal has found it
    with open(status) as file:  # noqa: PTH123 - the same
        return file.read().rpartition(")")[2].split()[0] != "Z"
