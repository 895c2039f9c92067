"""The file formats: what is read, and that what is damaged is one clear error."""

import gzip
import io
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.datasets.archives import read_cifar10, read_idx, read_npz
from cnnkit.errors import DataError

PAIR = [("images", "labels")]


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


# -------------------------------------------------------------------------------------------------------------- .npz


def test_the_first_layout_whose_keys_are_all_there_is_read(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=[1], y=[2], images=[3], labels=[4], more=[5], z=[6])
    found = read_npz(path, [("x_train", "y_train"), ("images", "labels"), ("x", "y")], optional=["more", "none"])
    assert {key: array.tolist() for key, array in found.items()} == {"images": [3], "labels": [4], "more": [5]}


def test_missing_keys_are_named_beside_those_that_are_there(tmp_path):
    np.savez(tmp_path / "a.npz", images=[1], label=[2])
    with pytest.raises(
        DataError, match=r"a\.npz holds images, label; expected the arrays \(images, labels\)\. .*savez"
    ):
        read_npz(tmp_path / "a.npz", PAIR)


def test_python_objects_are_refused_and_never_unpickled(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.exit, ("a pickle was loaded",))

    np.savez(tmp_path / "a.npz", images=np.zeros(1), labels=np.array([Bomb()], dtype=object))
    with pytest.raises(
        DataError, match=r"a\.npz holds Python objects, which we do not load because unpickling runs code"
    ):
        read_npz(tmp_path / "a.npz", PAIR)


def make_npy():
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(3))
    return buffer.getvalue()


def make_zip_of_text():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("images.npy", "no array")
        archive.writestr("labels.npy", "no array")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is not a zip archive"),
        (b"some text", "it is not a zip archive"),
        (pickle.dumps([1, 2]), "it is not a zip archive"),
        (make_npy(), "it is not a zip archive"),
        (npz_bytes(images=np.arange(1000), labels=np.arange(3))[:-40], "it is not a zip archive.* or was cut off"),
        (make_zip_of_text(), "images in it is not an array"),
    ],
    ids=["empty", "text", "pickle", "npy", "truncated", "zip of text"],
)
def test_files_that_are_no_npz_are_refused(tmp_path, content, message):
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.npz cannot be read: {message}"):
        read_npz(tmp_path / "a.npz", PAIR)


def test_an_encrypted_archive_is_refused(tmp_path):
    content = bytearray(npz_bytes(images=[1], labels=[2]))
    for head, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(head) + flags] |= 1  # the bit that says so, in both heads of the first array
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz cannot be read: .*encrypted"):
        read_npz(tmp_path / "a.npz", PAIR)


@pytest.mark.parametrize("shape", ["(9999999999999,)", "(10**30,)", "(99999999999999999999,)", "(1, (2,"])
def test_an_array_that_claims_a_size_it_does_not_have_is_refused(tmp_path, shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode())
        archive.writestr("labels.npy", b"")
    with pytest.raises(DataError, match=r"a\.npz cannot be read: "):
        read_npz(tmp_path / "a.npz", PAIR)


def test_a_changed_byte_in_the_data_is_noticed(tmp_path):
    content = bytearray(npz_bytes(images=np.arange(1000), labels=np.arange(3)))
    content[400] ^= 0xFF
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        read_npz(tmp_path / "a.npz", PAIR)


@given(st.data())
@settings(deadline=None)
def test_no_damage_ends_in_another_error(tmp_path_factory, data):
    content = bytearray(npz_bytes(images=np.arange(50, dtype=np.uint8), labels=np.arange(3)))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "a.npz"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    try:
        found = read_npz(path, PAIR)
    except DataError:
        return
    assert found.keys() == {"images", "labels"}


# --------------------------------------------------------------------------------------------------------------- IDX


def idx(*sizes, values=b"", kind=8):
    return gzip.compress(struct.pack(">BBBB", 0, 0, kind, len(sizes)) + struct.pack(f">{len(sizes)}I", *sizes) + values)


