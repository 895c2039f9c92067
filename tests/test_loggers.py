"""What TensorBoard and MLflow read back of a run, with their own readers."""

import math
import os
import socket
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import cnnkit
from cnnkit import EarlyStopping, EpochRecord, Progress
from cnnkit.errors import MissingDependency, TrainingError
from cnnkit.loggers import MLflow, TensorBoard, figures

TRAIN = {"loss": 0.5, "accuracy": 0.75, "precision": 0.7, "recall": 0.6, "f1": 0.65}
VALIDATION = {"loss": 0.25, "accuracy": 0.5, "precision": 0.375, "recall": 0.125, "f1": 0.0625}
RECORD = EpochRecord(2, 16, 0.001, 1.25, TRAIN, VALIDATION, 10.0, 2.0, best=False)
PIECE = Progress(epoch=2, epochs=4, done=500, count=1000, running_loss=1.5, seconds=5.0)
EXPECTED = {
    "running_loss": 1.25,
    **{f"train/{name}": value for name, value in TRAIN.items()},
    **{f"validation/{name}": value for name, value in VALIDATION.items()},
    "learning_rate": 0.001,
    "seconds/train": 10.0,
    "seconds/evaluate": 2.0,
    "images_per_second": 100.0,
}


@pytest.fixture(scope="module")
def small():
    images = np.random.default_rng(0).random((30, 4, 4, 1), dtype=np.float32)
    layers = [cnnkit.Flatten(), cnnkit.Dense(units=3), cnnkit.Softmax()]
    return cnnkit.Model(name="<b>|net", input_shape=(4, 4, 1), layers=layers), cnnkit.Dataset(images, np.arange(30) % 3)


