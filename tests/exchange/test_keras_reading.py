"""What Keras's users write in a Sequential, and what a stranger may have put into a file."""

import copy
import io
import json
import marshal
import subprocess
import sys
import warnings
import zipfile
from base64 import b64encode

import h5py
import numpy as np
import pytest
from models import parameters_of

from cnnkit import (
    AvgPool2D,
    CheckpointError,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    MaxPool2D,
    Model,
    ModelError,
    ReLU,
    Rescale,
    Softmax,
    Tanh,
)
from cnnkit.exchange import export_model, import_model
from cnnkit.exchange.from_keras import from_keras
from cnnkit.exchange.keras_file import read

MODEL = Model(
    input_shape=(6, 5, 1),
    layers=[Conv2D(filters=2, kernel_size=3, activation="relu"), Flatten(), Dense(units=3), Softmax()],
)
PARAMETERS = parameters_of(MODEL)


@pytest.fixture
def members(tmp_path):
    """The members of a good file."""
    with zipfile.ZipFile(export_model(MODEL, PARAMETERS, tmp_path / "good.keras")) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "metadata.json"}


@pytest.fixture
def config(members):
    """The configuration of a good file: conv2d is layers[1], flatten layers[2], dense layers[3], softmax layers[4]."""
    return json.loads(members["config.json"])


@pytest.fixture
def file(tmp_path, members):
    """A function that writes a file with another configuration or other members, and returns its path."""

    def write(config=None, compression=zipfile.ZIP_STORED, **others):
        if config is not None:
            members["config.json"] = json.dumps(config).encode()
        path = tmp_path / "model.keras"
        with zipfile.ZipFile(path, "w", compression) as archive:
            for name, data in (members | others).items():
                archive.writestr(name, data)
        return path

    return write


def keras(class_name, module="keras.layers", **config):
    return {"module": module, "class_name": class_name, "config": {"name": "it", **config}, "registered_name": None}


def layers_of(config):
    return config["config"]["layers"]


# -------------------------------------------------------------------------------------------- what users really write


@pytest.mark.parametrize(
    ("layer", "ours"),
    [
        (keras("Rescaling", scale=2, offset=-1.0), [Rescale(scale=2, offset=-1.0)]),
        (keras("Activation", activation="tanh"), [Tanh()]),
        (keras("Activation", activation="linear"), []),
        (keras("ReLU", max_value=None, negative_slope=0.0, threshold=0.0), [ReLU()]),
        (keras("Dropout", rate=0.25, seed=7, noise_shape=None), [Dropout(rate=0.25)]),
        (keras("MaxPooling2D", pool_size=[2, 1], strides=[2, 1]), [MaxPool2D(pool_size=(2, 1), strides=(2, 1))]),
        (
            keras("AveragePooling2D", pool_size=[2, 2], padding="same", strides=[1, 1]),
            [AvgPool2D(pool_size=(2, 2), strides=(1, 1), padding="same")],
        ),
        (keras("GlobalAveragePooling2D", keepdims=False), [AvgPool2D(pool_size=(4, 3)), Flatten()]),
        (keras("GlobalMaxPooling2D", keepdims=False), [MaxPool2D(pool_size=(4, 3)), Flatten()]),
    ],
    ids=lambda value: value["class_name"] if isinstance(value, dict) else "",
)
def test_a_layer_of_keras_becomes_ours(layer, ours, file, config):
    layers_of(config)[2:] = [layer]
    model, _ = import_model(file(config))
    assert list(model.layers[1:]) == ours


def test_a_dense_layer_with_softmax_becomes_two_layers(file, config):
    layers_of(config)[3]["config"]["activation"] = "softmax"
    del layers_of(config)[4]
    model, parameters = import_model(file(config))
    assert model.plan().operations == MODEL.plan().operations
    assert np.array_equal(parameters["2.kernel"], PARAMETERS["2.kernel"])


