"""The mistakes of a model are found in one pass, ordered by how sure it was, and kept in a file that cannot lie."""

import zipfile

import numpy as np
import pytest

import cnnkit
from cnnkit import CheckpointError, DataError, Dataset, Dense, Model, ModelError, OptionError, Softmax, TrainingError
from cnnkit.backend import Backend, Program
from cnnkit.mistakes import Mistakes, worst_mistakes

SCORES = Model(input_shape=(3,), layers=[Softmax()])
"""A model whose scores are the pixels themselves."""


def log_odds(*probabilities):
    """Scores whose softmax is `probabilities`."""
    return np.log(np.array(probabilities))


DATA = Dataset(
    log_odds(
        (0.7, 0.2, 0.1),  # right
        (0.1, 0.6, 0.3),  # 0 taken for 1
        (0.05, 0.05, 0.9),  # 1 taken for 2
        (0.3, 0.6, 0.1),  # 2 taken for 1, as sure as the second
        (0.1, 0.1, 0.8),  # right
        (0.5, 0.3, 0.2),  # 1 taken for 0
    ),
    np.array([0, 0, 1, 2, 2, 1]),
)


def test_the_surest_mistake_comes_first_and_of_equals_the_first_in_the_data():
    found = worst_mistakes(SCORES, {}, DATA)
    assert found.indices.tolist() == [2, 1, 3, 5]
    assert found.labels.tolist() == [1, 0, 2, 1]
    assert found.predicted.tolist() == [2, 1, 1, 0]
    np.testing.assert_allclose(found.probabilities, [0.9, 0.6, 0.6, 0.5])
    np.testing.assert_array_equal(found.images, DATA.images[[2, 1, 3, 5]])
    assert (found.total, found.judged, len(found)) == (4, 6, 4)


def test_count_keeps_the_surest_and_total_tells_of_all():
    found = worst_mistakes(SCORES, {}, DATA, count=2)
    assert found.indices.tolist() == [2, 1]
    assert (found.total, found.judged) == (4, 6)
    fewer = found.limit(1)
    assert fewer.indices.tolist() == [2]
    assert len(fewer.images) == len(fewer.predicted) == len(fewer.probabilities) == 1
    assert (fewer.total, fewer.judged) == (4, 6)
    assert len(found.limit(100)) == 2


def test_at_a_tie_of_scores_the_lowest_class_is_the_one_that_was_said():
    found = worst_mistakes(SCORES, {}, Dataset(np.ones((2, 3)), np.array([0, 2])))
    assert found.indices.tolist() == [1]
    assert found.predicted.tolist() == [0]
    np.testing.assert_allclose(found.probabilities, [1 / 3])


def test_scores_beyond_the_range_of_exp_still_have_an_order():
    scores = np.array([[0, 5e4, 0], [0, 3e4, 3e4 - 1]], np.float32)
    found = worst_mistakes(SCORES, {}, Dataset(scores, np.array([0, 0])))
    np.testing.assert_allclose(found.probabilities, [1, 1 / (1 + np.exp(-1))])


def test_the_total_is_what_the_confusion_matrix_has_off_its_diagonal_even_where_probabilities_round_to_a_tie():
    # In float32 both probabilities are 0.5, and class 1 still has the higher score.
    model = Model(input_shape=(1,), layers=[Dense(units=2, use_bias=False), Softmax()])
    parameters = {"0.kernel": np.array([[0, 1e-9]], np.float32)}
    data = Dataset(np.ones((1, 1), np.float32), np.array([0]))
    assert cnnkit.predict(model, parameters, data.images)[0].tolist() == [0.5, 0.5]
    off_diagonal = cnnkit.evaluate(model, parameters, data).confusion[0, 1]
    assert worst_mistakes(model, parameters, data).total == off_diagonal == 1


def small():
    model = Model(input_shape=(2,), layers=[Dense(units=2), Softmax()])
    kernel = np.array([[1, 0], [0, 1]], np.float32)
    return model, {"0.kernel": kernel, "0.bias": np.zeros(2, np.float32)}


class Counting(Backend):
    """Remembers how many images went through it."""

    def __init__(self):
        self.images = 0

    def compile(self, plan, parameters):
        inner, outer = cnnkit.get_backend("numpy").compile(plan, parameters), self

        class Counted(Program):
            def predict(self, images):
                outer.images += len(images)
                return inner.predict(images)

        return Counted()


