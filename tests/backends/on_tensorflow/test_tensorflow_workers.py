"""Many workers: real processes on this machine, killed for real, against one process that does the same alone."""

import importlib.util
import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import cnnkit
from cnnkit import checkpoints
from cnnkit.errors import BackendError, BackendOptionError
from cnnkit_tensorflow.distributed_cluster import cluster_from, meet

pytestmark = pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kills with SIGKILL")

HERE = Path(__file__).parent
SCRIPT = HERE / "training_worker.py"
COMMAND = "from cnnkit.cli import main; main()"


def load_script():
    spec = importlib.util.spec_from_file_location("training_worker", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


worker = load_script()


def free_ports(count):
    """Ports that nobody has. Another may take one meanwhile, but they are handed out in turn."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def config(ports, rank):
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": rank}})


def start(arguments, ports, rank, **settings):
    environment = os.environ | {"TF_CONFIG": config(ports, rank), "TF_CPP_MIN_LOG_LEVEL": "3", "COLUMNS": "200"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, **pipes, **settings)
    STARTED.append(process)
    return process


STARTED = []


@pytest.fixture(autouse=True)
def _no_process_is_left():
    """Where a test fails half-way, its workers would wait for each other."""
    yield
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()


def start_two(*arguments, **settings):
    ports = free_ports(2)
    return [start(arguments, ports, rank, **settings) for rank in (0, 1)]


def end_of(process, seconds=120):
    """What a process printed; it is killed where it takes longer, for a hang is what must not be."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        pytest.fail(f"a worker did not end within {seconds} s:\n{out}\n{err}")
    return out, err


def arrays(path):
    with np.load(path) as found:
        return dict(found)


def assert_same_bits(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.tobytes() == other[name].tobytes(), name


def assert_close(one, other, units):
    """Equal but for `units` roundoffs of the largest number of each array."""
    assert one.keys() == other.keys()
    for name, array in one.items():
        roundoff = np.finfo(array.dtype).eps / 2 if array.dtype.kind == "f" else 0
        assert np.abs(array - other[name]).max() <= units * roundoff * np.abs(array).max(), name


# ---------------------------------------------------------------------------------------- two workers train together


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The folder in which two workers have left all that the scene `together` has; the second is frozen at its end."""
    if importlib.util.find_spec("tensorflow") is None:
        pytest.skip("the test itself will say why")
    folder = tmp_path_factory.mktemp("together")
    first, second = start_two(SCRIPT, "together", folder)
    try:
        _, err = end_of(first)
        assert first.returncode == 0, err
        second.send_signal(signal.SIGTERM)
        second.send_signal(signal.SIGCONT)
        _, err = end_of(second, 20)
        assert (folder / "told-1.json").exists(), err
    finally:
        second.kill()
    (folder / "second.txt").write_text(str(second.returncode))
    return folder


@pytest.fixture
def alone_backend():
    """A function that makes the backend that is one process."""
    return lambda precision="float32": cnnkit.get_backend("tensorflow", precision=precision)


@pytest.fixture
def told(together):
    return [json.loads((together / f"told-{rank}.json").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("what", ["fit", "fit64", "pixels", "long", "gradients", "threads"])
def test_workers_end_in_the_same_bits(together, what):
    assert_same_bits(arrays(together / f"{what}-0.npz"), arrays(together / f"{what}-1.npz"))


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_two_workers_have_the_gradients_of_one_process(together, alone_backend, precision):
    """Of batches that do not divide, and of one image, of which one worker has none; with dropout."""
    alone = worker.gradients_of(alone_backend(precision), precision)
    found = {name: array for name, array in arrays(together / "gradients-0.npz").items() if name in alone}
    assert all(np.abs(array).max() > 0 for array in alone.values())
    losses = {name for name in alone if name.endswith("loss")}
    unit = float(np.finfo(precision).eps) / 2
    for name in losses:
        assert found[name] == pytest.approx(alone[name], rel=8 * unit)
    assert_close(
        {name: array for name, array in found.items() if name not in losses},
        {name: array for name, array in alone.items() if name not in losses},
        units=64,
    )


@pytest.mark.parametrize(("precision", "what"), [("float32", "fit"), ("float64", "fit64")])
def test_two_workers_end_where_one_process_ends(together, alone_backend, precision, what):
    """Eighteen steps with dropout, momentum and clipping, the last of each epoch over a single image."""
    alone = worker.arrays_of(worker.trained(alone_backend(precision), precision))
    assert alone["step"] == 18
    assert_close(arrays(together / f"{what}-0.npz"), alone, units=2000)


def test_two_workers_train_on_bytes_as_one_process_does(together, alone_backend):
    run = cnnkit.fit(worker.PIXELS, worker.data_of("uint8"), backend=alone_backend(), **worker.SETTINGS)
    assert_close(arrays(together / "pixels-0.npz"), worker.arrays_of(run.state), units=2000)


def test_programs_in_two_threads_do_not_meet_each_others_numbers(together, alone_backend):
    alone = worker.side_by_side(alone_backend(), 0)
    assert_close(arrays(together / "threads-0.npz"), alone, units=2000)


def test_the_first_worker_leads(told):
    assert [each["leads"] for each in told] == [True, False]


def test_a_worker_judges_alone(told, alone_backend):
    parameters = cnnkit.initial_parameters(worker.MODEL, 0)
    alone = cnnkit.evaluate(worker.MODEL, parameters, worker.data_of(), alone_backend())
    assert told[1]["alone"] == pytest.approx(alone.loss, rel=1e-6)


def test_sigterm_ends_a_worker_as_it_ends_any_process(together):
    """TensorFlow takes it for a note that the machine will go, and would let the worker go on."""
    assert int((together / "second.txt").read_text()) == -signal.SIGTERM


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("seed", "the workers differ in seed: 0 on worker 0 (127.0.0.1:"),
        ("step", "the workers differ in step: 0 on worker 0 (127.0.0.1:"),
        ("optimizer", "the workers differ in optimizer: SGD(learning_rate=0.1,"),
        ("images", "the workers do not do the same. At step 0 they have other images"),
        ("labels", "the workers do not do the same. At step 0 they have other images"),
        ("same", "nothing"),
        ("parameters", "the workers do not do the same. At step 32 they have other images"),
    ],
)
def test_all_workers_are_told_where_they_differ(told, what, said):
    assert [said in each[what] for each in told] == [True, True], told


def test_a_step_that_was_refused_is_not_taken(told):
    assert [each["steps"] for each in told] == [1, 1]


def test_a_worker_that_freezes_ends_the_others_within_a_minute(together):
    frozen, seconds, again = json.loads((together / "frozen.json").read_text())
    assert "training cannot go on, since worker 1 (127.0.0.1:" in frozen
    assert seconds < 60
    assert again == frozen


# ------------------------------------------------------------------------------------------------ a worker that dies


@pytest.fixture
def a_model_and_data(tmp_path):
    (tmp_path / "model.json").write_text(worker.MODEL.to_json())
    data = worker.long_data()
    arrays = {"x_train": data.images, "y_train": data.labels, "x_test": data.images[:50], "y_test": data.labels[:50]}
    np.savez(tmp_path / "data.npz", **arrays)
    return tmp_path


def test_a_killed_worker_ends_the_run_and_it_resumes_to_the_same_bits(together, a_model_and_data):
    """Through the command line, with one folder for both."""
    folder = a_model_and_data
    settings = "--backend tensorflow --set strategy=multi-worker --set timeout=40 --batch-size 128 --epochs 12 --seed 5"
    arguments = ["-c", COMMAND, "train", "model.json", "data.npz", *settings.split(), "--out", "run"]
    first, second = start_two(*arguments, cwd=folder)
    history = folder / "run" / "history.jsonl"
    while first.poll() is None and not (history.exists() and len(history.read_text().splitlines()) >= 2):
        time.sleep(0.01)
    second.send_signal(signal.SIGKILL)
    _, err = end_of(first, 60)
    second.communicate()
    assert first.returncode == 1, err
    words = " ".join(err.split())
    assert "training cannot go on, since worker 1 (127.0.0.1:" in words
    assert "When that is mended, go on with the run: cnnkit train --resume run" in words
    assert sorted(path.name for path in folder.glob("run/*")) == ["checkpoint.safetensors", "history.jsonl", "run.json"]
    assert 24 <= checkpoints.load(folder / "run" / "checkpoint.safetensors").state.step < 144

    both = start_two("-c", COMMAND, "train", "--resume", "run", "--json", cwd=folder)
    said = []
    for process in both:
        out, err = end_of(process)
        assert process.returncode == 0, err
        said.append(json.loads(out))
    assert [each["out"] for each in said] == ["run", None]
    assert said[0]["test"] == said[1]["test"]
    unbroken = arrays(together / "long-0.npz")
    assert_same_bits(worker.arrays_of(checkpoints.load(folder / "run" / "model.safetensors").state), unbroken)


def test_a_first_worker_that_is_killed_ends_the_others_and_each_resumes_from_a_folder_of_its_own(together, tmp_path):
    first, second = start_two(SCRIPT, "first_dies", tmp_path)
    _, err = end_of(second, 60)
    first.communicate()
    assert (first.returncode, second.returncode) == (-signal.SIGKILL, 0), err
    assert "training cannot go on, since worker 0 (127.0.0.1:" in (tmp_path / "first-dies.txt").read_text()

    for process in start_two(SCRIPT, "goes_on", tmp_path):
        _, err = end_of(process)
        assert process.returncode == 0, err
    for rank in (0, 1):
        lacks = (tmp_path / f"lacks-{rank}.txt").read_text()
        assert "the workers differ in step: 12 on worker 0 (127.0.0.1:" in lacks, lacks
        assert "copy checkpoint.safetensors from the worker with the highest step" in lacks
        assert_same_bits(arrays(tmp_path / f"resumed-{rank}.npz"), arrays(together / f"long-{rank}.npz"))
    stalled, again, seconds = json.loads((tmp_path / "stalled.json").read_text())
    assert "is alive but did not come to the same step within 3 s" in stalled
    assert again == stalled
    assert seconds < 1  # it does not wait once more


# ------------------------------------------------------------------------------------------------- one process, mirrored


def test_shares_of_the_cpu_end_where_two_workers_end(together, tmp_path):
    """Three shares of five batches and of a single image as well; and TensorFlow cannot be cut anew when it runs."""
    code = f"""
        import importlib.util
        import sys

        import numpy as np

        import cnnkit

        spec = importlib.util.spec_from_file_location("training_worker", {str(SCRIPT)!r})
        worker = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(worker)
        for replicas in (3, 2):
            backend = cnnkit.get_backend("tensorflow", strategy="mirrored", replicas=replicas)
            np.savez({str(tmp_path)!r} + f"/{{replicas}}.npz", **worker.arrays_of(worker.trained(backend)))
        doubles = cnnkit.get_backend("tensorflow", precision="float64", strategy="mirrored", replicas=2)
        np.savez({str(tmp_path)!r} + "/64.npz", **worker.gradients_of(doubles, "float64"))
        for options in (dict(strategy="mirrored", replicas=4), dict(strategy="multi-worker")):
            try:
                cnnkit.get_backend("tensorflow", **options)
            except cnnkit.errors.BackendOptionError as error:
                print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"TF_CONFIG": config(free_ports(1), 0), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two_workers = arrays(together / "fit-0.npz")
    assert_same_bits(arrays(tmp_path / "2.npz"), two_workers)
    assert_close(arrays(tmp_path / "3.npz"), two_workers, units=2000)
    gradients = arrays(tmp_path / "64.npz")
    assert_same_bits(gradients, {name: arrays(together / "gradients-0.npz")[name] for name in gradients})
    cut, joined = done.stdout.splitlines()
    assert "replicas is 4, but TensorFlow runs already in this process, on 3 CPUs" in cut
    assert "strategy is 'multi-worker', but TensorFlow runs already in this process" in joined


# -------------------------------------------------------------------------------------------------- what is asked for


@pytest.mark.parametrize(
    ("options", "device", "said"),
    [
        ({"strategy": "ring"}, None, "strategy is 'ring'; expected 'mirrored', 'multi-worker' or None."),
        ({"replicas": 2}, None, "replicas goes with strategy='mirrored', but strategy is None."),
        ({"strategy": "multi-worker", "replicas": 2}, None, "replicas goes with strategy='mirrored'"),
        ({"strategy": "mirrored", "timeout": 9}, None, "timeout goes with strategy='multi-worker'"),
        ({"own_folders": True}, None, "own_folders goes with strategy='multi-worker', but strategy is None."),
        ({"strategy": "multi-worker", "own_folders": "yes"}, None, "own_folders is 'yes'; expected True or False."),
        ({"strategy": "mirrored"}, None, "Say in how many to cut it, such as replicas=2."),
        ({"strategy": "mirrored", "replicas": 0}, None, "replicas is 0; expected a whole number of at least 1"),
        ({"strategy": "mirrored", "replicas": True}, None, "replicas is True; expected a whole number"),
        ({"strategy": "multi-worker", "timeout": 0}, None, "timeout is 0; expected a number of seconds above 0"),
        ({"strategy": "multi-worker", "timeout": "1"}, None, "timeout is '1'; expected a number of seconds above 0"),
        ({"strategy": "mirrored", "replicas": 2}, "gpu:1", "takes all GPUs, but device is 'gpu:1'."),
    ],
)
def test_options_that_do_not_go_together_are_refused(make_backend, options, device, said):
    with pytest.raises(BackendOptionError, match=re.escape(said)):
        make_backend(device=device, **options)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "TF_CONFIG is not set, which says who the workers are"),
        ("{", "TF_CONFIG is not JSON (Expecting property name"),
        ("[]", "TF_CONFIG lacks the table 'cluster' or 'task'"),
        ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG lacks the table 'cluster' or 'task'"),
        ('{"cluster": {}, "task": {}}', "the cluster in TF_CONFIG is empty"),
        ('{"cluster": {"worker": "a:1"}, "task": {}}', "cluster.worker in TF_CONFIG is 'a:1'"),
        ('{"cluster": {"worker": ["a"]}, "task": {}}', "cluster.worker[0] in TF_CONFIG is 'a'. Write host:port"),
        ('{"cluster": {"worker": ["a:0"]}, "task": {}}', "cluster.worker[0] in TF_CONFIG is 'a:0'"),
        ('{"cluster": {"worker": ["a:1", 2]}, "task": {}}', "cluster.worker[1] in TF_CONFIG is 2"),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}, "task": {}}', "the cluster in TF_CONFIG has 'ps'"),
        ('{"cluster": {"chief": ["a:1", "b:1"]}, "task": {}}', "has more than one chief"),
        (
            '{"cluster": {"worker": ["a:1", "b:1", "a:1"]}, "task": {}}',
            "worker 0 (a:1) and worker 2 (a:1) have the same address",
        ),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker"}}', "task.index in TF_CONFIG is None"),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": "$I"}}',
            "task.index in TF_CONFIG is '$I'",
        ),
        (
            '{"cluster": {"chief": ["b:1"], "worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "the task in TF_CONFIG is worker 1, but the cluster has chief 0, worker 0.",
        ),
        ('{"cluster": {"worker": ["a:1"]}, "task": {"type": "chief", "index": 0}}', "the task in TF_CONFIG is chief 0"),
    ],
)
def test_a_tf_config_that_is_wrong_is_refused(make_backend, monkeypatch, text, said):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(BackendOptionError, match=re.escape(said)):
        make_backend(strategy="multi-worker")


