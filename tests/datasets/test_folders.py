"""Images from files: by class in folders, and one by one for prediction."""

import io
import sys

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.datasets import image_files, load_dataset, load_folder, read_images
from cnnkit.errors import DataError, MissingDependency, OptionError

GREY = np.array([[0, 50, 100], [150, 200, 250]], dtype=np.uint8)
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)
COLOURS = np.array([[RED, GREEN, BLUE], [(9, 8, 7), (0, 0, 0), (255, 255, 255)]], dtype=np.uint8)


def write(path, pixels, mode=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(np.asarray(pixels))
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def filled(value, size=(2, 3)):
    return np.full(size, value, dtype=np.uint8)


def by_first_pixel(data):
    """(first byte, class name) of every image, sorted: which image has which class."""
    firsts = data.images.reshape(len(data), -1)[:, 0].tolist()
    return sorted(zip(firsts, [data.class_names[label] for label in data.labels], strict=True))


# ------------------------------------------------------------------------------------------------- folders by class


def test_every_image_has_the_class_of_its_folder(tmp_path):
    for value, name in [(1, "dog/b.png"), (2, "cat/a.png"), (3, "dog/a.bmp"), (4, "cat/z.gif")]:
        write(tmp_path / name, filled(value))
    (tmp_path / "cat" / ".hidden").write_text("not read")
    (tmp_path / "cat" / "Thumbs.db").write_text("not read")
    (tmp_path / ".git").mkdir()
    data = load_folder(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert by_first_pixel(data)[:3] == [(1, "dog"), (2, "cat"), (3, "dog")]


def test_grey_folders_have_one_channel_and_others_three(tmp_path):
    write(tmp_path / "a" / "grey.png", GREY)
    write(tmp_path / "a" / "black-and-white.png", filled(255), mode="1")
    grey = load_folder(tmp_path)
    assert (grey.images.shape, grey.images.dtype) == ((2, 2, 3, 1), np.uint8)
    assert GREY.tolist() in grey.images[..., 0].tolist()
    assert filled(255).tolist() in grey.images[..., 0].tolist()
    write(tmp_path / "b" / "colour.png", COLOURS)
    mixed = load_folder(tmp_path)
    assert mixed.images.shape == (3, 2, 3, 3)
    assert COLOURS.tolist() in mixed.images.tolist()
    assert np.stack([GREY] * 3, axis=-1).tolist() in mixed.images.tolist()


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.tiff", "a.gif"])
def test_lossless_formats_keep_every_pixel(tmp_path, name):
    options = {"lossless": True, "exact": True} if name == "a.webp" else {}
    write(tmp_path / "a" / name, COLOURS, **options)
    assert load_folder(tmp_path).images[0].tolist() == COLOURS.tolist()


def test_jpeg_is_read_in_the_order_red_green_blue(tmp_path):
    write(tmp_path / "a" / "a.jpg", np.full((8, 8, 3), (200, 100, 10), np.uint8), quality=95)
    assert np.abs(load_folder(tmp_path).images[0].astype(int) - (200, 100, 10)).max() <= 3


def test_transparency_is_laid_on_black(tmp_path):
    write(
        tmp_path / "a" / "colour.png",
        np.array([[(200, 100, 50, 255), (200, 100, 50, 0), (200, 100, 50, 51)]], np.uint8),
    )
    assert load_folder(tmp_path).images[0].tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_grey_with_transparency_stays_grey(tmp_path):
    write(tmp_path / "a" / "grey.png", np.array([[(200, 255), (200, 0), (200, 51)]], np.uint8))
    assert load_folder(tmp_path).images[0].tolist() == [[[200], [0], [40]]]


def test_a_palette_with_a_transparent_colour_is_laid_on_black(tmp_path):
    palette = PIL.Image.fromarray(np.array([[0, 1]], np.uint8)).convert("P")
    palette.putpalette([200, 100, 50, 10, 20, 30])
    (tmp_path / "a").mkdir()
    palette.save(tmp_path / "a" / "a.png", transparency=0)
    assert load_folder(tmp_path).images[0].tolist() == [[[0, 0, 0], [10, 20, 30]]]


def test_a_rotation_noted_in_exif_is_carried_out(tmp_path):
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    write(tmp_path / "a" / "a.png", GREY, exif=exif)
    assert load_folder(tmp_path).images[0, ..., 0].tolist() == np.rot90(GREY, -1).tolist()


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [PIL.Image.fromarray(filled(value)) for value in (10, 20)]
    (tmp_path / "a").mkdir()
    frames[0].save(tmp_path / "a" / "a.gif", save_all=True, append_images=frames[1:])
    assert set(load_folder(tmp_path).images.ravel().tolist()) == {10}


def test_the_first_images_of_a_folder_are_of_every_class_and_always_the_same(tmp_path):
    for value in range(40):
        write(tmp_path / "abcd"[value // 10] / f"{value:02}.png", filled(value))
    data, again = load_folder(tmp_path), load_folder(tmp_path)
    assert set(data.labels[:16].tolist()) == {0, 1, 2, 3}
    assert data.images.tolist() == again.images.tolist()
    assert by_first_pixel(data) == [(value, "abcd"[value // 10]) for value in range(40)]


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 3), np.uint16), np.zeros((2, 3), np.int32), np.zeros((2, 3), np.float32)]
)
def test_more_than_8_bits_a_channel_are_refused(tmp_path, pixels):
    write(tmp_path / "a" / "deep.tiff", pixels)
    with pytest.raises(DataError, match=r"deep\.tiff has more than 8 bits a channel; expected 8"):
        load_folder(tmp_path)


def test_16_bit_colours_are_refused_and_not_cut(tmp_path):
    import struct
    import zlib

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    # One RGB pixel of 16 bits a channel, which Pillow cannot write.
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "deep.png").write_bytes(png)
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits a channel"):
        load_folder(tmp_path)


def test_images_of_two_sizes_are_refused_with_both_files(tmp_path):
    write(tmp_path / "a" / "1.png", filled(0, (2, 3)))
    write(tmp_path / "a" / "2.png", filled(0, (2, 3)))
    write(tmp_path / "b" / "3.png", filled(0, (3, 2)))
    message = r"1\.png is 2 x 3 \(height x width\), .*3\.png is 3 x 2\. .*image_size=\(height, width\)"
    with pytest.raises(DataError, match=message):
        load_folder(tmp_path)
    assert load_folder(tmp_path, image_size=(4, 5)).image_shape == (4, 5, 1)


@pytest.mark.parametrize("wrong", [3, (3,), (3, 0), (3.0, 3), (True, 3), "34"])
def test_an_image_size_that_is_none_is_refused(tmp_path, wrong):
    write(tmp_path / "a" / "1.png", GREY)
    with pytest.raises(OptionError, match=r"image_size is .*; expected \(height, width\) in whole pixels"):
        load_folder(tmp_path, image_size=wrong)


def make_text(folder):
    (folder / "a" / "notes.txt").write_text("cats")


def make_cut_off(folder):
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 20), dtype=np.uint8)).save(buffer, "PNG")
    (folder / "a" / "cut.png").write_bytes(buffer.getvalue()[:-100])