def epochs_of(*numbers, count=1000):
    """The events of whole epochs, two pieces each."""
    for epoch in numbers:
        for done in (count // 2, count):
            yield Progress(epoch, 9, done, count, 1 / epoch, done / 100)
        yield replace(RECORD, epoch=epoch, running_loss=1 / epoch)


def tell(logger, events):
    for event in events:
        logger(event)


# ------------------------------------------------------------------------------------------------------------- figures


def test_an_epoch_has_the_figures_that_were_measured():
    assert figures(RECORD, 1000) == EXPECTED
    assert figures(replace(RECORD, train=None, validation=None)) == {
        "running_loss": 1.25,
        "learning_rate": 0.001,
        "seconds/train": 10.0,
        "seconds/evaluate": 2.0,
    }


# -------------------------------------------------------------------------------------------------------- TensorBoard


@pytest.fixture
def read():
    """A function that reads a folder as TensorBoard does: the scalars by tag as (step, value), and the texts."""
    scalar_reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    from tensorboard.backend.event_processing import plugin_event_accumulator as page_reader

    def read(folder):
        found = scalar_reader.EventAccumulator(str(folder))
        found.Reload()
        tags = found.Tags()["scalars"]
        scalars = {tag: [(point.step, point.value) for point in found.Scalars(tag)] for tag in tags}
        page = page_reader.EventAccumulator(str(folder))  # what the pages of TensorBoard are made from
        page.Reload()
        texts = (
            {
                tag: [(point.step, point.tensor_proto.string_val[0].decode()) for point in page.Tensors(tag)]
                for tag in page.PluginTagToContent("text")
            }
            if "text" in page.ActivePlugins()
            else {}
        )
        return scalars, texts

    return read


def test_tensorboard_reads_every_figure_at_its_epoch(tmp_path, read):
    with TensorBoard(tmp_path / "deep" / "logs") as logger:
        logger(replace(PIECE, done=1000))
        logger(RECORD)
    scalars, _ = read(tmp_path / "deep" / "logs")
    assert scalars.pop("running_loss_by_images") == [(2000, 1.5)]
    assert scalars == {tag: [(2, pytest.approx(value))] for tag, value in EXPECTED.items()}


def test_tensorboard_knows_a_figure_that_is_no_number(tmp_path, read):
    with TensorBoard(tmp_path) as logger:
        logger(replace(RECORD, train={**TRAIN, "f1": math.nan}, running_loss=math.inf))
    scalars, _ = read(tmp_path)
    assert math.isnan(scalars["train/f1"][0][1])
    assert scalars["running_loss"] == [(2, math.inf)]
    assert "images_per_second" not in scalars  # nothing told how many images there are


def test_the_loss_within_epochs_is_there_and_does_not_flood(tmp_path, read):
    with TensorBoard(tmp_path) as logger:
        for epoch in (1, 2):
            for done in range(1, 1001):
                logger(replace(PIECE, epoch=epoch, done=done))
    points = read(tmp_path)[0]["running_loss_by_images"]
    steps = [step for step, _ in points]
    assert steps == sorted(set(steps))
    assert len(steps) <= 2 * 51
    assert {1, 1000, 1001, 2000} <= set(steps)
    assert max(np.diff(steps)) <= 1000 / 50


def test_a_run_that_is_gone_on_with_is_not_shown_twice(tmp_path, read):
    with TensorBoard(tmp_path) as logger:
        tell(logger, [*epochs_of(1, 2), Progress(3, 9, 500, 1000, 7.0, 5.0), Progress(3, 9, 1000, 1000, 7.0, 5.0)])
    with TensorBoard(tmp_path) as logger:  # killed there, and its last checkpoint was older
        tell(logger, epochs_of(3, 4))
    scalars, _ = read(tmp_path)
    assert scalars["running_loss"] == [(epoch, pytest.approx(1 / epoch)) for epoch in (1, 2, 3, 4)]
    assert scalars["train/loss"] == [(epoch, 0.5) for epoch in (1, 2, 3, 4)]
    assert scalars["running_loss_by_images"] == [
        (step, pytest.approx(1 / (1 + (step - 1) // 1000))) for step in range(500, 4001, 500)
    ]


def test_a_run_of_few_images_keeps_its_epochs_when_it_is_gone_on_with(tmp_path, read):
    with TensorBoard(tmp_path) as logger:
        tell(logger, epochs_of(1, 2, 3, count=2))
    with TensorBoard(tmp_path) as logger:
        tell(logger, epochs_of(4, count=2))
    assert [step for step, _ in read(tmp_path)[0]["running_loss"]] == [1, 2, 3, 4]


def test_a_run_resumed_at_the_judging_of_an_epoch_keeps_what_came_before(tmp_path, read):
    with TensorBoard(tmp_path) as logger:
        tell(logger, [*epochs_of(1), Progress(2, 9, 1000, 1000, 0.5, 5.0)])
    with TensorBoard(tmp_path) as logger:
        tell(logger, [replace(RECORD, epoch=2), *epochs_of(3)])
    assert [step for step, _ in read(tmp_path)[0]["running_loss"]] == [1, 2, 3]


def test_another_run_takes_the_place_of_the_one_before(tmp_path, read):
    for epochs in ((1, 2, 3), (1,)):
        with TensorBoard(tmp_path, params={"epochs": len(epochs)}) as logger:
            tell(logger, epochs_of(*epochs))
    scalars, texts = read(tmp_path)
    assert scalars["running_loss"] == [(1, 1.0)]
    assert [step for step, _ in scalars["running_loss_by_images"]] == [500, 1000]
    assert texts["params"][-1] == (0, "    epochs: 1")


def test_tensorboard_holds_what_the_run_and_the_caller_tell_as_texts(tmp_path, read, small):
    with TensorBoard(tmp_path, params={"batch_size": 64, "note": "<b>|"}) as logger:
        run = cnnkit.fit(*small, 0.2, epochs=2, early_stopping=EarlyStopping(), callbacks=[logger])
        logger.log_run(run)
    scalars, texts = read(tmp_path)
    assert scalars["validation/loss"] == [
        (record.epoch, pytest.approx(record.validation["loss"])) for record in run.history
    ]
    assert scalars["learning_rate"] == [(1, pytest.approx(1e-3)), (2, pytest.approx(1e-3))]
    assert texts["params"] == [(0, "    batch_size: 64\n    note: <b>|")]
    ((step, model),) = texts["model"]
    assert step == 2
    assert model.startswith("    <b>|net (one image, float32)\n    ───")
    ((_, told),) = texts["run"]
    for line in ("model: <b>|net", "parameters: 51", "backend: numpy", "optimizer.kind: adam", "best epoch: 2"):
        assert f"    {line}\n" in told
    assert told.endswith(run.message)


def test_what_was_written_is_there_before_the_file_is_closed(tmp_path, read):
    logger = TensorBoard(tmp_path)
    logger(RECORD)
    assert read(tmp_path)[0]["running_loss"] == [(2, 1.25)]
    logger.close()
    logger.close()
    with pytest.raises(TrainingError, match="is closed"):
        logger(RECORD)


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match=r"the folder .*file/logs cannot be written: Not a directory\. Choose"):
        TensorBoard(tmp_path / "file" / "logs")


def test_tensorboard_is_written_without_tensorflow(tmp_path):
    pytest.importorskip("tensorboard")
    (tmp_path / "tensorflow.py").write_text('raise SystemExit("TensorFlow was imported")')
    code = "from cnnkit.loggers import TensorBoard; TensorBoard('logs', params={'a': 1}).close()"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)


# ------------------------------------------------------------------------------------------------------------- MLflow


@pytest.fixture
def store(tmp_path, monkeypatch):
    """A tracking URI of a store in a folder, and a client to read it with."""
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    mlflow = pytest.importorskip("mlflow")
    uri = (tmp_path / "mlruns").as_uri()
    return uri, mlflow.MlflowClient(tracking_uri=uri)


def points_of(client, run_id, name):
    return [(point.step, point.value) for point in client.get_metric_history(run_id, name)]


def test_mlflow_holds_every_figure_at_its_epoch(store):
    uri, client = store
    with MLflow(uri, "try <it>", "first", {"batch_size": 64, "data": None}) as logger:
        logger(replace(PIECE, done=1000))
        logger(RECORD)
        assert client.get_run(logger.run_id).info.status == "RUNNING"
    (run,) = client.search_runs([client.get_experiment_by_name("try <it>").experiment_id])
    assert run.info.run_id == logger.run_id
    assert (run.info.run_name, run.info.status) == ("first", "FINISHED")
    assert run.data.metrics == EXPECTED
    assert points_of(client, logger.run_id, "train/f1") == [(2, 0.65)]
    assert run.data.params == {"batch_size": "64", "data": "None"}
    assert run.data.tags["cnnkit.version"] == cnnkit.__version__


def test_mlflow_takes_a_figure_that_is_no_number_and_more_params_than_fit_into_one_request(store):
    uri, client = store
    with MLflow(uri, params={f"p{number}": number for number in range(250)}) as logger:
        logger(replace(RECORD, train={**TRAIN, "f1": math.nan}))
    run = client.get_run(logger.run_id)
    assert math.isnan(run.data.metrics["train/f1"])
    assert len(run.data.params) == 250
    assert client.get_experiment(run.info.experiment_id).name == "Default"


def test_the_experiment_is_the_one_of_the_environment_and_is_used_again(store, monkeypatch):
    uri, client = store
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of the shell")
    for _ in range(2):
        MLflow(uri).close()
    assert len(client.search_runs([client.get_experiment_by_name("of the shell").experiment_id])) == 2


@pytest.mark.parametrize(("error", "status"), [(ValueError, "FAILED"), (KeyboardInterrupt, "KILLED")])
def test_an_error_ends_the_mlflow_run_as_what_it_is(store, error, status):
    uri, client = store
    logger = MLflow(uri)

    def train():
        with logger:
            raise error

    with pytest.raises(error):
        train()
    assert client.get_run(logger.run_id).info.status == status


def test_a_run_of_the_caller_is_logged_into_and_not_ended_and_no_epoch_twice(store):
    uri, client = store
    theirs = client.create_run("0").info.run_id
    for epochs in ((1, 2), (2, 3)):
        with MLflow(uri, run_id=theirs) as logger:
            tell(logger, epochs_of(*epochs))
    assert logger.run_id == theirs
    assert points_of(client, theirs, "running_loss") == [(1, 1.0), (2, 0.5), (3, 1 / 3)]
    assert client.get_run(theirs).info.status == "RUNNING"
    assert len(client.search_runs(["0"])) == 1


def test_a_run_that_is_taken_over_runs_again_and_is_ended(store):
    uri, client = store
    with MLflow(uri) as first:
        tell(first, epochs_of(1))
    with MLflow(uri, run_id=first.run_id, end=True) as logger:
        assert client.get_run(first.run_id).info.status == "RUNNING"
        tell(logger, epochs_of(2))
    assert client.get_run(first.run_id).info.status == "FINISHED"
    assert [step for step, _ in points_of(client, first.run_id, "train/loss")] == [1, 2]


def test_the_active_run_of_mlflow_itself_is_not_disturbed(store, monkeypatch):
    uri, client = store
    import mlflow

    monkeypatch.setattr(mlflow.tracking._tracking_service.utils, "_tracking_uri", uri)
    with mlflow.start_run() as theirs:
        with MLflow(uri) as logger:
            tell(logger, epochs_of(1))
        assert mlflow.active_run().info.run_id == theirs.info.run_id
        mlflow.log_metric("own", 1.0)
    assert client.get_run(theirs.info.run_id).data.metrics == {"own": 1.0}
    assert logger.run_id != theirs.info.run_id


def test_mlflow_holds_what_the_run_tells(store, small):
    uri, client = store
    with MLflow(uri, params={"backend": "mine"}) as logger:
        run = cnnkit.fit(*small, 0.2, epochs=2, early_stopping=EarlyStopping(), callbacks=[logger])
        for _ in range(2):
            logger.log_run(run)
    found = client.get_run(logger.run_id).data
    assert found.params["backend"] == "mine"  # what the caller said stays
    assert found.params["model"] == "<b>|net"
    assert found.params["parameters"] == "51"
    assert found.params["optimizer.kind"] == "adam"
    assert found.params["optimizer.learning_rate"] == "0.001"
    assert found.metrics["best_epoch"] == run.best_epoch == 2
    assert found.tags["cnnkit.message"] == run.message
    assert found.tags["mlflow.note.content"] == f"```\n{run.model.summary()}\n```"
    assert [value for _, value in points_of(client, logger.run_id, "validation/loss")] == [
        record.validation["loss"] for record in run.history
    ]


def test_a_description_that_is_there_stays_and_a_long_one_is_cut(store, small):
    uri, client = store
    theirs = client.create_run("0", tags={"mlflow.note.content": "my words"}).info.run_id
    run = cnnkit.fit(*small)
    with MLflow(uri, run_id=theirs) as logger:
        logger.log_run(run)
    assert client.get_run(theirs).data.tags["mlflow.note.content"] == "my words"
    layers = [cnnkit.Flatten(), *[cnnkit.Dense(units=3)] * 100, cnnkit.Softmax()]
    with MLflow(uri) as logger:
        logger.log_run(replace(run, model=cnnkit.Model(input_shape=(4, 4, 1), layers=layers)))
    assert client.get_run(logger.run_id).data.tags["mlflow.note.content"].endswith("\n...\n```")


def test_a_closed_logger_says_so_and_closes_only_once(store):
    uri, client = store
    logger = MLflow(uri)
    logger.close("KILLED")
    logger.close()
    assert client.get_run(logger.run_id).info.status == "KILLED"
    with pytest.raises(TrainingError, match=f"the logger for the MLflow run {logger.run_id} is closed"):
        logger(RECORD)


def test_what_mlflow_refuses_is_one_sentence_of_ours(store):
    uri, client = store
    with pytest.raises(
        TrainingError, match=r"MLflow at gopher://x did not take a run: .*\. Give the tracking URI of a"
    ):
        MLflow("gopher://x")
    with pytest.raises(TrainingError, match=r"did not take a run: .*not found"):
        MLflow(uri, run_id="0" * 32)
    logger = MLflow(uri)
    client.delete_run(logger.run_id)
    with pytest.raises(TrainingError, match=r"did not take the figures of epoch 2: .*active"):
        logger(RECORD)


# ---------------------------------------------------------------------------------------------------- missing packages


@pytest.mark.parametrize(
    ("logger", "package", "extra"), [(TensorBoard, "tensorboard", "tensorboard"), (MLflow, "mlflow-skinny", "mlflow")]
)
def test_a_package_that_is_missing_is_said_at_once_with_the_command(logger, package, extra, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == extra]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, extra, None)
    with pytest.raises(MissingDependency, match=rf"needs {package}, which is not installed.*cnnkit\[{extra}\]"):
        logger(str(tmp_path / "here"))
    assert not (tmp_path / "here").exists()


def test_a_server_of_mlflow_that_is_not_there_is_told_of_at_once(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")  # of MLflow's own tries, which take minutes
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    with pytest.raises(TrainingError, match=f"MLflow at {uri} does not answer. Start the server there"):
        MLflow(uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(TrainingError, match=f"MLflow at {uri} does not answer"):
        MLflow()