def test_a_chief_is_the_first_worker():
    text = '{"cluster": {"worker": ["a:1", "[::1]:2"], "chief": ["c:3"]}, "task": {"type": "worker", "index": "1"}}'
    cluster = cluster_from({"TF_CONFIG": text})
    assert list(map(str, cluster.members)) == ["chief (c:3)", "worker 0 (a:1)", "worker 1 ([::1]:2)"]
    assert cluster.rank == 2
    assert cluster.me.place == ("::1", 2)


# -------------------------------------------------------------------------------------------------------- the meeting


def meet_as(ports, *ranks, timeout=10, about=None):
    """The error that each of `ranks` meets with, or nothing; all at the same time."""
    said = [""] * len(ranks)

    def come(number, rank):
        try:
            meet(cluster_from({"TF_CONFIG": config(ports, rank)}), (about or {}).get(number, {"replicas": 1}), timeout)
        except BackendError as error:
            said[number] = str(error)

    threads = [threading.Thread(target=come, args=pair) for pair in enumerate(ranks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    return said


def test_workers_who_are_all_there_go_on_and_their_ports_are_free():
    ports = free_ports(3)
    assert meet_as(ports, 2, 0, 1) == ["", "", ""]
    for port in ports:
        socket.create_server(("", port)).close()


def test_a_first_worker_that_is_missing_is_named():
    ports = free_ports(2)
    (said,) = meet_as(ports, 1, timeout=1)
    assert said.startswith(f"worker 0 (127.0.0.1:{ports[0]}) did not let worker 1 (127.0.0.1:{ports[1]}) begin")


@contextmanager
def first_worker(ports, timeout=10):
    """The first worker at the meeting, while the block runs; the list is then what it was told."""
    said = []
    thread = threading.Thread(target=lambda: said.extend(meet_as(ports, 0, timeout=timeout)))
    thread.start()
    yield said
    thread.join(30)


def seat_at(port):
    """A connection to `port`, as soon as somebody listens there."""
    deadline = time.monotonic() + 10
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def hello_of(ports, rank):
    about = {"addresses": [f"127.0.0.1:{port}" for port in ports], "replicas": 1}
    return json.dumps({"cnnkit": "meeting", "rank": rank, "about": about}).encode() + b"\n"


def test_who_is_missing_is_told_to_all_who_came():
    ports = free_ports(3)
    with first_worker(ports, timeout=1.5) as said:
        theirs = meet_as(ports, 2, timeout=10)
    assert said == theirs
    assert said[0].startswith(f"worker 1 (127.0.0.1:{ports[1]}) did not come within 1.5 s.")


def test_a_worker_that_left_before_all_were_there_is_missing():
    ports = free_ports(3)
    with first_worker(ports, timeout=3) as said:
        with seat_at(ports[0]) as seat:
            seat.sendall(hello_of(ports, 1))
            time.sleep(0.3)
        assert meet_as(ports, 2, timeout=10) != [""]
    assert said[0].startswith(f"worker 1 (127.0.0.1:{ports[1]}) did not come within 3 s.")


def test_a_worker_that_left_and_came_again_goes_on():
    ports = free_ports(3)
    with first_worker(ports) as said:
        with seat_at(ports[0]) as seat:
            seat.sendall(hello_of(ports, 1))
            time.sleep(0.3)
        assert meet_as(ports, 2, 1) == ["", ""]
    assert said == [""]


def test_whoever_is_no_worker_is_sent_away():
    ports = free_ports(2)
    with first_worker(ports) as said:
        with seat_at(ports[0]) as seat:
            seat.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert seat.recv(10) == b""
        assert meet_as(ports, 1) == [""]
    assert said == [""]


def test_workers_with_other_clusters_are_told_both():
    ports, others = free_ports(2), free_ports(1)
    with first_worker(ports) as said:
        theirs = meet_as([ports[0], *others], 1)
    assert said == theirs
    assert (
        f"a worker with the number 1 came with addresses ['127.0.0.1:{ports[0]}', '127.0.0.1:{others[0]}']" in said[0]
    )


def test_workers_with_other_devices_are_told():
    said = meet_as(free_ports(2), 0, 1, about={0: {"replicas": 1}, 1: {"replicas": 2}})
    assert all("a worker with the number 1 came with replicas 2, but worker 0" in each for each in said), said


def test_two_processes_that_are_the_same_worker_are_told():
    ports = free_ports(3)
    with first_worker(ports) as said, seat_at(ports[0]) as one, seat_at(ports[0]) as other:
        for seat in (one, other):
            seat.sendall(hello_of(ports, 2))
        answers = [json.loads(seat.makefile().readline())["error"] for seat in (one, other)]
    assert answers == said * 2
    assert said[0].startswith(f"two processes say that they are worker 2 (127.0.0.1:{ports[2]}).")


def test_a_port_that_is_taken_is_named():
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        (said,) = meet_as([port, *free_ports(1)], 0)
    assert said.startswith(f"worker 0 (127.0.0.1:{port}) cannot listen on port {port} of this machine: ")


def test_a_worker_that_is_lost_after_the_meeting_ends_the_first(tf):
    """Before TensorFlow has made a cluster; it would wait for an hour."""
    ports = free_ports(2)
    code = "import cnnkit; cnnkit.get_backend('tensorflow', strategy='multi-worker', timeout=7)"
    first = start(["-c", code], ports, 0)
    about = {"replicas": 1, "tensorflow": tf.__version__, "cnnkit": cnnkit.__version__}
    assert meet_as(ports, 1, timeout=60, about={0: about}) == [""]
    _, err = end_of(first, 60)
    assert first.returncode == 1
    assert (
        f"worker 1 (127.0.0.1:{ports[1]}) came, but worker 0 (127.0.0.1:{ports[0]}) could not reach it within 7 s"
        in err
    )


def test_the_two_processes_of_the_page_train(tmp_path):
    """The first block of docs/how-to/several-workers.md as it stands, but for the ports."""
    page = (HERE.parents[2] / "docs" / "how-to" / "several-workers.md").read_text(encoding="utf-8")
    (script,) = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for port, free in zip(("12345", "12346"), free_ports(2), strict=True):
        assert port in script
        script = script.replace(port, str(free))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-ec", script],
        cwd=tmp_path,
        env=os.environ | {"PATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "The run is in run." in done.stdout
    other = (tmp_path / "worker-1.txt").read_text()
    assert "The run is in" not in other
    ends = [re.findall("epoch 3: running loss [0-9.]+", text) for text in (done.stderr, other)]
    assert len(ends[0]) == 1
    assert ends[0] == ends[1]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run", "worker-1.txt"]


def test_a_team_stays_python_inside_of_a_function_that_tensorflow_traces(in_a_process_of_its_own, tmp_path):
    # In a file, for AutoGraph rewrites only what it can read.
    (tmp_path / "caller.py").write_text(
        textwrap.dedent(
            """
            import numpy as np
            import tensorflow as tf
            images, labels, found = np.ones((6, 4), np.float32), np.zeros(6, np.int64), []

            @tf.function
            def traced(program):
                found.append(program.epoch(images, labels, np.arange(6), 4).loss_sum)
                found.append(program.step(images, labels))
                found.append(program.gradients(images, labels)[0])
            """
        )
    )
    lines = in_a_process_of_its_own(
        f"""
        import sys
        from cnnkit import SGD, Dense, Model, Softmax, initial_state
        from cnnkit_tensorflow import plugin
        backend = plugin.cnnkit_create_backend(None, "float32", {{"strategy": "mirrored", "replicas": 2}})
        model = Model(input_shape=(4,), layers=[Dense(units=2), Softmax()])
        program = backend.compile_training(model.plan(), initial_state(model, SGD(0.1)), SGD(0.1))
        sys.path.insert(0, {str(tmp_path)!r})
        from caller import found, traced
        traced(program)
        print(*(type(each).__name__ for each in found), program.state().step)
        """
    )
    assert lines == ["float float float 3"]