def make_stray(folder):
    write(folder / "stray.png", GREY)


def make_nested(folder):
    write(folder / "a" / "deeper" / "1.png", GREY)


def make_empty(folder):
    (folder / "b").mkdir()
    (folder / "b" / ".keep").touch()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (make_text, r"a/notes\.txt cannot be read as an image: .*Replace it"),
        (make_cut_off, r"a/cut\.png cannot be read as an image: .*truncated"),
        (make_stray, r"stray\.png is in no class folder"),
        (make_nested, r"a/deeper is a folder inside the class folder 'a'.*train and test"),
        (make_empty, r"/b has no images in it"),
    ],
)
def test_what_does_not_belong_is_refused_with_its_path(tmp_path, spoil, message):
    write(tmp_path / "a" / "1.png", GREY)
    spoil(tmp_path)
    with pytest.raises(DataError, match=message):
        load_folder(tmp_path)


def test_a_folder_without_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"has no class folders\. Give one folder of images for each class"):
        load_folder(tmp_path)
    with pytest.raises(DataError, match=r"none cannot be listed: No such file"):
        load_folder(tmp_path / "none")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of much that it finds in damaged images
@given(st.data())
@settings(deadline=None, max_examples=60)
def test_no_damage_to_an_image_ends_in_another_error(tmp_path_factory, data):
    buffer = io.BytesIO()
    PIL.Image.fromarray(COLOURS).save(buffer, data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF"])))
    content = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "image"
    path.write_bytes(content[: data.draw(st.integers(1, len(content)))])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 10_000)  # damage can say that the image is huge
        try:
            images = read_images([path], (2, 3, 3))
        except DataError:
            return
    assert images.shape == (1, 2, 3, 3)


def test_an_image_that_would_fill_the_memory_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", 2)
    path = write(tmp_path / "a.png", GREY)
    with pytest.raises(DataError, match=r"a\.png cannot be read as an image: .*decompression bomb"):
        read_images([path], (2, 3, 1))


