import hashlib
import json
import pickle
import platform
import struct
from importlib.metadata import version

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit import checkpoints
from cnnkit.checkpoints import load, save
from cnnkit.errors import CheckpointError, DataError
from cnnkit.model import Conv2D, Dense, Flatten, Model, Rescale, Softmax
from cnnkit.optimizers import SGD, Adam, CosineDecay
from cnnkit.parameters import initial_parameters
from cnnkit.state import TrainingState, initial_state, same_state

MODEL = Model(
    name="tiny ü",
    input_shape=(4, 5, 2),
    layers=[
        Rescale(scale=1 / 255),
        Conv2D(filters=3, kernel_size=(2, 3), padding=((1, 0), (0, 2)), activation="relu"),
        Flatten(),
        Dense(units=2, use_bias=False),
        Softmax(),
    ],
    class_names=["cat", 'the "other"'],
)
ADAM = Adam(learning_rate=CosineDecay(0.1, steps=7), clip_global_norm=1.5)


def a_state(precision="float32", optimizer=ADAM, seed=3):
    """A state none of whose arrays is zero, and no two alike."""
    start = initial_state(MODEL, optimizer, seed, precision)
    random = np.random.default_rng(seed)
    noisy = [
        {name: random.normal(size=array.shape).astype(precision) for name, array in arrays.items()}
        for arrays in (start.parameters, *start.slots.values())
    ]
    return TrainingState(noisy[0], dict(zip(start.slots, noisy[1:], strict=True)), 12, seed)