def test_a_compiled_model_of_keras_with_its_policies_and_initialisers_is_read(file, config, members):
    policy = {"module": "keras", "class_name": "DTypePolicy", "config": {"name": "float32"}, "registered_name": None}
    for layer in layers_of(config):
        layer["config"]["dtype"] = {**policy, "shared_object_id": 1}
        layer["build_config"] = {"input_shape": [None, 1]}
    layers_of(config)[0]["config"]["dtype"] = "uint8"
    layers_of(config)[3]["config"]["quantization_config"] = None
    config["compile_config"] = {"optimizer": keras("Adam", "keras.optimizers")}
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "a") as store:
        store["optimizer/vars/0"] = np.ones(3)
        store["layers/dropout/seed_generator/vars/0"] = np.ones(2, np.uint32)
    model, parameters = import_model(file(config, **{"model.weights.h5": weights.getvalue()}))
    assert model.plan().operations == MODEL.plan().operations
    assert list(parameters) == list(PARAMETERS)


def test_the_first_files_of_this_kind_name_things_otherwise(file, config, members):
    """Keras of TensorFlow 2.13: another name for the input shape, and for the group of all layers."""
    first = layers_of(config)[0]["config"]
    first["batch_input_shape"] = first.pop("batch_shape")
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "a") as store:
        store.move("layers", "_layer_checkpoint_dependencies")
    model, parameters = import_model(file(config, **{"model.weights.h5": weights.getvalue()}))
    assert model.plan().operations == MODEL.plan().operations
    assert np.array_equal(parameters["0.kernel"], PARAMETERS["0.kernel"])


def test_a_model_without_an_input_layer_has_the_shape_that_it_was_built_for(file, config):
    del layers_of(config)[0]
    assert import_model(file(config))[0].input_shape == (6, 5, 1)
    del config["config"]["build_input_shape"]
    with pytest.raises(ModelError, match=r"build_input_shape is None; .*keras\.Input"):
        import_model(file(config))


def test_an_image_without_channels_has_one(file, config):
    layers_of(config)[0]["config"]["batch_shape"] = [None, 6, 5]
    del layers_of(config)[1:3]
    layers_of(config)[1:] = [keras("Flatten")]
    assert import_model(file(config))[0].input_shape == (6, 5, 1)


def test_what_ends_in_zero_padding_or_pads_twice_is_refused(file, config):
    pad = keras("ZeroPadding2D", padding=[[1, 0], [2, 1]], data_format="channels_last")
    layers = layers_of(config)
    stands = r"layers\[{}\] \(ZeroPadding2D 'it'\) stands before {}"
    cases = [
        (2, {}, stands.format(2, r"layers\[3\] \(Flatten")),
        (5, {}, stands.format(5, "the end of the model")),
        (1, {"padding": "same"}, "padding adds to that of the ZeroPadding2D before it"),
    ]
    for where, more, message in cases:
        changed = copy.deepcopy(config)
        layers_of(changed)[1]["config"].update(more)
        layers_of(changed).insert(where, pad)
        with pytest.raises(ModelError, match=message):
            import_model(file(changed))
    layers.insert(1, pad)
    layers[4] = keras("Activation", activation="linear") | {
        "config": {"name": "end", "activation": "linear"}
    }  # the dense layer would not fit the larger image
    del layers[5]
    assert import_model(file(config))[0].layers[0].padding == ((1, 0), (2, 1))


# --------------------------------------------------------------------------------------------- what we have no word for