def test_every_image_goes_through_the_model_once():
    model, parameters = small()
    data = Dataset(np.random.default_rng(0).random((10, 2), np.float32), np.arange(10) % 2)
    backend = Counting()
    found = worst_mistakes(model, parameters, data, backend, batch_size=3)
    assert found.total > 0
    assert backend.images == 10


def test_a_model_without_mistakes_has_none(tmp_path):
    model, parameters = small()
    found = worst_mistakes(model, parameters, Dataset(np.eye(2, dtype=np.float32), np.arange(2), ["a", "b"]))
    assert (len(found), found.total, found.judged) == (0, 0, 2)
    assert found.images.shape == (0, 2)
    again = Mistakes.load(found.save(tmp_path / "none.npz"))
    assert again.images.shape == (0, 2)
    assert (len(again), again.total, again.judged, again.class_names) == (0, 0, 2, ("a", "b"))
    assert len(found.limit(3)) == 0


def test_no_images_are_no_mistakes():
    model, parameters = small()
    found = worst_mistakes(model, parameters, Dataset(np.zeros((0, 2), np.float32), np.zeros(0, int)))
    assert (len(found), found.total, found.judged) == (0, 0, 0)


@pytest.mark.parametrize(
    ("of_model", "of_data", "expected"),
    [
        (("x", "y"), None, ("x", "y")),
        (None, ("x", "y"), ("x", "y")),
        (None, None, None),
        (None, ("x",), None),  # the data names fewer classes than the model tells apart
    ],
)
def test_names_are_those_of_the_model_or_else_of_the_data(of_model, of_data, expected):
    model, parameters = small()
    model = Model(**{**dict(model), "class_names": of_model})
    data = Dataset(np.array([[0, 1]], np.float32), np.array([0]), of_data)
    found = worst_mistakes(model, parameters, data)
    assert found.class_names == expected
    assert found.name(1) == ("y" if expected else "1")


def test_what_cannot_be_judged_is_refused():
    model, parameters = small()
    data = Dataset(np.eye(2, dtype=np.float32), np.array([1, 0]))
    with pytest.raises(OptionError, match="count is 0"):
        worst_mistakes(model, parameters, data, count=0)
    with pytest.raises(ModelError, match="ends in Softmax"):
        worst_mistakes(model.prefix(0), parameters, data)
    with pytest.raises(DataError, match="the data has 3 classes"):
        worst_mistakes(model, parameters, Dataset(data.images, np.array([1, 2])))
    with pytest.raises(DataError, match="data is ndarray; expected a data set"):
        worst_mistakes(model, parameters, data.images)
    with pytest.raises(TrainingError, match="holds NaN"):
        worst_mistakes(model, {**parameters, "0.bias": np.full(2, np.nan, np.float32)}, data)


# ---------------------------------------------------------------------------------------------------------------- files


def kept(dtype=np.uint8, names=("[b]", "$x$", "c" * 60)):
    images = (np.arange(2 * 3 * 4).reshape(2, 3, 4, 1) * 9.5).astype(dtype)
    return Mistakes(
        images, np.array([0, 2]), np.array([2, 1]), np.array([0.75, 0.5]), np.array([7, 3]), names, total=5, judged=9
    )


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.float64])
@pytest.mark.parametrize("names", [None, ("[b]", "$x$", "c" * 60)])
def test_a_file_gives_back_what_was_saved(tmp_path, dtype, names):
    saved = kept(dtype, names)
    found = Mistakes.load(saved.save(tmp_path / "mistakes.npz"))
    for field in ("images", "labels", "predicted", "probabilities", "indices"):
        one, other = getattr(found, field), getattr(saved, field)
        np.testing.assert_array_equal(one, other)
        assert one.dtype == other.dtype
    assert (found.class_names, found.total, found.judged) == (names, 5, 9)
    assert type(found.total) is type(found.judged) is int


def test_the_file_has_the_name_that_was_given_and_is_the_same_every_time(tmp_path):
    one, other = kept().save(tmp_path / "one"), kept().save(tmp_path / "other.npz")
    assert one.name == "one"
    assert one.read_bytes() == other.read_bytes()


