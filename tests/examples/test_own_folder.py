"""examples/own_folder.py: from files to names of what is in a new file, and the messages on the way."""

import re

import numpy as np
import pytest
from PIL import Image

import cnnkit


@pytest.fixture
def script(example):
    return example("own_folder")


def test_files_are_learned_and_new_ones_named(script, printed, tmp_path):
    script.main(["--each", "150", "--epochs", "12", "--out", str(tmp_path)])
    text, [classes, answers] = printed()
    assert [row[0] for row in classes[1:]] == ["circle", "square", "triangle"]
    assert [row[4] for row in classes[1:]] == ["30", "30", "30"]  # a fifth of 150
    assert float(re.search(r"Test accuracy (\S+)\. ", text)[1]) > 0.8
    assert [row[0] for row in answers[1:]] == ["new-circle.png", "new-square.png", "new-triangle.png"]
    assert sum(row[0] == f"new-{row[1]}.png" for row in answers[1:]) >= 2
    assert all(float(row[2]) > 1 / 3 for row in answers[1:])
    saved = cnnkit.load(tmp_path / "shapes.safetensors")
    assert saved.model.class_names == ("circle", "square", "triangle")


def test_what_goes_wrong_names_the_file_and_leaves_the_folder_as_it_was(script, capsys, tmp_path):
    script.draw_folder(tmp_path, 2, np.random.default_rng(0))
    before = sorted(tmp_path.rglob("*"))
    script.show_what_goes_wrong(tmp_path)
    broken, wide = capsys.readouterr().out.strip().splitlines()[-2:]
    assert re.match(r"- circle/broken\.png cannot be read as an image: .*take it away\.$", broken)
    assert re.match(
        r"- images differ in size: circle/000\.png is 32 x 32 .*, square/wide\.png is 32 x 40\. Resize", wide
    )
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("shape", "share"), [("circle", np.pi / 4), ("square", 1.0), ("triangle", 0.5)])
def test_a_shape_fills_the_part_of_its_square_that_it_should(script, shape, share):
    for seed in range(10):
        image = np.asarray(script.draw(shape, np.random.default_rng(seed))).astype(float)
        paper = np.median(image[0])
        inside = np.abs(image - paper) > 30
        rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
        box = (np.ptp(rows) + 1) * (np.ptp(columns) + 1)
        assert inside.sum() / box == pytest.approx(share, abs=0.12)
        assert 11 <= np.ptp(rows) + 1 <= 21


def test_ones_own_folder_is_learned_and_nothing_is_put_into_it(script, printed, tmp_path):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("light", 200)):
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(20):
            pixels = rng.normal(level, 10, (16, 12, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.png")
    before = sorted(tmp_path.rglob("*"))
    script.main(["--images", str(tmp_path / "mine"), "--epochs", "40"])
    text, [classes] = printed()
    assert "40 images (16, 12, 3) of dark, light; 8 are kept for the test." in text
    assert [row[:2] for row in classes[1:]] == [["dark", "1.000"], ["light", "1.000"]]
    assert sorted(tmp_path.rglob("*")) == before
