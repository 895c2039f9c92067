"""Known data sets: the user's folder first, then the cache, then the network; whole and right, or not at all."""

import dataclasses
import gzip
import hashlib
import io
import re
import struct
import sys
from pathlib import Path

import numpy as np
import pooch
import pytest

from cnnkit.datasets.sources import CIFAR10, FASHION_MNIST, MNIST, SOURCES, RemoteFile, Source, fetch, load_source
from cnnkit.errors import DataError, DownloadError, MissingDependency


def made_arrays():
    """4 and 2 images of 2 x 3, each filled with its own number."""
    images = np.arange(6, dtype=np.uint8)[:, np.newaxis, np.newaxis].repeat(2, axis=1).repeat(3, axis=2)
    return {"x_train": images[:4], "y_train": [0, 1, 2, 0], "x_test": images[4:], "y_test": [2, 1]}


def npz_bytes(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


GOOD = npz_bytes(**made_arrays())


def made_source(*urls, content=GOOD, **changes):
    source = Source(
        name="made",
        files=(RemoteFile("made.npz", hashlib.sha256(content).hexdigest(), urls),),
        read=MNIST.read,
        image_shape=(2, 3, 1),
        class_names=("a", "b", "c"),
        counts=(4, 2),
    )
    return dataclasses.replace(source, **changes)


def cached_files(tmp_path):
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file())


# ---------------------------------------------------------------------------------------------------------- download


def test_a_download_gives_the_data_and_is_asked_for_once(server, tmp_path):
    server.pages["/made.npz"] = GOOD
    source = made_source(f"{server.url}/made.npz")
    train, test = load_source(source, None)
    assert train.images[:, 1, 2, 0].tolist() == [0, 1, 2, 3]
    assert test.images[:, 0, 0, 0].tolist() == [4, 5]
    assert (train.images.dtype, train.image_shape) == (np.uint8, (2, 3, 1))
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2, 0], [2, 1])
    assert train.class_names == test.class_names == ("a", "b", "c")
    load_source(source, None)
    assert server.asked == ["/made.npz"]
    assert cached_files(tmp_path) == ["made.npz"]


def test_what_is_cached_needs_no_server(server):
    server.pages["/made.npz"] = GOOD
    source = made_source(f"{server.url}/made.npz")
    fetch(source)
    server.close()
    train, _ = load_source(source, None)
    assert len(train) == 4


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (GOOD + b"?", r"SHA256 hash of downloaded file"),
        (b"<html>Please log in</html>", r"SHA256 hash of downloaded file"),
        ((GOOD[:100], len(GOOD)), r"IncompleteRead"),
    ],
    ids=["changed", "another page", "cut off"],
)
def test_a_wrong_answer_is_an_error_and_leaves_nothing_in_the_cache(server, tmp_path, page, reason):
    server.pages["/made.npz"] = page
    with pytest.raises(
        DownloadError, match=rf"every address of made\.npz failed\.\n  {server.url}/made\.npz: .*{reason}"
    ):
        load_source(made_source(f"{server.url}/made.npz"), None)
    assert cached_files(tmp_path) == []


def test_the_next_address_is_tried_after_one_that_fails(server):
    server.pages["/wrong/made.npz"] = b"something else"
    server.pages["/second/made.npz"] = GOOD
    fetch(made_source(*(f"{server.url}/{folder}/made.npz" for folder in ("first", "wrong", "second", "third"))))
    assert server.asked == ["/first/made.npz", "/wrong/made.npz", "/second/made.npz"]


def test_every_failed_address_is_listed_with_its_reason_and_the_way_without_a_network(server):
    server.pages["/wrong/made.npz"] = b"something else"
    source = made_source(f"{server.url}/none/made.npz", f"{server.url}/wrong/made.npz", "http://127.0.0.1:1/made.npz")
    with pytest.raises(DownloadError) as caught:
        fetch(source)
    first, *reasons, last = str(caught.value).splitlines()
    assert first == "made could not be downloaded: every address of made.npz failed."
    assert len(reasons) == 3
    assert re.match(rf"  {server.url}/none/made\.npz: 404 ", reasons[0])
    assert re.match(rf"  {server.url}/wrong/made\.npz: SHA256 hash", reasons[1])
    assert re.match(r"  http://127\.0\.0\.1:1/made\.npz: .*refused", reasons[2])
    assert re.match(r"Check the network, or work offline: put made\.npz, .* --data-dir DIR .*CNNKIT_DATA_DIR", last)


