"""examples/edge_kernels.py: designed kernels do what they are known for, in a layer, on every backend."""

import re

import numpy as np
import pytest


@pytest.fixture
def script(example):
    return example("edge_kernels")


def under(script, name, image, backend="numpy"):
    kernel = np.array(script.KERNELS[name], np.float32)[:, :, np.newaxis, np.newaxis]
    return script.convolved(image[np.newaxis, :, :, np.newaxis].astype(np.float32), kernel, backend)[0, :, :, 0]


@pytest.mark.parametrize("backend", ["numpy", "numpy-batched"])
def test_sobel_is_positive_where_it_gets_lighter_in_its_direction_and_blind_in_the_other(script, backend):
    across, down = "Sobel, left to right", "Sobel, top to bottom"
    ramp = np.tile(np.arange(8.0), (6, 1))  # lighter to the right by 1 a pixel
    inside = slice(1, -1)
    # (1 + 2 + 1) weights, values 2 apart
    np.testing.assert_allclose(under(script, across, ramp, backend)[inside, inside], 8)
    np.testing.assert_allclose(under(script, down, ramp, backend)[inside, inside], 0)
    np.testing.assert_allclose(under(script, down, ramp.T, backend)[inside, inside], 8)
    np.testing.assert_allclose(under(script, across, ramp.T, backend)[inside, inside], 0)


def test_the_laplacian_sees_no_ramp_and_a_point_upside_down(script):
    ramp = np.add.outer(np.arange(6.0), 2 * np.arange(7.0))
    np.testing.assert_allclose(under(script, "Laplacian", ramp)[1:-1, 1:-1], 0, atol=1e-5)
    point = np.zeros((5, 5))
    point[2, 2] = 1
    seen = under(script, "Laplacian", point)
    assert (seen[2, 2], seen[1, 2], seen[2, 1], seen[1, 1]) == (-4, 1, 1, 0)


def test_the_blur_keeps_a_flat_image_and_spreads_a_point_over_nine(script):
    np.testing.assert_allclose(under(script, "blur", np.full((5, 6), 3.0))[1:-1, 1:-1], 3, rtol=1e-6)
    point = np.zeros((5, 5))
    point[2, 2] = 9
    np.testing.assert_allclose(under(script, "blur", point)[1:4, 1:4], 1, rtol=1e-6)


def test_the_most_like_kernel_is_found_in_either_sign_and_at_any_scale(script):
    sobel = np.array(script.KERNELS["Sobel, top to bottom"], float)
    assert script.most_like(3 * sobel) == ("Sobel, top to bottom", pytest.approx(1))
    assert script.most_like(-0.1 * sobel) == ("Sobel, top to bottom", pytest.approx(-1))
    # by hand: six ones against nine have the product 6 and the lengths sqrt(6) and 3
    rows = np.array([[1.0, 1, 1], [1, 1, 1], [0, 0, 0]])
    assert script.most_like(rows) == ("blur", pytest.approx(6 / (np.sqrt(6) * 3)))


def test_both_facts_hold_on_the_digits_and_the_network_learns(script, printed, tmp_path):
    script.main(["--dataset", "digits", "--epochs", "8", "--backend", "numpy-batched", "--out", str(tmp_path)])
    text, [designed, learned] = printed()
    back, summed = map(float, re.findall(r"within (\S+)\.(?:\s|$)", text))
    assert back == 0
    assert summed < 1e-5
    assert [row[1] for row in designed[1:]] == ["1", "0", "0", "0", "1"]
    assert float(designed[1][2]) == 0
    assert float(designed[1][3]) == 1  # the image itself
    assert len(learned) == 1 + 8
    assert float(re.search(r"test accuracy (\S+)\. ", text)[1]) > 0.8
    assert (tmp_path / "edge_kernels.png").exists()


def test_three_channels_are_summed_and_not_something_near_it(script, monkeypatch):
    whole = script.convolved

    def last_channel_only(images, kernel, backend):
        return whole(images[..., -1:], kernel[:, :, -1:], backend)

    assert script.three_channels("numpy") < 1e-5
    monkeypatch.setattr(script, "convolved", last_channel_only)
    assert script.three_channels("numpy") > 0.1
