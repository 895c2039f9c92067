"""examples/depth_ladder.py: only the number of convolutions differs, and the tables say what was measured."""

import numpy as np
import pytest

from cnnkit import Dataset, load_dataset


@pytest.fixture
def script(example):
    return example("depth_ladder")


def blank(channels=1, size=28):
    return Dataset(np.zeros((10, size, size, channels), np.uint8), np.arange(10))


def test_the_rungs_differ_in_nothing_but_the_number_of_convolutions(script):
    models = [script.rung(blank(), places) for places in script.LADDER.values()]
    for model, count in zip(models, (1, 2, 4, 6), strict=True):
        convolutions = [layer for layer in model.layers if layer.kind == "conv2d"]
        assert len(convolutions) == count
        assert len(set(convolutions)) == 1
        others = [layer for layer in model.layers if layer.kind != "conv2d"]
        assert others == [layer for layer in models[0].layers if layer.kind != "conv2d"]
        assert {row.parameters for row in model.summary().layers if row.kind == "dense"} == {7 * 7 * 16 * 10 + 10}


@pytest.mark.parametrize(("channels", "grey"), [(1, False), (3, False), (3, True)])
def test_the_wide_one_has_as_many_parameters_as_the_deepest(script, channels, grey):
    data = blank(channels, 32)
    deepest = script.rung(data, script.LADDER[6], grey=grey)
    wide = script.as_wide_as(deepest, data, grey=grey)
    assert sum(layer.kind == "conv2d" for layer in wide.layers) == 1
    a_filter = 9 * (1 if grey else channels) + 1 + 8 * 8 * 10
    assert abs(wide.summary().parameters - deepest.summary().parameters) <= a_filter / 2


def test_receptive_fields_are_those_of_what_the_dense_layer_sees_and_the_curve_ends_in_the_table(
    script, printed, tmp_path
):
    train, test = load_dataset("digits", limit=300)
    false = (test.labels + 1) % 10  # so that what is learned well is judged badly, on the test set and nowhere else
    file = tmp_path / "false.npz"
    np.savez(file, x_train=train.images, y_train=train.labels, x_test=test.images, y_test=false)
    script.main(["--dataset", str(file), "--epochs", "3", "--seeds", "0,1", "--out", str(tmp_path)])
    _, [ladder, curve] = printed()
    assert [row[0] for row in ladder[1:]] == ["1", "2", "4", "6", "1, wide"]
    # a 3 x 3 convolution adds 2 steps between neighbours, a pool 1: by hand for one, two, four and six convolutions
    assert [row[2] for row in ladder[1:]] == ["6 x 6", "10 x 10", "16 x 16", "32 x 32", "6 x 6"]
    # 8 x 8 outputs of 9 products for each of 16 filters; 2 * 2 * 16 values to 10 classes
    assert ladder[1][3] == f"{64 * 9 * 16 + 640:,}"
    assert len(curve) == 1 + 3
    assert curve[3][1:] == [row[4].split(" ± ")[0] for row in ladder[1:]]
    assert float(curve[3][5]) < 0.07
    assert (tmp_path / "depth_ladder.png").exists()


def test_the_verdict_believes_only_what_is_more_than_the_seeds_differ_by(script):
    ends = {"1": [0.90, 0.92], "2": [0.95, 0.97], "4": [0.955, 0.975], "6": [0.80, 0.82], "1, wide": [0.80, 0.82]}
    said = script.verdict({name: np.array(values)[:, np.newaxis] for name, values in ends.items()})
    assert said == (
        "Going from 1 to 2 helps (+0.0500), from 2 to 4 changes nothing beyond the seeds (+0.0050), "
        "from 4 to 6 hurts (-0.1550), from 1, wide to 6 changes nothing beyond the seeds (+0.0000)."
    )