def test_a_damaged_file_in_the_cache_is_fetched_again(server, tmp_path):
    server.pages["/made.npz"] = GOOD
    (tmp_path / "cache" / "made").mkdir(parents=True)
    (tmp_path / "cache" / "made" / "made.npz").write_bytes(GOOD[:-1])
    (path,) = fetch(made_source(f"{server.url}/made.npz"))
    assert path.read_bytes() == GOOD


def test_a_damaged_file_in_the_cache_is_never_used(tmp_path):
    (tmp_path / "cache" / "made").mkdir(parents=True)
    (tmp_path / "cache" / "made" / "made.npz").write_bytes(GOOD + b"?")
    with pytest.raises(DownloadError, match=r"made could not be downloaded"):
        load_source(made_source("http://127.0.0.1:1/made.npz"), None)


def test_of_several_files_only_those_that_are_missing_are_asked_for(server):
    contents = {"one": b"1", "two": b"22"}
    files = tuple(
        RemoteFile(name, hashlib.sha256(content).hexdigest(), (f"{server.url}/{name}",))
        for name, content in contents.items()
    )
    source = made_source(files=files)
    server.pages["/one"] = contents["one"]
    with pytest.raises(DownloadError, match=r"every address of two failed"):
        fetch(source)
    server.pages["/two"] = contents["two"]
    assert [path.read_bytes() for path in fetch(source)] == [b"1", b"22"]
    assert server.asked == ["/one", "/two", "/two"]


@pytest.mark.parametrize("slash", ["", "/"])
def test_the_mirror_of_the_environment_is_tried_first(server, monkeypatch, slash):
    monkeypatch.setenv("CNNKIT_DATA_MIRROR", f"{server.url}/mirror{slash}")
    server.pages["/made.npz"] = GOOD
    fetch(made_source(f"{server.url}/made.npz"))
    assert server.asked == ["/mirror/made.npz", "/made.npz"]


def test_without_a_setting_the_cache_is_where_pooch_puts_it(server, monkeypatch, tmp_path):
    monkeypatch.delenv("CNNKIT_CACHE_DIR")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "system" / project)
    server.pages["/made.npz"] = GOOD
    assert fetch(made_source(f"{server.url}/made.npz")) == [tmp_path / "system" / "cnnkit" / "made" / "made.npz"]


def test_a_cache_that_cannot_be_made_is_named(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CNNKIT_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(DataError, match=r"the cache folder .*made cannot be made: .*CNNKIT_CACHE_DIR"):
        fetch(made_source())


def test_without_pooch_the_command_that_installs_it_is_given(monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(MissingDependency, match=r"Downloading made needs pooch.*pip install 'cnnkit\[data\]'"):
        fetch(made_source())


def test_other_counts_than_the_source_has_are_refused(server):
    server.pages["/made.npz"] = GOOD
    with pytest.raises(DataError, match=r"holds 4 and 2 images; made has 5 and 2\. Delete that folder"):
        load_source(made_source(f"{server.url}/made.npz", counts=(5, 2)), None)


# ---------------------------------------------------------------------------------------------------- the user's own


def test_the_file_of_the_user_comes_before_cache_and_network(server, tmp_path):
    server.pages["/made.npz"] = GOOD
    source = made_source(f"{server.url}/made.npz")
    fetch(source)
    # Fewer images, a channel axis, labels in a column and another type: all as users have them.
    np.savez(
        tmp_path / "made.npz",
        x_train=np.full((2, 2, 3, 1), 9, np.uint8),
        y_train=[[2], [1]],
        x_test=np.full((1, 2, 3), 8, np.uint8),
        y_test=np.array([0], np.int32),
    )
    train, test = load_source(source, tmp_path)
    assert train.images.tolist() == np.full((2, 2, 3, 1), 9).tolist()
    assert train.labels.tolist() == [2, 1]
    assert test.images.shape == (1, 2, 3, 1)
    assert len(server.asked) == 1


def test_a_folder_of_the_user_without_the_file_is_no_obstacle_and_is_named_when_all_fails(server, tmp_path):
    source = made_source(f"{server.url}/made.npz")
    with pytest.raises(DownloadError, match=rf"work offline \({re.escape(str(tmp_path))} has no made\.npz\)"):
        load_source(source, tmp_path)
    server.pages["/made.npz"] = GOOD
    train, _ = load_source(source, tmp_path)
    assert len(train) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x_test": np.zeros((2, 2, 3), np.float32)}, r"x_test has float32 images of 2 x 3 x 1; made has uint8 images"),
        ({"x_train": np.zeros((4, 3, 3), np.uint8)}, r"x_train has uint8 images of 3 x 3 x 1; made has .* 2 x 3 x 1"),
        ({"y_train": [0, 1]}, r"x_train and y_train: there are 4 images but 2 labels"),
        ({"y_test": [0, 3]}, r"x_test and y_test: labels\[1\] is 3; expected whole numbers from 0 to 2"),
        ({"x_train": np.zeros((4, 6), np.uint8)}, r"x_train has uint8 images of 6; made has"),
    ],
)
def test_a_file_of_the_user_that_is_something_else_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "made.npz", **made_arrays() | changes)
    with pytest.raises(DataError, match=rf"{re.escape(str(tmp_path))}.made\.npz.*{message}"):
        load_source(made_source(), tmp_path)