@pytest.mark.parametrize(
    ("where", "option", "value", "message"),
    [
        (1, "groups", 2, r"layers\[1\] \(Conv2D 'conv2d_0'\) groups is 2; cnnkit has only 1"),
        (1, "groups", True, "groups is True; cnnkit has only 1"),
        (1, "data_format", "channels_first", "data_format is 'channels_first'"),
        (1, "padding", "causal", "padding is 'causal'"),
        (1, "padding", [[1, 1], [1, 1]], "padding is .*; cnnkit has only 'valid' and 'same'"),
        (1, "activation", "gelu", "activation is 'gelu'; cnnkit has relu, tanh, sigmoid, softmax and linear"),
        (1, "activation", {"class_name": "function", "config": "mine", "module": "x"}, "activation is 'mine'"),
        (1, "filters", 1.5, r"layers\[1\] \(Conv2D 'conv2d_0'\) filters is 1\.5; expected a whole number"),
        (1, "filters", True, "filters is True; expected a whole number"),
        (1, "kernel_size", [0, 1], r"kernel_size is \[0, 1\]"),
        (1, "kernel_size", [9, 9], r"layers\[1\] \(Conv2D 'conv2d_0'\)\.kernel_size is \(9, 9\), which does not fit"),
        (1, "lora_rank", 4, "lora_rank is 4; cnnkit does not know this option"),
        (1, "dtype", "mixed_float16", "dtype is 'mixed_float16'; cnnkit reads layers that compute in float32"),
        (1, "dtype", {"class_name": "QuantizedDTypePolicy", "config": {"name": "float32"}}, "dtype is {"),
        (3, "dtype", {"class_name": "DTypePolicy", "config": {"name": "bfloat16"}}, "dtype is 'bfloat16'"),
        (3, "dtype", "uint8", "dtype is 'uint8'"),
        (3, "use_bias", "yes", "use_bias is 'yes'"),
        (4, "axis", 0, r"layers\[4\] \(Softmax 'softmax_3'\) axis is 0"),
        (4, "name", "conv2d_0", r"layers\[4\] is a second layer called 'conv2d_0'"),
        (0, "batch_shape", [None, None, 5, 1], "batch_shape is .*needs every size of an image but the batch's"),
        (0, "batch_shape", "large", "batch_shape is 'large'"),
        (0, "sparse", True, "sparse is True"),
    ],
)
def test_an_option_that_we_do_not_have_is_refused_with_its_place(where, option, value, message, file, config):
    layers_of(config)[where]["config"][option] = value
    with pytest.raises(ModelError, match=r"model\.keras(?s:.*)" + message):
        import_model(file(config))


@pytest.mark.parametrize("option", ["filters", "kernel_size"])
def test_an_option_that_is_missing_is_said(option, file, config):
    del layers_of(config)[1]["config"][option]
    with pytest.raises(ModelError, match=f"{option} is missing"):
        import_model(file(config))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            keras("BatchNormalization"),
            r"layers\[2\] \(BatchNormalization 'it'\) is of the class 'BatchNormalization' of",
        ),
        (keras("ReLU", max_value=6.0, negative_slope=0.0, threshold=0.0), r"max_value is 6\.0"),
        (keras("ReLU", max_value=None, negative_slope=0.1, threshold=0.0), r"negative_slope is 0\.1"),
        (keras("Rescaling", scale=[1.0, 2.0, 3.0]), r"scale is \[1\.0, 2\.0, 3\.0\]; expected a finite number"),
        (keras("Dropout", rate=1.0), r"rate is 1\.0"),
        (keras("Dropout", rate=0.5, noise_shape=[None, 1]), "noise_shape is"),
        (keras("MaxPooling2D", padding=[[1, 1], [1, 1]]), "padding is"),
        (keras("ZeroPadding2D", padding="valid"), "padding is 'valid'"),
        (keras("InputLayer", batch_shape=[None, 2]), "stands within the model"),
        (keras("Softmax"), "is Softmax, which stands only at the end"),
        (keras("GlobalAveragePooling2D", keepdims=True), "keepdims is True"),
        ("Flatten", r"layers\[2\] is no layer with a class_name and a config"),
        ({"class_name": ["Flatten"], "config": {}}, "is of the class"),
    ],
    ids=lambda value: value["class_name"] if isinstance(value, dict) and isinstance(value["class_name"], str) else "",
)
def test_a_layer_that_we_do_not_have_is_refused_with_its_place(layer, message, file, config):
    layers_of(config)[2] = layer
    with pytest.raises(ModelError, match=message):
        import_model(file(config))


def test_all_that_is_wrong_is_said_at_once(file, config):
    layers_of(config)[1]["config"].update(groups=2, activation="gelu")
    layers_of(config)[2] = keras("Attention")
    with pytest.raises(ModelError, match="has 3 problems") as refused:
        import_model(file(config))
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_name": "Functional"}, "config.json says 'Functional', and cnnkit reads a Sequential"),
        ({"module": "elsewhere"}, "cnnkit reads a Sequential"),
        ({"registered_name": "Mine>Sequential"}, "says that the model is 'Mine>Sequential', a class of somebody's own"),
        ({"config": {"layers": 3}}, "has no list of layers"),
        ({"config": None}, "has no list of layers"),
        ({"config": {"layers": [], "build_input_shape": [None, 2]}}, "layers is empty"),
    ],
)
def test_what_is_no_sequential_of_keras_is_refused(change, message, file, config):
    with pytest.raises(ModelError, match=message):
        import_model(file(config | change))