def bits(arrays):
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in arrays.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of a file that holds everything."""
    path = tmp_path_factory.mktemp("whole") / "run.safetensors"
    save(path, MODEL, a_state(), optimizer=ADAM, progress={"epoch": 2, "history": [0.5]}, best=a_state(seed=9))
    return path.read_bytes()


# --------------------------------------------------------------------------------------------------------- round trips


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_everything_comes_back_to_the_last_bit(tmp_path, precision):
    state, best = a_state(precision), a_state(precision, seed=9)
    progress = {"epoch": 3, "history": [{"loss": 0.1 + 0.2, "name": "ü", "none": None, "yes": True}], "big": 2**70}
    path = save(tmp_path / "run.safetensors", MODEL, state, optimizer=ADAM, progress=progress, best=best)
    found = load(str(path))
    assert found.path == path == tmp_path / "run.safetensors"
    assert found.model == MODEL
    assert found.optimizer == ADAM
    assert found.progress == progress
    assert same_state(found.state, state)
    assert same_state(found.best, best)
    assert bits(found.parameters) == bits(state.parameters)
    assert list(found.parameters) == ["1.kernel", "1.bias", "3.kernel"]


def test_what_was_loaded_prints_without_its_arrays(tmp_path):
    found = load(save(tmp_path / "run.safetensors", MODEL, a_state("float32"), optimizer=ADAM))
    assert "array(" not in repr(found)
    assert "TrainingState(" in repr(found)


def test_nan_payloads_infinities_and_minus_zero_keep_their_bits(tmp_path):
    patterns = np.array([0x7FC00001, 0xFFC12345, 0x7F800001, 0x7F800000, 0xFF800000, 0x80000000, 0x00000001], np.uint32)
    parameters = initial_parameters(MODEL)
    parameters["1.kernel"] = np.resize(patterns, parameters["1.kernel"].size).view(np.float32).reshape(2, 3, 2, 3)
    save(tmp_path / "a", MODEL, parameters)
    assert bits(load(tmp_path / "a").parameters) == bits(parameters)


@settings(deadline=None, max_examples=25)
@given(
    st.dictionaries(
        st.text(max_size=4),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
            lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
            max_leaves=6,
        ),
        max_size=3,
    )
)
def test_any_progress_comes_back_as_it_was(tmp_path_factory, progress):
    path = save(tmp_path_factory.mktemp("p") / "a", MODEL, initial_parameters(MODEL), progress=progress)
    assert repr(load(path).progress) == repr(progress)


def test_parameters_alone_can_only_predict(tmp_path):
    parameters = initial_parameters(MODEL, seed=5)
    save(tmp_path / "a", MODEL, parameters)
    found = load(tmp_path / "a")
    assert (found.state, found.optimizer, found.progress, found.best) == (None, None, None, None)
    assert bits(found.parameters) == bits(parameters)


def test_a_state_without_slots_or_optimizer_is_still_a_state(tmp_path):
    state = a_state(optimizer=SGD(learning_rate=0.1))
    save(tmp_path / "a", MODEL, state)
    assert same_state(load(tmp_path / "a").state, state)


def test_the_slots_of_a_model_without_parameters_are_not_forgotten(tmp_path):
    model = Model(input_shape=(2, 2, 1), layers=[Flatten(), Softmax()])
    save(tmp_path / "a", model, initial_state(model, ADAM), optimizer=ADAM)
    assert load(tmp_path / "a").state.slots == {"m": {}, "v": {}}


def test_the_versions_say_who_wrote_the_file(tmp_path):
    save(tmp_path / "a", MODEL, initial_parameters(MODEL))
    assert load(tmp_path / "a").versions == {
        "cnnkit": version("cnnkit"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "checkpoint": "1",
        "model": "1",
    }


@pytest.mark.parametrize(
    "change",
    [
        np.asfortranarray,
        lambda array: array.astype(array.dtype.newbyteorder(">")),
        lambda array: np.repeat(array, 2, axis=0)[::2],
        lambda array: np.flip(np.flip(array).copy()),
    ],
    ids=["fortran", "big-endian", "strided", "negative strides"],
)
def test_the_file_does_not_depend_on_how_an_array_lies_in_memory(tmp_path, change):
    parameters = initial_parameters(MODEL)
    save(tmp_path / "a", MODEL, {name: change(array) for name, array in parameters.items()})
    assert bits(load(tmp_path / "a").parameters) == bits(parameters)


def test_what_is_loaded_can_be_written_to(tmp_path, whole):
    (tmp_path / "a").write_bytes(whole)
    found = load(tmp_path / "a")
    found.parameters["1.kernel"][:] = 0
    assert (tmp_path / "a").read_bytes() == whole


def test_any_safetensors_reader_finds_the_documented_names(tmp_path, whole):
    (tmp_path / "a").write_bytes(whole)
    names = {"1.kernel", "1.bias", "3.kernel"}
    sections = ("parameters/", "slots/m/", "slots/v/", "best/parameters/", "best/slots/m/", "best/slots/v/")
    with safetensors.safe_open(tmp_path / "a", framework="numpy") as file:
        assert set(file.keys()) == {section + name for section in sections for name in names}
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - the file is no mapping
    assert metadata["format"] == "cnnkit-checkpoint"
    assert metadata["version"] == "1"
    assert json.loads(metadata["model"]) == MODEL.to_dict()
    assert json.loads(metadata["state"]) == {"step": 12, "seed": 3, "slots": ["m", "v"]}
    assert json.loads(metadata["best"]) == {"step": 12, "seed": 9, "slots": ["m", "v"]}
    assert json.loads(metadata["progress"]) == {"epoch": 2, "history": [0.5]}
    assert json.loads(metadata["optimizer"])["kind"] == "adam"
    # The digest as it is documented, written once more.
    signed = {key: text for key, text in metadata.items() if key != "sha256"}
    text = json.dumps(signed, sort_keys=True).encode() + b"\n"
    for name in sorted(tensors):
        text += f'["{name}", "float32", {list(tensors[name].shape)}]\n'.encode()
        text += struct.pack(f"<{tensors[name].size}f", *tensors[name].ravel())
    assert metadata["sha256"] == hashlib.sha256(text).hexdigest()


# -------------------------------------------------------------------------------------------------------------- saving


def test_a_failed_save_leaves_the_old_checkpoint(tmp_path, monkeypatch, whole):
    path = tmp_path / "run.safetensors"
    path.write_bytes(whole)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match=r"cannot save .*run.safetensors: No space left on device.*unchanged"):
        save(path, MODEL, initial_parameters(MODEL))
    assert path.read_bytes() == whole
    assert [found.name for found in tmp_path.iterdir()] == ["run.safetensors"]


def test_a_folder_that_is_not_there_is_named_and_not_made(tmp_path):
    with pytest.raises(CheckpointError, match=r"there is no folder .*nowhere. Create the folder first"):
        save(tmp_path / "nowhere" / "a", MODEL, initial_parameters(MODEL))
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_does_not_replace_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"it is a folder. Give the name of a file, such as .*model.safetensors"):
        save(tmp_path, MODEL, initial_parameters(MODEL))
    assert tmp_path.is_dir()


def misfits():
    state = a_state()
    without = {name: array for name, array in state.parameters.items() if name != "1.bias"}
    wider = {**state.parameters, "1.bias": np.zeros(4, np.float32)}
    half = {name: array.astype(np.float16) for name, array in state.parameters.items()}
    short_slot = TrainingState(state.parameters, {"m": without, "v": state.slots["v"]}, 0, 0)
    return [
        ((without,), {}, "parameters lack 1.bias"),
        ((wider,), {}, r"'1.bias' is float32 of shape \(4,\)"),
        ((half,), {}, "parameters/1.kernel is float16; a checkpoint holds float32 or float64"),
        (
            (state,),
            {"optimizer": SGD(learning_rate=1, momentum=0.5)},
            "the state has slots m, v, but SGD keeps velocity",
        ),
        ((short_slot,), {}, "parameters lack 1.bias"),
        ((state,), {"best": short_slot}, "parameters lack 1.bias"),
    ]


@pytest.mark.parametrize(("arguments", "options", "message"), misfits())
def test_what_does_not_fit_the_model_is_not_saved(tmp_path, arguments, options, message):
    with pytest.raises(DataError, match=message):
        save(tmp_path / "a", MODEL, *arguments, **options)
    assert list(tmp_path.iterdir()) == []


def test_progress_that_is_not_plain_data_is_not_saved(tmp_path):
    with pytest.raises(CheckpointError, match=r"progress is not plain data .*ndarray.*Use dict, list"):
        save(tmp_path / "a", MODEL, initial_parameters(MODEL), progress={"x": np.zeros(2)})
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------------------------- damaged files


def test_a_file_cut_anywhere_is_refused(tmp_path, whole):
    path = tmp_path / "cut"
    for end in range(0, len(whole), 97):
        path.write_bytes(whole[:end])
        with pytest.raises(CheckpointError, match=r"cut is not a checkpoint, or is damaged"):
            load(path)


def test_bytes_added_at_the_end_are_refused(tmp_path, whole):
    (tmp_path / "long").write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match="long is not a checkpoint, or is damaged"):
        load(tmp_path / "long")


def test_one_flipped_bit_anywhere_is_found(tmp_path, whole):
    path = tmp_path / "flipped"
    header = 8 + int.from_bytes(whole[:8], "little")
    positions = [*range(16), *range(16, header, 11), *range(header - 8, header), *range(header, len(whole), 7)]
    assert len(positions) > 500
    unnoticed = []
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        try:
            load(path)
        except CheckpointError as error:
            assert "flipped" in str(error)  # noqa: PT017 - whether there is an error is what the loop asks
        else:
            unnoticed.append(position)
    # Only a space that fills the header up may become another kind of white space, and no bit apart does that.
    assert unnoticed == []


def test_a_flipped_bit_in_any_byte_of_a_small_file_is_found(tmp_path):
    path = tmp_path / "flipped"
    model = Model(input_shape=(2,), layers=[Dense(units=2, use_bias=False), Softmax()])
    save(path, model, initial_state(model, SGD(learning_rate=0.5)), optimizer=SGD(learning_rate=0.5))
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << (position * 5 % 8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="flipped"):
            load(path)


def test_two_arrays_exchanged_are_found(tmp_path, whole):
    """The numbers are all there, each valid: only the digest can tell."""
    size = int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8 : 8 + size])
    one, other = header["slots/m/1.kernel"], header["slots/v/1.kernel"]
    one["data_offsets"], other["data_offsets"] = other["data_offsets"], one["data_offsets"]
    text = json.dumps(header).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(text)) + text + whole[8 + size :])
    with pytest.raises(CheckpointError, match="is damaged: its contents do not have the SHA-256 digest"):
        load(tmp_path / "a")


# -------------------------------------------------------------------------------------------------------- foreign files


def test_a_missing_file_a_folder_and_an_empty_file_are_told_apart(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*none: there is no such file. Correct the path"):
        load(tmp_path / "none")
    with pytest.raises(CheckpointError, match=r"it is a folder. Give the checkpoint file in it"):
        load(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(CheckpointError, match=r"It is empty; use another copy"):
        load(tmp_path / "empty")


class Trap:
    """Runs when it is unpickled."""

    opened = False

    def __reduce__(self):
        return (setattr, (Trap, "opened", True))


@pytest.mark.parametrize("protocol", range(2, 6))
def test_a_pickle_is_refused_and_not_opened(tmp_path, protocol):
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Trap(), protocol))
    with pytest.raises(CheckpointError, match=r"model.pkl .*looks like a pickle.*can run code"):
        load(tmp_path / "model.pkl")
    assert not Trap.opened


def test_an_archive_such_as_a_pt_file_is_refused(tmp_path):
    with (tmp_path / "model.pt").open("wb") as file:
        np.savez(file, weights=np.zeros(3))  # a zip file, as torch.save writes
    with pytest.raises(CheckpointError, match=r"model.pt .*looks like a pickle or an archive"):
        load(tmp_path / "model.pt")


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}])
def test_a_safetensors_file_of_another_program_is_refused(tmp_path, metadata):
    (tmp_path / "a").write_bytes(safetensors.numpy.save({"w": np.zeros(2)}, metadata))
    with pytest.raises(CheckpointError, match=r"metadata does not say format = 'cnnkit-checkpoint': another program"):
        load(tmp_path / "a")


def test_a_file_with_numbers_that_numpy_does_not_have_is_refused(tmp_path):
    header = json.dumps(
        {
            "__metadata__": dict.fromkeys(("model", "versions", "sha256"), "")
            | {"format": checkpoints.FORMAT, "version": "1"},
            "w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]},
        }
    ).encode()
    (tmp_path / "a").write_bytes(struct.pack("<Q", len(header)) + header + bytes(2))
    with pytest.raises(CheckpointError, match="is not a checkpoint, or is damaged"):
        load(tmp_path / "a")


# --------------------------------------------- files with a right digest that say something that cannot be, or is too new


@pytest.fixture
def forge(tmp_path):
    """Write a checkpoint with other metadata or tensors, and the digest that belongs to them."""

    def write(metadata=None, *, tensors=None, without=()):
        path = save(tmp_path / "forged", MODEL, a_state(), optimizer=ADAM, progress={"epoch": 1})
        with safetensors.safe_open(path, framework="numpy") as file:
            all_metadata = file.metadata() | (metadata or {})
            all_tensors = {name: file.get_tensor(name) for name in file.keys()} | (tensors or {})  # noqa: SIM118 - no mapping
        for name in without:
            all_metadata.pop(name, None)
            all_tensors.pop(name, None)
        if "sha256" not in without:
            all_metadata["sha256"] = checkpoints._digest(all_tensors, all_metadata)
        path.write_bytes(safetensors.numpy.save(all_tensors, all_metadata))
        return path

    return write


def test_an_untouched_forgery_loads(forge):
    assert load(forge()).model == MODEL  # or the refusals below would prove nothing


def test_a_newer_file_says_upgrade(forge):
    with pytest.raises(
        CheckpointError, match=r"forged has checkpoint format 2, and this cnnkit reads up to 1. Upgrade"
    ):
        load(forge({"version": "2"}))


def dumped(**changes):
    return json.dumps({**MODEL.to_dict(), **changes})


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"version": "one"}, r"is damaged: its version is 'one'"),
        ({"extra": "x"}, r"is damaged: it has 'extra', which is unknown"),
        ({"model": "{"}, r"cannot be used: its 'model' is not JSON"),
        ({"model": "[" * 100_000}, r"cannot be used: its 'model' is not JSON"),
        ({"model": "[]"}, r"cannot be used: its 'model' is list, not a table"),
        ({"model": dumped(input_shape=[0, 5, 2])}, r"cannot be used: .*input_shape is \[0, 5, 2\]; expected"),
        ({"model": dumped(version=2)}, r"cannot be used: .*version is 2; this cnnkit reads version 1"),
        ({"model": dumped(input_shape=[4, 1, 2])}, r"cannot be used: .*'3.kernel' is float32 of shape \(60, 2\)"),
        ({"model": dumped(input_shape=[1, 1, 2], class_names=["x"])}, r"cannot be used: .*class_names has 1 names"),
        ({"optimizer": '{"kind": "newton"}'}, r"cannot be used: optimizer kind is 'newton'"),
        ({"optimizer": '{"kind": "sgd", "learning_rate": 1}'}, r"cannot be used: the state has slots m, v, but SGD"),
        ({"optimizer": '{"kind": "adam", "beta_1": 2}'}, r"cannot be used: Adam: beta_1 is 2"),
        ({"optimizer": '"adam"'}, r"cannot be used: its 'optimizer' is str, not"),
        ({"state": '{"step": -1, "seed": 0, "slots": ["m", "v"]}'}, r"the step of its state is -1; expected"),
        ({"state": '{"step": 1, "seed": true, "slots": ["m", "v"]}'}, r"the seed of its state is True; expected"),
        ({"state": '{"step": 1, "seed": 0}'}, r"the slots of its state are None; expected"),
        ({"state": '{"step": 1, "seed": 0, "slots": ["m", "v", "w"]}'}, r"parameters lack 1.kernel, 1.bias, 3.kernel"),
        ({"best": '{"step": 1, "seed": 0, "slots": ["m", "v"]}'}, r"parameters lack 1.kernel, 1.bias, 3.kernel"),
        ({"progress": "3"}, r"its 'progress' is int, not a table"),
        ({"versions": "null"}, r"its 'versions' is NoneType, not a table"),
    ],
)
def test_what_cannot_be_is_refused_with_its_reason(forge, metadata, message):
    with pytest.raises(CheckpointError, match=r"(?s)forged .*" + message):
        load(forge(metadata))


@pytest.mark.parametrize("name", ["model", "versions", "sha256", "version"])
def test_metadata_that_is_lacking_is_named(forge, name):
    with pytest.raises(CheckpointError, match=f"is damaged: .*it lacks '{name}'"):
        load(forge(without=[name]))


@pytest.mark.parametrize(
    ("tensors", "without", "message"),
    [
        ({"parameters/9.kernel": np.zeros(2, np.float32)}, [], "parameters have 9.kernel too many"),
        ({"stray": np.zeros(2, np.float32)}, [], "nothing in the file says what 'stray' is for"),
        ({}, ["parameters/1.bias"], "parameters lack 1.bias"),
        ({}, ["slots/v/3.kernel"], "parameters lack 3.kernel"),
        ({"parameters/1.bias": np.zeros(3, np.int32)}, [], "'1.bias' is int32"),
        ({"parameters/1.bias": np.zeros(3, np.float16)}, [], "parameters/1.bias is float16; a checkpoint holds"),
    ],
)
def test_tensors_that_do_not_fit_are_named(forge, tensors, without, message):
    with pytest.raises(CheckpointError, match=f"forged cannot be used: .*{message}"):
        load(forge(tensors=tensors, without=without))


def test_what_is_neither_state_nor_parameters_is_not_saved(tmp_path):
    model = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
    with pytest.raises(DataError, match="state is a list; expected a TrainingState or parameters by name"):
        save(tmp_path / "x.safetensors", model, [1.0])
    assert list(tmp_path.iterdir()) == []
