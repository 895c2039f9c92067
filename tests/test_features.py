"""Which feature ids a model, an optimizer and a precision have."""

import re
from pathlib import Path

import pytest

from cnnkit import (
    SGD,
    Adam,
    AdamW,
    AvgPool2D,
    Conv2D,
    Dense,
    Dropout,
    Flatten,
    Grayscale,
    MaxPool2D,
    Model,
    ReLU,
    Rescale,
    Softmax,
)
from cnnkit.conformance.catalogue import all_cases
from cnnkit.features import ESSENTIAL, FEATURES, feature_of, features_of
from cnnkit.optimizers import StepDecay


def features(*layers, input_shape=(8, 8, 3), **asked):
    return features_of(Model(input_shape=input_shape, layers=list(layers)).plan(), **asked)


@pytest.mark.parametrize(
    ("layer", "found"),
    [
        (Conv2D(filters=1, kernel_size=2), {"conv2d"}),
        (Conv2D(filters=1, kernel_size=2, use_bias=False), {"conv2d", "conv2d.no_bias"}),
        (Conv2D(filters=1, kernel_size=3, padding="same"), {"conv2d", "conv2d.padding"}),
        (Conv2D(filters=1, kernel_size=2, padding="same"), {"conv2d", "conv2d.padding", "conv2d.padding.uneven"}),
        (Conv2D(filters=1, kernel_size=2, strides=(1, 2)), {"conv2d", "conv2d.strides"}),
        (Conv2D(filters=1, kernel_size=2, dilation=(2, 1)), {"conv2d", "conv2d.dilation"}),
        (Conv2D(filters=1, kernel_size=2, activation="tanh"), {"conv2d", "activation.tanh"}),
        (MaxPool2D(pool_size=2), {"pool.max"}),
        (MaxPool2D(pool_size=2, strides=1), {"pool.max", "pool.max.overlap"}),
        (MaxPool2D(pool_size=2, strides=3), {"pool.max", "pool.max.gaps"}),
        (AvgPool2D(pool_size=2, padding=((1, 0), (0, 0))), {"pool.avg", "pool.avg.padding"}),
        (Rescale(scale=2), {"rescale"}),
        (Grayscale(), {"grayscale"}),
        (Dropout(rate=0.5), {"dropout"}),
    ],
)
def test_a_layer_has_its_features_and_no_others(layer, found):
    assert features(layer) == found


@pytest.mark.parametrize(
    ("optimizer", "found"),
    [
        (SGD(learning_rate=0.1), {"optimizer.sgd"}),
        (
            SGD(learning_rate=0.1, momentum=0.9, nesterov=True),
            {"optimizer.sgd", "optimizer.sgd.momentum", "optimizer.sgd.nesterov"},
        ),
        (SGD(learning_rate=0.1, weight_decay=0.1), {"optimizer.sgd", "optimizer.sgd.weight_decay"}),
        (Adam(clip_global_norm=1.0), {"optimizer.adam", "optimizer.clip_global_norm"}),
        (AdamW(learning_rate=StepDecay(0.1, every=2)), {"optimizer.adamw", "optimizer.schedule"}),
    ],
)
def test_an_optimizer_adds_training_and_its_own(optimizer, found):
    layers = (Flatten(), Dense(units=2), Softmax())
    assert features(*layers, optimizer=optimizer) - features(*layers) == {"training"} | found


def test_only_a_precision_other_than_float32_is_a_feature():
    assert features(Flatten(), precision="float64") - features(Flatten(), precision="float32") == {"precision.float64"}


def test_the_essential_features_are_those_of_the_first_model_of_the_readme():
    layers = [Conv2D(filters=4, kernel_size=3, activation="relu"), MaxPool2D(), Flatten(), Dense(units=10), Softmax()]
    assert features(*layers) == set(ESSENTIAL)


# ------------------------------------------------------------------------------------------------------- all of them

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "reference" / "features.md").read_text(encoding="utf-8")


def test_the_features_of_the_suite_are_those_that_are_listed():
    found = {feature for case in all_cases() for feature in case.features}
    found |= {f"precision.{precision}" for case in all_cases() for precision in case.precisions} - {"precision.float32"}
    assert found == set(FEATURES)


def test_the_page_lists_every_feature_with_what_needs_it():
    rows = re.findall(r"^\| `([a-z0-9_.]+)` \| (.+?) \|$", PAGE, re.MULTILINE)
    assert rows == list(FEATURES.items())


def test_the_page_names_the_essential_features():
    (sentence,) = re.findall(r"not everything can be refused: (.+?) a backend has not", PAGE.replace("\n", " "))
    assert tuple(re.findall(r"`([a-z0-9.]+)`", sentence)) == ESSENTIAL


@pytest.mark.parametrize(
    ("layer", "feature"),
    [
        (Conv2D(filters=1, kernel_size=2, dilation=2, padding="same"), "conv2d"),
        (AvgPool2D(pool_size=3, strides=1), "pool.avg"),
        (ReLU(), "activation.relu"),
        (Rescale(scale=2), "rescale"),
    ],
)
def test_an_operation_has_one_feature_that_all_of_its_kind_have(layer, feature):
    (op,) = Model(input_shape=(8, 8, 3), layers=[layer]).plan().operations
    assert feature_of(op) == feature