@pytest.mark.parametrize("data", [[], None, 3, "Sequential"])
def test_json_that_is_no_table_is_refused(data, file):
    with pytest.raises(ModelError, match="cnnkit reads a Sequential"):
        import_model(file(**{"config.json": json.dumps(data)}))


ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    "",
    "relu",
    [],
    [[]],
    [1, 1],
    [None, 3],
    {},
    {"class_name": []},
    "x" * 99,
]


def places(data, before=()):
    """The way to everything in a tree of tables and lists."""
    for key, value in data.items() if isinstance(data, dict) else enumerate(data):
        yield (*before, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*before, key))


def test_whatever_stands_anywhere_is_read_or_refused_as_a_model(config):
    layers_of(config).insert(1, keras("ZeroPadding2D", padding=[[1, 0], [2, 1]], data_format="channels_last"))
    layers_of(config)[2:3] = [*layers_of(config)[2:3], keras("Rescaling", scale=2), keras("Dropout", rate=0.5)]
    for number, layer in enumerate(layers_of(config)):
        layer["config"]["name"] = str(number)
    outcomes = {"read": 0, "refused": 0}
    for place in list(places(config)):
        for odd in ODD:
            changed = copy.deepcopy(config)
            parent = changed
            for key in place[:-1]:
                parent = parent[key]
            parent[place[-1]] = odd
            try:
                assert from_keras(changed, "odd.keras").model.plan().operations
                outcomes["read"] += 1
            except ModelError as error:
                assert str(error).startswith("odd.keras")  # noqa: PT017 - many errors, all of them ours
                outcomes["refused"] += 1
    assert outcomes["refused"] > 500
    assert outcomes["read"] > 500


# ------------------------------------------------------------------------------------------------- nothing of it is run


def marshalled(path):
    code = compile(f"open({str(path)!r}, 'w').close()", "x", "exec")
    return b64encode(marshal.dumps(code)).decode()


@pytest.mark.parametrize(
    "how", ["module", "registered name", "lambda", "activation", "initializer", "dtype", "compile"]
)
def test_code_that_a_file_names_or_holds_is_not_run(how, file, config, tmp_path, monkeypatch):
    trace = tmp_path / "it-ran"
    (tmp_path / "evil_layers.py").write_text(f"open({str(trace)!r}, 'w').close()\nclass Flatten: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    evil = {
        "module": "evil_layers",
        "class_name": "Flatten",
        "config": {"name": "f"},
        "registered_name": "evil>Flatten",
    }
    boom = {"class_name": "__lambda__", "config": {"value": marshalled(trace)}}
    layers, refused = layers_of(config), True
    match how:
        case "module":
            layers[2] = evil | {"registered_name": None}
        case "registered name":
            layers[2]["registered_name"] = "evil_layers>Flatten"
        case "lambda":
            layers[2] = keras("Lambda", function=boom)
        case "activation":
            layers[1]["config"]["activation"] = boom
        case "dtype":
            layers[1]["config"]["dtype"] = evil
        case "initializer":
            layers[1]["config"].update(kernel_initializer=evil, bias_regularizer=boom)
            refused = False
        case "compile":
            config["compile_config"] = {"optimizer": evil, "loss": boom}
            refused = False
    path = file(config)
    if refused:
        with pytest.raises(ModelError, match=r"layers\[[12]\] \("):
            import_model(path)
    else:
        assert import_model(path)[0].plan().operations == MODEL.plan().operations
    assert not trace.exists()
    assert "evil_layers" not in sys.modules


def test_the_code_would_leave_a_trace_if_it_ran(tmp_path):
    subprocess.run([sys.executable, "-c", f"open({str(tmp_path / 'it-ran')!r}, 'w').close()"], check=True)
    assert (tmp_path / "it-ran").exists()


# ------------------------------------------------------------------------------------------------- archives of strangers


def test_a_file_cut_off_anywhere_is_damaged(file, tmp_path):
    whole = file().read_bytes()
    cut = tmp_path / "cut.keras"
    for length in [*range(0, len(whole), 97), len(whole) - 1]:
        cut.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"cut\.keras"):
            read(cut)


