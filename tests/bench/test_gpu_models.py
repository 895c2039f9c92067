"""What is measured on a card: the network and its single layers, and the check that contestants give the same results."""

import math

import numpy as np
import pytest

from cnnkit.bench.gpu.models import LAYERS, SAMPLE, LayerTask, disagreements, sample, whole
from cnnkit.plan import ActivationOp, Conv2DOp, DenseOp, FlattenOp, MaxPool2DOp, RescaleOp, SoftmaxOp


def flops(plan):
    """Of one image in training: twice the products forward, twice again for each of the two gradients, but the first's input."""
    total = 0
    for op in plan.operations:
        products = 0
        if isinstance(op, Conv2DOp):
            products = math.prod(op.output_shape) * math.prod(op.kernel_size) * op.input_shape[2]
        elif isinstance(op, DenseOp):
            products = op.input_shape[0] * op.units
        first = isinstance(op, Conv2DOp) and op.input_shape == (32, 32, 3)
        total += 2 * products * (2 if first else 3)
    return total


def test_the_network_is_as_large_as_its_limits_were_worked_out_for():
    assert flops(whole().plan()) == pytest.approx(157.7e6, rel=0.02)


def test_the_single_layers_are_those_of_the_network_one_after_the_other():
    def kept(operations):
        without = (RescaleOp, FlattenOp, SoftmaxOp)
        found = [op for op in operations if not isinstance(op, without)]
        return [(type(op), op.input_shape, op.output_shape, getattr(op, "padding", None)) for op in found]

    single = [op for name in LAYERS for op in LayerTask(name, 1).plan.operations]
    assert kept(single) == kept(whole().plan().operations)
    assert sum(isinstance(op, ActivationOp) for op in single) == 5
    assert sum(isinstance(op, MaxPool2DOp) for op in single) == 2


def test_all_but_the_first_layer_give_the_gradient_of_their_input():
    assert [LayerTask(name, 1).input_gradient for name in LAYERS] == [False] + [True] * 7


@pytest.mark.parametrize("name", LAYERS)
def test_another_process_draws_the_same_numbers_of_a_sensible_size(name):
    task = LayerTask(name, 3)
    again = LayerTask(**task.to_dict())
    for one, other in ((task.x, again.x), (task.dy, again.dy)):
        assert one.dtype == np.float32
        assert np.array_equal(one, other)
        assert 0.9 < abs(one).max() <= 1
    assert task.x.shape == (3, *task.plan.input_shape)
    assert task.dy.shape == (3, *task.plan.output_shape)
    assert not np.array_equal(task.x.ravel()[:100], task.dy.ravel()[:100])
    assert {name: array.shape for name, array in task.parameters.items()} == {
        spec.name: spec.shape for spec in task.plan.parameters
    }
    for array in task.parameters.values():
        assert 0 < abs(array).max() < 1


def test_a_sample_has_the_first_number_the_last_and_some_of_all_between():
    numbers = np.arange(10_000.0).reshape(100, 100)
    found = sample(numbers)
    assert len(found) == SAMPLE
    assert (found[0], found[-1]) == (0.0, 9999.0)
    assert max(np.diff(found)) < 2 * 10_000 / SAMPLE
    assert sample(numbers[:1, :5].T) == [0.0, 1.0, 2.0, 3.0, 4.0]


RIGHT = {"output": [1.0, -4.0, 0.5], "kernel": [10.0, 0.0, 3.0]}


def test_results_that_differ_by_rounding_agree():
    assert disagreements({"output": [1.01, -4.02, 0.5], "kernel": [10.1, 0.1, 3.0]}, RIGHT) == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"kernel": [10.0, 0.5, 3.0]}, "its kernel is 0.5 off, where numbers go up to 10"),
        ({"output": [1.0, -4.0, float("nan")]}, "its output is nan off"),
        ({"output": [1.0, -4.0]}, "its output has another size"),
        ({"input": [1.0]}, "it gives input, kernel, output, not kernel, output"),
    ],
)
def test_results_that_are_others_are_told(wrong, said):
    (found,) = disagreements(RIGHT | wrong, RIGHT)
    assert found.startswith(said)