def test_a_place_that_is_not_there_is_our_error(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot save .*none.*No such file"):
        kept().save(tmp_path / "none" / "mistakes.npz")


def test_no_flipped_bit_goes_unnoticed_or_ends_in_another_error(tmp_path):
    whole = kept().save(tmp_path / "mistakes.npz").read_bytes()
    path, seen = tmp_path / "flipped.npz", 0
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            found = Mistakes.load(path)
        except CheckpointError as error:
            assert str(path) in str(error)  # noqa: PT017 - either this, or the same contents
            seen += 1
        else:
            np.testing.assert_array_equal(found.images, kept().images)
            assert found.probabilities.tolist() == [0.75, 0.5]
            assert (found.class_names, found.total, found.judged) == (kept().class_names, 5, 9)
    assert seen > len(whole) / 2


@pytest.mark.parametrize("left", [0, 1, 20, 200, -1])
def test_a_file_that_was_cut_off_is_damaged(tmp_path, left):
    path = kept().save(tmp_path / "mistakes.npz")
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=r"mistakes\.npz cannot be read"):
        Mistakes.load(path)


def test_a_file_that_is_not_there_or_a_folder_is_our_error(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        with pytest.raises(
            CheckpointError, match=r"cannot be read: .* Mistakes are read from what Mistakes\.save wrote"
        ):
            Mistakes.load(path)


def test_python_objects_are_not_loaded(tmp_path):
    path = tmp_path / "mistakes.npz"
    np.savez(path, **{**arrays_of(kept()), "images": np.array([{}], dtype=object)})
    with pytest.raises(CheckpointError, match="unpickling runs code"):
        Mistakes.load(path)


@pytest.mark.parametrize("shape", ["(10000000000000,)", "(99999999999999999999999999,)", "(2, 3", "('a',)", "(-1,)"])
def test_a_header_that_nobody_wrote_is_damage(tmp_path, shape):
    path = tmp_path / "mistakes.npz"
    arrays = arrays_of(kept())
    del arrays["images"]
    np.savez(path, **arrays)
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00\x76\x00" + header.encode())
    with pytest.raises(CheckpointError, match=r"mistakes\.npz (is damaged|cannot be read): "):
        Mistakes.load(path)


def arrays_of(mistakes):
    names = ("images", "labels", "predicted", "probabilities", "indices", "total", "judged")
    return {**{name: np.asarray(getattr(mistakes, name)) for name in names}, "class_names": np.array(("a", "b", "c"))}


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("images", np.zeros((2, 3, 4), np.uint8), r"images are uint8 of shape \(2, 3, 4\)"),
        ("images", np.zeros((2, 3, 4, 1), np.int16), "images are int16"),
        ("labels", np.array([0]), r"labels are int64 of shape \(1,\) for 2 images"),
        ("labels", np.array([0.0, 1.0]), "labels are float64"),
        ("labels", np.array([0, 3]), "labels are from 0 to 3"),
        ("predicted", np.array([-1, 0]), "predicted are from -1 to 0"),
        ("predicted", np.array([0, 3]), "predicted are from 0 to 3"),
        ("probabilities", np.array([1, 0]), "probabilities are int64"),
        ("indices", np.array([0, 9]), "indices are from 0 to 9"),
        ("total", np.array(1), "2 of 1 mistakes among 9"),
        ("judged", np.array(4), "2 of 5 mistakes among 4"),
        ("judged", np.array([9]), r"judged are int64 of shape \(1,\)"),
        ("class_names", np.array([1, 2, 3]), "class_names are int64"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_contents_that_do_not_fit_together_are_damage(tmp_path, name, value, message):
    path = tmp_path / "mistakes.npz"
    np.savez(path, **{**arrays_of(kept()), name: value})
    with pytest.raises(CheckpointError, match=rf"mistakes\.npz is damaged: it.*{message}"):
        Mistakes.load(path)


def test_another_npz_file_is_named_by_what_it_lacks(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x_train=np.zeros(3))
    with pytest.raises(CheckpointError, match="holds x_train; expected the arrays"):
        Mistakes.load(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images", "no array")
    with pytest.raises(CheckpointError):
        Mistakes.load(path)