def test_one_flipped_bit_anywhere_is_never_a_foreign_error(file, tmp_path):
    whole = bytearray(file().read_bytes())
    flipped, refused = tmp_path / "flipped.keras", 0
    for place in range(0, len(whole), 53):
        whole[place] ^= 16
        flipped.write_bytes(whole)
        whole[place] ^= 16
        try:
            read(flipped)
        except (CheckpointError, ModelError):
            refused += 1
    assert refused > len(whole) // 53 * 0.9


def test_any_byte_of_the_table_of_contents_changed_is_never_a_foreign_error(file, tmp_path):
    whole = bytearray(file(compression=zipfile.ZIP_DEFLATED).read_bytes())
    changed, refused, begin = tmp_path / "changed.keras", 0, whole.index(b"PK\x01\x02")
    for place in [*range(60), *range(begin, len(whole))]:
        for value in (0, 9, 255):
            kept, whole[place] = whole[place], value
            changed.write_bytes(whole)
            whole[place] = kept
            try:
                read(changed)
            except (CheckpointError, ModelError):
                refused += 1
    assert refused > 100


def test_a_place_beyond_any_file_is_an_error_of_ours(file):
    path = file()
    with zipfile.ZipFile(path, "a") as archive:
        archive.infolist()[0].header_offset = 1 << 63
        archive.writestr("metadata.json", "{}")
    with pytest.raises(CheckpointError, match="it is damaged"):
        import_model(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_compressed_in_another_way_is_refused(compression, file):
    with pytest.raises(CheckpointError, match=r"its .* is compressed in a way that no \.keras file is"):
        import_model(file(compression=compression))


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("HeNormal", "he_normal"),
        ("GlorotNormal", "glorot_normal"),
        ("he_uniform", "he_uniform"),
        ("Orthogonal", "glorot_uniform"),
        ({"class_name": "HeUniform", "config": {}}, "he_uniform"),
        (["HeNormal"], "glorot_uniform"),
    ],
)
def test_initialisers_that_we_have_are_kept_for_training_anew(theirs, ours, file, config):
    layers_of(config)[1]["config"]["kernel_initializer"] = theirs
    assert import_model(file(config))[0].layers[0].kernel_initializer == ours


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is no zip archive"),
        (b"\x80\x04\x95pickle", "it is no zip archive"),
        (b"\x89HDF\r\n\x1a\n rest", "it is an HDF5 file, the format of Keras before 3"),
        (b"PK\x03\x04 and nothing else", "it is damaged"),
    ],
)
def test_what_is_no_archive_is_said_to_be_none(data, message, tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"model\.keras cannot be imported: {message}"):
        import_model(path)


def test_a_file_that_is_not_there_and_a_folder_are_errors(tmp_path):
    (tmp_path / "folder.keras").mkdir()
    for name, message in (("none.keras", "there is no such file"), ("folder.keras", "it is a folder")):
        with pytest.raises(CheckpointError, match=f"cannot read .*{name}: {message}"):
            import_model(tmp_path / name)