def test_a_file_of_the_user_without_the_keys_of_keras_is_refused(tmp_path):
    np.savez(tmp_path / "made.npz", images=[1], labels=[2])
    with pytest.raises(
        DataError, match=r"holds images, labels; expected the arrays \(x_train, y_train, x_test, y_test\)"
    ):
        load_source(made_source(), tmp_path)


# -------------------------------------------------------------------------------------------------- the known sources


def test_the_four_files_of_fashion_mnist_are_told_apart(server):
    def idx(*sizes, first):
        values = bytes(range(first, first + int(np.prod(sizes))))
        kind = struct.pack(f">BBBB{len(sizes)}I", 0, 0, 8, len(sizes), *sizes)
        return gzip.compress(kind + values)

    contents = {
        "train-images-idx3-ubyte.gz": idx(3, 2, 3, first=100),
        "train-labels-idx1-ubyte.gz": idx(3, first=0),
        "t10k-images-idx3-ubyte.gz": idx(1, 2, 3, first=200),
        "t10k-labels-idx1-ubyte.gz": idx(1, first=7),
    }
    assert [file.name for file in FASHION_MNIST.files] == list(contents)
    files = tuple(
        RemoteFile(file.name, hashlib.sha256(contents[file.name]).hexdigest(), (f"{server.url}/{file.name}",))
        for file in FASHION_MNIST.files
    )
    server.pages |= {f"/{name}": content for name, content in contents.items()}
    train, test = load_source(
        dataclasses.replace(FASHION_MNIST, files=files, image_shape=(2, 3, 1), counts=(3, 1)), None
    )
    assert train.images[2, :, :, 0].tolist() == [[112, 113, 114], [115, 116, 117]]
    assert test.images[0, 1, 2, 0] == 205
    assert (train.labels.tolist(), test.labels.tolist()) == ([0, 1, 2], [7])
    assert test.class_names[7] == "Sneaker"


@pytest.mark.parametrize("source", SOURCES.values(), ids=lambda source: source.name)
def test_a_known_source_is_written_down_rightly(source):
    assert SOURCES[source.name] is source
    assert len(source.class_names) == 10
    for file in source.files:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert len(file.urls) >= 2
        for url in file.urls:
            assert re.fullmatch(rf"https?://[a-z0-9.-]+/\S*{re.escape(file.name)}", url)


def test_the_known_sources_have_the_published_sizes_and_classes():
    assert (MNIST.image_shape, MNIST.counts, MNIST.class_names[3]) == ((28, 28, 1), (60000, 10000), "3")
    assert (FASHION_MNIST.image_shape, FASHION_MNIST.counts) == ((28, 28, 1), (60000, 10000))
    assert FASHION_MNIST.class_names[0] == "T-shirt/top"
    assert FASHION_MNIST.class_names[9] == "Ankle boot"
    assert (CIFAR10.image_shape, CIFAR10.counts) == ((32, 32, 3), (50000, 10000))
    assert CIFAR10.class_names[3] == "cat"
    assert Path(CIFAR10.files[0].name).suffixes == [".tar", ".gz"]