def test_idx_is_read_in_c_order(tmp_path):
    (tmp_path / "a.gz").write_bytes(idx(2, 1, 3, values=bytes([1, 2, 3, 4, 5, 255])))
    array = read_idx(tmp_path / "a.gz")
    assert array.dtype == np.uint8
    assert array.tolist() == [[[1, 2, 3]], [[4, 5, 255]]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"text", "cannot be read"),
        (idx(4, values=b"abcd")[:-9], "cannot be read"),
        (gzip.compress(b"\0\0\x08"), "is not an IDX file"),
        (gzip.compress(b"\0\0\x08\x02\0\0\0\x01"), "is not an IDX file"),
        (idx(2, values=b"ab", kind=13), "is not an IDX file"),
        (idx(3, values=b"ab"), r"says \(3,\) but holds 2 bytes"),
        (idx(1, values=b"ab"), r"says \(1,\) but holds 2 bytes"),
    ],
    ids=["no gzip", "cut off", "short head", "short sizes", "floats", "too few", "too many"],
)
def test_damaged_idx_is_refused(tmp_path, content, message):
    (tmp_path / "a.gz").write_bytes(content)
    with pytest.raises(DataError, match=rf"a\.gz {message}.*Delete it"):
        read_idx(tmp_path / "a.gz")


# ---------------------------------------------------------------------------------------------------------- CIFAR-10

RECORD = 1 + 3 * 32 * 32


def cifar_members():
    """Six files of one record each, labels 1 to 6, byte i of the pixels being i modulo 251."""
    pixels = bytes(place % 251 for place in range(RECORD - 1))
    names = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]
    return {f"cifar-10-batches-bin/{name}": bytes([label]) + pixels for label, name in enumerate(names, start=1)}


def write_tar(path, members):
    """`members` by name; what is not bytes but a name becomes a link to it."""
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def test_cifar_records_become_channels_last_in_the_order_of_the_batches(tmp_path):
    members = cifar_members()
    write_tar(tmp_path / "a.tar.gz", {"../outside.bin": b"?", **dict(reversed(members.items()))})
    x_train, y_train, x_test, y_test = read_cifar10(tmp_path / "a.tar.gz")
    assert (x_train.shape, x_test.shape) == ((5, 32, 32, 3), (1, 32, 32, 3))
    assert y_train.tolist() == [1, 2, 3, 4, 5]
    assert y_test.tolist() == [6]
    for row, column, channel in [(0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 1), (31, 30, 2)]:
        assert x_train[4, row, column, channel] == (1024 * channel + 32 * row + column) % 251
    assert [path.name for path in tmp_path.rglob("*")] == ["a.tar.gz"]  # nothing was unpacked
    assert not (tmp_path.parent / "outside.bin").exists()


@pytest.mark.parametrize("name", ["cifar-10-batches-bin/data_batch_3.bin", "cifar-10-batches-bin/test_batch.bin"])
@pytest.mark.parametrize("content", [None, b"\0" * (RECORD - 1)], ids=["missing", "short"])
def test_a_cifar_archive_without_a_whole_batch_is_refused(tmp_path, name, content):
    members = cifar_members()
    del members[name]
    if content is not None:
        members[name] = content
    write_tar(tmp_path / "a.tar.gz", members)
    with pytest.raises(DataError, match=rf"a\.tar\.gz has no whole {name}"):
        read_cifar10(tmp_path / "a.tar.gz")


def test_a_cifar_batch_that_is_a_link_is_not_followed(tmp_path):
    members = cifar_members() | {"cifar-10-batches-bin/test_batch.bin": "cifar-10-batches-bin/data_batch_1.bin"}
    write_tar(tmp_path / "a.tar.gz", members)
    with pytest.raises(DataError, match=r"has no whole cifar-10-batches-bin/test_batch\.bin"):
        read_cifar10(tmp_path / "a.tar.gz")


@pytest.mark.parametrize("keep", [0, 10, 400], ids=["empty", "head", "half"])
def test_a_cifar_archive_that_was_cut_off_is_refused(tmp_path, keep):
    write_tar(tmp_path / "a.tar.gz", cifar_members())
    content = (tmp_path / "a.tar.gz").read_bytes()
    assert len(content) > 400
    (tmp_path / "a.tar.gz").write_bytes(content[:keep])
    with pytest.raises(DataError, match=r"a\.tar\.gz (cannot be read|has no whole).*Delete it"):
        read_cifar10(tmp_path / "a.tar.gz")