def test_a_place_that_cannot_be_looked_at_is_an_error_of_ours(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*x\.keras: "):
        import_model(tmp_path / ("x" * 300 + ".keras"))


@pytest.mark.parametrize("name", ["../outside.txt", "assets/words.txt", "model.weights.npz", "/etc/x", "config.json "])
def test_a_member_that_does_not_belong_there_is_refused(name, file, tmp_path):
    before = set(tmp_path.rglob("*"))
    path = file(**{name: b"x"})
    with pytest.raises(CheckpointError, match=r"a \.keras file of our layers has only config\.json"):
        import_model(path)
    assert set(tmp_path.rglob("*")) - before == {path}


@pytest.mark.parametrize("name", ["config.json", "model.weights.h5"])
def test_a_member_that_is_missing_or_there_twice_is_refused(name, file, members):
    path = file()
    with warnings.catch_warnings(), zipfile.ZipFile(path, "a") as archive:
        warnings.simplefilter("ignore")  # zipfile's own, of a name twice
        archive.writestr(name, members[name])
    with pytest.raises(CheckpointError, match=f"it holds {name} twice"):
        import_model(path)
    del members[name]
    with pytest.raises(CheckpointError, match=f"it lacks {name}"):
        import_model(file())


def test_an_archive_that_was_packed_again_is_read(file):
    assert import_model(file(compression=zipfile.ZIP_DEFLATED))[0].plan().operations == MODEL.plan().operations


def test_a_member_that_grows_a_thousandfold_is_not_unpacked(file, monkeypatch):
    path = file(compression=zipfile.ZIP_DEFLATED, **{"model.weights.h5": bytes(70 << 20)})
    monkeypatch.setattr(zipfile.ZipFile, "read", lambda *_: pytest.fail("it was unpacked"))
    with pytest.raises(CheckpointError, match=r"its model\.weights\.h5 would grow from .* to 73,400,320 bytes"):
        import_model(path)


def test_endless_text_is_not_unpacked(file):
    path = file(compression=zipfile.ZIP_DEFLATED, **{"config.json": b" " * (17 << 20)})
    with pytest.raises(CheckpointError, match=r"its config\.json has 17,825,792 bytes, more than any model needs"):
        import_model(path)


@pytest.mark.parametrize(
    "text",
    [b"{", b"\xff\xfe", b"[" * 100_000, b'{"a":' * 100_000, b"1" * 5000, b""],
    ids=["cut off", "no text", "deep list", "deep table", "long number", "empty"],
)
@pytest.mark.parametrize("name", ["config.json", "metadata.json"])
def test_what_is_no_json_is_damaged(text, name, file):
    with pytest.raises(CheckpointError, match=f"its {name} is not JSON"):
        import_model(file(**{name: text}))


@pytest.mark.parametrize(("deep", "error"), [(59, ModelError), (60, CheckpointError)], ids=["64 in all", "65 in all"])
def test_no_more_than_64_lists_and_tables_hold_one_another(deep, error, file, config):
    layers_of(config)[1]["config"]["filters"] = "here"
    path = file(**{"config.json": json.dumps(config).replace('"here"', "[" * deep + "]" * deep).encode()})
    with pytest.raises(error, match=r"filters is|its config\.json has more than 64 lists"):
        import_model(path)


@pytest.mark.parametrize(("digits", "error"), [(100, "bytes of weights"), (101, "a number of 101 digits")])
@pytest.mark.parametrize("option", ["filters", "kernel_size", "dilation_rate"])
def test_a_number_too_long_for_a_message_is_damaged(digits, error, option, file, config):
    long = int("9" * digits)
    layers_of(config)[0]["config"]["batch_shape"] = [None, long, long, long]
    layers_of(config)[1]["config"] |= {"padding": "same", option: long}
    layers_of(config)[3]["config"]["units"] = long
    with pytest.raises(CheckpointError, match=error):
        import_model(file(config))


def test_an_encrypted_member_is_an_error_of_ours(file):
    path = file()
    data = bytearray(path.read_bytes())
    for sign, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flags of a member, at both of their places
        data[data.index(sign) + place] |= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match="it is damaged"):
        import_model(path)


# ----------------------------------------------------------------------------------------------------- weights of strangers

KERNEL = "layers/conv2d/vars/0"


def linked(store):
    del store[KERNEL]
    store[KERNEL] = h5py.SoftLink("/layers/dense/vars/0")


def group_linked(store):
    store.move("layers/conv2d", "elsewhere")
    store["layers/conv2d"] = h5py.SoftLink("/elsewhere")


def root_linked(store):
    store.move("layers", "elsewhere")
    store["layers"] = h5py.SoftLink("/elsewhere")


def other_file(store):
    with h5py.File("other.h5", "w") as other:
        other["kernel"] = PARAMETERS["0.kernel"]
    del store[KERNEL]
    store[KERNEL] = h5py.ExternalLink("other.h5", "kernel")


def replaced(**how):
    def change(store):
        del store[KERNEL]
        store.create_dataset(KERNEL, **how)

    return change


def outside(store):
    PARAMETERS["0.kernel"].tofile("raw.bin")
    replaced(shape=(3, 3, 1, 2), dtype="<f4", external=[("raw.bin", 0, h5py.h5f.UNLIMITED)])(store)


