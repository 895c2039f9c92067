"""`cnnkit plot kernels`, `feature-maps`, `patches`, `convolution`, `pooling` and `cnnkit trace`, as a user calls them."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnkit as library
from cnnkit import Conv2D, Dense, Flatten, MaxPool2D, Model, Rescale, Softmax
from cnnkit.worked import explain_convolution

MODEL = Model(
    name="looked-at",
    input_shape=(8, 8, 1),
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=4, kernel_size=3, activation="relu"),
        MaxPool2D(pool_size=2),
        Flatten(),
        Dense(units=3),
        Softmax(),
    ],
    class_names=["top", "[middle]", ":bottom:"],
)


@pytest.fixture(scope="session")
def trained(npz, tmp_path_factory):
    folder = tmp_path_factory.mktemp("looking")
    train, _ = library.load_dataset(npz)
    library.fit(MODEL, train, epochs=1, seed=5, backend="numpy-batched", out=folder / "run")
    request = {"dataset": str(npz), "data_dir": None, "image_size": None}
    (folder / "run" / "run.json").write_text(json.dumps(request))
    return folder / "run"


@pytest.fixture
def run(trained, tmp_path):
    """A run folder of its own, as pictures are written into it."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def test(npz):
    return library.load_dataset(npz)[1]


COMMANDS = ["kernels", "feature-maps", "patches", "convolution", "pooling"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_picture_goes_into_the_run_folder_and_its_words_are_printed(cnnkit, run, command):
    done = cnnkit("plot", command, run)
    path = run / f"{command}.png"
    assert done.code == 0, done.err
    with Image.open(path) as image:
        assert done.out.splitlines()[:2] == [f"Wrote {path}", image.info["Description"]]


@pytest.mark.parametrize("command", COMMANDS)
def test_json_has_path_and_words_and_out_may_be_svg(cnnkit, run, command):
    found = cnnkit("plot", command, run / "model.safetensors", "--out", "drawn.svg", "--json").json
    assert found["path"] == "drawn.svg"
    assert Path("drawn.svg").read_text(encoding="utf-8").count("<title>") == 1
    assert len(found["alt"]) > 60
    assert not (run / f"{command}.png").exists()


def test_kernels_are_shown_with_those_that_training_began_with(cnnkit, run):
    start = library.initial_parameters(MODEL, 5)["1.kernel"]
    alt = cnnkit("plot", "kernels", run, "--json").json["alt"]
    assert f"Before training they go from {start.min():.3g} to {start.max():.3g}" in alt
    alt = cnnkit("plot", "kernels", run, "--no-before", "--json").json["alt"]
    assert "Before training" not in alt


def test_without_a_state_it_is_not_known_where_training_began(cnnkit, run):
    found = library.load(run / "model.safetensors")
    library.save("bare.safetensors", found.model, found.parameters)
    assert "Before training" not in cnnkit("plot", "kernels", "bare.safetensors", "--json").json["alt"]
    done = cnnkit("plot", "kernels", "bare.safetensors", "--before")
    assert done.code == 2
    assert "bare.safetensors holds parameters alone, so the seed that they began with is not known." in done.err


def test_a_convolution_is_worked_out_in_text_and_in_json(cnnkit, run, test):
    found = library.load(run / "model.safetensors")
    worked = explain_convolution(MODEL, found.parameters, test.images[4], "numpy", filter=2, at=(1, 3))
    options = ("--index", 4, "--filter", 2, "--at", 1, 3, "-b", "numpy")
    done = cnnkit("plot", "convolution", run, *options)
    assert done.out.endswith(f"\n\n{worked}\n")
    assert cnnkit("plot", "convolution", run, *options, "--json").json["convolution"] == worked.to_dict()


def test_a_layer_a_filter_and_a_number_of_patches_can_be_chosen(cnnkit, run):
    alt = cnnkit("plot", "patches", run, "--filter", 3, "--filter", 1, "--count", 2, "--limit", 9, "--json").json["alt"]
    assert alt.startswith("For 2 filters of layers[1], a Conv2D, the patches of 9 images")
    assert alt.index("Filter 3:") < alt.index("Filter 1:")
    assert (
        "layers[2] MaxPool2D for one image: 4 maps"
        in cnnkit("plot", "feature-maps", run, "--layer", 2, "--json").json["alt"]
    )
    assert (
        cnnkit("plot", "pooling", run, "--channel", 3, "--json")
        .json["alt"]
        .startswith("Channel 3 before and after layers[2]")
    )


def test_an_image_file_can_be_looked_at(cnnkit, run, test):
    Image.fromarray(test.images[4, :, :, 0]).save("four.png")
    from_file = cnnkit("plot", "feature-maps", run, "four.png", "--json").json["alt"]
    assert from_file == cnnkit("plot", "feature-maps", run, "--index", 4, "--json").json["alt"]
    assert from_file != cnnkit("plot", "feature-maps", run, "--index", 5, "--json").json["alt"]


def test_another_data_set_and_its_training_part_can_be_named(cnnkit, run):
    alt = cnnkit("plot", "patches", run, "digits", "--part", "train", "--limit", 50, "--json").json["alt"]
    assert "the patches of 50 images" in alt
    assert "top" not in alt  # digits are not of the classes of the model


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plot", "kernels", "RUN", "--layer", "2"], "layer is 2, which is MaxPool2D; expected a Conv2D layer"),
        (["plot", "kernels", "RUN", "--out", "a.jpg"], "expected .png or .svg"),
        (
            ["plot", "pooling", "RUN", "--index", "30"],
            "--index is 30, but the test part has 30 images, numbered from 0",
        ),
        (["plot", "patches", "RUN", "--filter", "4"], "filter is 4; layers[1] has filters 0 to 3"),
        (["plot", "convolution", "RUN", "--at", "6", "0"], "have rows 0 to 5 and columns 0 to 5"),
        (["plot", "feature-maps", "RUN", "nowhere"], "nowhere"),
        (["plot", "feature-maps", "RUN", "--part", "all"], "--part is 'all'; expected test or train"),
        (
            ["trace", "RUN", "--label", "cat"],
            "--label is 'cat'; expected top, [middle], :bottom:, or a number from 0 to 2",
        ),
        (["trace", "RUN", "--label", "3"], "--label is '3'"),
        (["trace", "RUN", "--out", "step.zip"], "ends in '.zip'; expected .npz"),
    ],
)
def test_wrong_use_is_told_in_a_sentence(cnnkit, run, arguments, said):
    done = cnnkit(*(str(run) if argument == "RUN" else argument for argument in arguments))
    assert done.code == 2
    assert said in done.err
    assert not list(run.glob("*.png"))


