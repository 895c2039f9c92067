"""`cnnkit train --tensorboard` and `--mlflow`, in one go and gone on with."""

import json
from pathlib import Path

import pytest


@pytest.fixture
def mlflow_store(tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "store").as_uri()
    return uri, mlflow.MlflowClient(tracking_uri=uri)


def test_a_run_gone_on_with_stands_in_tensorboard_as_one(cnnkit, model_file, npz, tmp_path, monkeypatch):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    assert cnnkit("train", model_file, npz, "--epochs", 2, "--out", "run", "--tensorboard", "logs").code == 0
    folder = Path("run").resolve()
    logs = Path("logs").resolve()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    history = cnnkit("train", "--resume", folder, "--epochs", 4, "--json").json["history"]
    found = reader.EventAccumulator(str(logs))
    found.Reload()
    points = [(point.step, point.value) for point in found.Scalars("train/loss")]
    assert points == [(record["epoch"], pytest.approx(record["train"]["loss"])) for record in history]
    assert len(points) == 4
    assert "    batch_size: 64" in found.Tensors("params")[0].tensor_proto.string_val[0].decode()


def test_a_run_gone_on_with_is_one_run_of_mlflow(cnnkit, model_file, npz, mlflow_store):
    uri, client = mlflow_store
    assert cnnkit("train", model_file, npz, "--epochs", 2, "--out", "run", "--mlflow", uri).code == 0
    history = cnnkit("train", "--resume", "run", "--epochs", 4, "--json").json["history"]
    (run,) = client.search_runs([client.get_experiment_by_name("Default").experiment_id])
    assert (run.info.run_name, run.info.status) == ("run", "FINISHED")
    assert run.data.params["model"] == "own"
    assert (run.data.params["dataset"], run.data.params["images"]) == (str(npz), "60")
    points = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [
        (record["epoch"], record["train"]["loss"]) for record in history
    ]
    assert len(points) == 4
    assert run.data.tags["cnnkit.message"].startswith("Trained 4 epochs")


def test_a_run_folder_from_before_there_were_loggers_is_gone_on_with(cnnkit, npz):
    cnnkit("train", "seed-numpy", npz, "--out", "run")
    request = json.loads(Path("run/run.json").read_text())
    for name in ("tensorboard", "mlflow", "mlflow_run"):
        del request[name]
    Path("run/run.json").write_text(json.dumps(request))
    assert len(cnnkit("train", "--resume", "run", "--epochs", 2, "--json").json["history"]) == 2


@pytest.mark.usefixtures("mlflow_store")
def test_a_place_that_cannot_be_logged_to_is_said_before_training_and_leaves_no_run(cnnkit, npz):
    Path("file").write_text("")
    for option, place in (("--tensorboard", "file/logs"), ("--mlflow", "gopher://x")):
        done = cnnkit("train", "seed-numpy", npz, "--out", "run", option, place)
        assert done.code == 1
        assert place in done.err
        assert "Traceback" not in done.err
        assert not Path("run").exists()