def test_without_pillow_the_command_that_installs_it_is_given(tmp_path, monkeypatch):
    write(tmp_path / "a" / "1.png", GREY)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingDependency, match=r"Reading image files needs Pillow.*pip install 'cnnkit\[data\]'"):
        load_folder(tmp_path)


# --------------------------------------------------------------------------------------------- train and test folders


def test_train_and_test_folders_are_the_two_data_sets(tmp_path):
    for value, name in [(1, "train/cat/1.png"), (2, "train/dog/2.png"), (3, "train/dog/3.png"), (4, "test/dog/4.png")]:
        write(tmp_path / name, filled(value))
    (tmp_path / "README").write_text("beside train and test nothing is read")
    train, test = load_dataset(tmp_path)
    assert by_first_pixel(train) == [(1, "cat"), (2, "dog"), (3, "dog")]
    assert by_first_pixel(test) == [(4, "dog")]
    assert train.class_names == test.class_names == ("cat", "dog")


def test_train_and_test_share_their_channels_and_their_size(tmp_path):
    write(tmp_path / "train" / "a" / "1.png", GREY)
    write(tmp_path / "test" / "a" / "2.png", COLOURS)
    train, test = load_dataset(tmp_path)
    assert train.image_shape == test.image_shape == (2, 3, 3)
    write(tmp_path / "test" / "a" / "3.png", filled(0, (5, 5)))
    with pytest.raises(DataError, match=r"train/a/1\.png is 2 x 3 .*test/a/3\.png is 5 x 5"):
        load_dataset(tmp_path)
    train, test = load_dataset(tmp_path, image_size=(4, 5))
    assert train.image_shape == test.image_shape == (4, 5, 3)


def test_a_test_class_that_was_not_trained_is_refused(tmp_path):
    write(tmp_path / "train" / "cat" / "1.png", GREY)
    write(tmp_path / "test" / "dgo" / "2.png", GREY)
    with pytest.raises(DataError, match=r"test/dgo is a class that .*/train does not have; it has cat"):
        load_dataset(tmp_path)


# --------------------------------------------------------------------------------------------------- for prediction


def test_files_stand_for_themselves_and_folders_for_all_below_them(tmp_path):
    for name in ("b/2.png", "b/1.png", "b/c/0.png", "a.png"):
        write(tmp_path / name, GREY)
    (tmp_path / "b" / ".hidden").touch()
    files = image_files([tmp_path / "b", str(tmp_path / "a.png")])
    assert [path.relative_to(tmp_path).as_posix() for path in files] == ["b/1.png", "b/2.png", "b/c/0.png", "a.png"]


def test_missing_files_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(DataError, match=r"none\.png does not exist"):
        image_files([tmp_path / "none.png"])
    with pytest.raises(DataError, match=r"has no images in it"):
        image_files([tmp_path])


def test_images_come_in_the_order_of_their_files(tmp_path):
    for value in (3, 1, 2):
        write(tmp_path / f"{value}.png", filled(value))
    images = read_images([tmp_path], (2, 3, 1))
    assert (images.shape, images.dtype) == ((3, 2, 3, 1), np.uint8)
    assert images[:, 0, 0, 0].tolist() == [1, 2, 3]


def test_colours_become_grey_by_luma_for_a_model_with_one_channel(tmp_path):
    images = read_images([write(tmp_path / "a.png", COLOURS)], (2, 3, 1))
    # 0.299, 0.587 and 0.114 of 255; the mean would be 85 for each.
    assert images[0, 0, :, 0].tolist() == [76, 150, 29]


def test_grey_is_repeated_for_a_model_with_three_channels(tmp_path):
    images = read_images([write(tmp_path / "a.png", GREY)], (2, 3, 3))
    assert images[0].tolist() == np.stack([GREY] * 3, axis=-1).tolist()


def test_another_size_is_resized_to_height_and_width_with_antialiasing(tmp_path):
    stripes = np.zeros((8, 16), np.uint8)
    stripes[:, ::2] = 200
    images = read_images([write(tmp_path / "a.png", stripes)], (4, 2, 1))
    assert images.shape == (1, 4, 2, 1)
    # Without antialiasing each pixel would be near one of the stripes, 0 or 200; with it, near their mean.
    assert np.abs(images.astype(int) - 100).max() <= 10


@pytest.mark.parametrize("shape", [(64,), (8, 8, 2), (8, 8, 4)])
def test_a_model_that_takes_no_images_is_refused(tmp_path, shape):
    with pytest.raises(DataError, match=r"the model takes \(.*\); image files give \(height, width, 1\)"):
        read_images([write(tmp_path / "a.png", GREY)], shape)