def virtual(store):
    with h5py.File("other.h5", "w") as other:
        other["kernel"] = PARAMETERS["0.kernel"]
    layout = h5py.VirtualLayout(shape=(3, 3, 1, 2), dtype="<f4")
    layout[...] = h5py.VirtualSource("other.h5", "kernel", shape=(3, 3, 1, 2))
    del store[KERNEL]
    store.create_virtual_dataset(KERNEL, layout)


def surplus(store):
    store["layers/conv2d/vars/2"] = np.ones(2, "<f4")


def misnamed(store):
    store.move("layers/conv2d/vars/1", "layers/conv2d/vars/7")


def without(store):
    del store["layers/conv2d"]


def no_group(store):
    del store["layers/conv2d"]
    store["layers/conv2d"] = np.ones(3)


def group_for_array(store):
    del store[KERNEL]
    store.create_group(KERNEL)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (linked, "/layers/conv2d/vars/0 is a SoftLink, and links to other places are not followed"),
        (group_linked, "/layers/conv2d is a SoftLink"),
        (root_linked, "/layers is a SoftLink"),
        (other_file, "/layers/conv2d/vars/0 is a ExternalLink"),
        (outside, "lies in another file"),
        (virtual, "lies in another file"),
        (replaced(data=np.ones((3, 3, 1, 2), "<f4"), compression="gzip"), "is compressed, which Keras does not do"),
        (replaced(shape=(3, 3, 1, 2), dtype="<f4", chunks=(3, 3, 1, 1)), "promises more numbers than it stores"),
        (replaced(data=np.ones((3, 3, 1, 2), "<f8")), r"is float64 of shape \(3, 3, 1, 2\); its layer has float32"),
        (replaced(data=np.ones((3, 3, 1, 2), "<i4")), "is int32"),
        (replaced(data=np.ones((3, 3, 2), "<f4")), r"is float32 of shape \(3, 3, 2\); its layer has float32 of shape"),
        (replaced(shape=(1 << 40, 1 << 20), dtype="<f4", chunks=(1, 1)), r"of shape \(1099511627776, 1048576\)"),
        (replaced(data=np.array("text", object), dtype=h5py.string_dtype()), "is object"),
        (replaced(data=h5py.Empty("<f4")), "of shape None"),
        (surplus, "/layers/conv2d/vars has 3 arrays, and its layer has 2"),
        (misnamed, "/layers/conv2d/vars has"),
        (without, "/layers/conv2d is missing"),
        (no_group, "/layers/conv2d is no group"),
        (group_for_array, "/layers/conv2d/vars/0 is no array"),
    ],
    ids=lambda value: "" if isinstance(value, str) else value.__name__,
)
def test_weights_that_are_not_plain_arrays_of_the_layer_are_refused(change, message, file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where links would lead
    with zipfile.ZipFile(file()) as archive:
        (tmp_path / "weights.h5").write_bytes(archive.read("model.weights.h5"))
    with h5py.File("weights.h5", "a") as store:
        change(store)
    with pytest.raises(
        CheckpointError, match=r"model\.keras cannot be imported: in its model\.weights\.h5, .*" + message
    ):
        import_model(file(**{"model.weights.h5": (tmp_path / "weights.h5").read_bytes()}))


def test_weights_in_big_endian_are_the_same_numbers(file, members):
    weights = io.BytesIO(members["model.weights.h5"])
    with h5py.File(weights, "a") as store:
        replaced(data=PARAMETERS["0.kernel"].astype(">f4"))(store)
    _, parameters = import_model(file(**{"model.weights.h5": weights.getvalue()}))
    assert parameters["0.kernel"].dtype == np.dtype(np.float32)
    assert np.array_equal(parameters["0.kernel"], PARAMETERS["0.kernel"])


def test_layers_that_would_need_more_weights_than_there_are_bytes_are_refused_at_once(file, config):
    layers_of(config)[3]["config"]["units"] = 10**12
    with pytest.raises(CheckpointError, match=r"its layers need 100,000,000,000,08\d bytes of weights|its layers need"):
        import_model(file(config))


@pytest.mark.parametrize("data", [b"", b"no HDF5", b"\x89HDF\r\n\x1a\n" + bytes(5000)], ids=["empty", "text", "zeros"])
def test_weights_that_are_no_hdf5_are_damaged(data, file):
    with pytest.raises(CheckpointError, match=r"model\.weights\.h5"):
        import_model(file(**{"model.weights.h5": data}))