def test_a_checkpoint_outside_a_run_needs_a_data_set(cnnkit, run):
    shutil.copy(run / "model.safetensors", "alone.safetensors")
    done = cnnkit("plot", "pooling", "alone.safetensors")
    assert done.code == 2
    assert "run.json is not there to say which data set is meant. Name a data set or an image." in done.err
    (run / "run.json").write_text("{")
    done = cnnkit("trace", run)
    assert done.code == 1
    assert "run.json is damaged" in done.err


# --------------------------------------------------------------------------------------------------------------- trace


def test_trace_shows_the_next_step_of_the_run(cnnkit, run, test):
    found = library.load(run / "model.safetensors")
    label = int(test.labels[4])
    expected = library.trace(MODEL, found.parameters, test.images[4], label, "numpy", seed=5, step=found.state.step)
    assert found.state.step == 1
    done = cnnkit("trace", run, "--index", 4, "-b", "numpy")
    assert done.out == f"{expected}\n"
    data = cnnkit("trace", run, "--index", 4, "-b", "numpy", "--json").json
    assert data == {"run": str(run), **json.loads(json.dumps(expected.to_dict())), "out": None}


def test_the_image_may_be_one_of_the_training_part(cnnkit, run, npz):
    train, test = library.load_dataset(npz)
    assert train.images[1].mean() != test.images[1].mean()
    for part, data in (("train", train), ("test", test)):
        found = cnnkit("trace", run, "--part", part, "--index", 1, "--no-gradients", "--json").json
        assert found["arrays"]["image"]["mean"] == pytest.approx(data.images[1].mean())


def test_all_arrays_of_a_trace_go_to_a_file(cnnkit, run):
    done = cnnkit("trace", run, "--out", "step.npz")
    with np.load("step.npz") as arrays:
        assert f"Wrote step.npz: {len(arrays.files)} arrays" in done.out
        assert arrays["gradient/1.kernel"].shape == (3, 3, 1, 4)
        assert arrays["1.output"].shape == arrays["gradient/1.output"].shape == (6, 6, 4)
    assert cnnkit("trace", run, "--no-gradients", "--json").json["arrays"].keys().isdisjoint({"gradient/1.kernel"})
    assert cnnkit("trace", run, "--out", "none/step.npz").code == 1


def test_an_image_file_is_traced_with_the_class_that_is_given(cnnkit, run, test):
    Image.fromarray(test.images[4, :, :, 0]).save("four.png")
    done = cnnkit("trace", run, "four.png")
    assert done.code == 2
    assert "an image file does not say its class. Give --label with a name or a number." in done.err
    by_name = cnnkit("trace", run, "four.png", "--label", "[middle]", "--json").json
    assert by_name["label"] == 1
    assert by_name == cnnkit("trace", run, "--index", 4, "--label", 1, "--json").json
