"""How near to each other contestants must come: what rounding may do, what NaN may not, what dropout masks may do."""

from dataclasses import replace

import numpy as np
import pytest

from cnnkit import Dropout, Model
from cnnkit.bench.batches.agreement import Shown, differences


@pytest.fixture
def honest(small):
    """A contestant all of whose numbers have moved by 0.1, in ways drawn by chance."""
    generator = np.random.default_rng(0)

    def moved(by):
        return {
            name: array + by * generator.choice([-1, 1], array.shape).astype(np.float32)
            for name, array in small.parameters.items()
        }

    return Shown([2.0, 1.5], moved(0.1), moved(0.2), draws_masks=False)


def shifted(parameters, by):
    """Each number moved to one of both sides by `by`."""
    generator = np.random.default_rng(1)
    return {name: array + by * generator.choice([-1, 1], array.shape) for name, array in parameters.items()}


def test_rounding_is_allowed(small, honest):
    other = replace(honest, losses=[2.06, 1.7], first=shifted(honest.first, 0.03), last=shifted(honest.last, 0.1))
    assert differences(small, honest, honest) == []
    assert differences(small, other, honest) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"losses": [2.2, 1.5]}, "the mean loss of its first epoch is 2.2000, not 2.0000"),
        ({"losses": [np.nan, np.nan]}, "the mean loss of its first epoch is nan, not 2.0000"),
        ({"losses": [2.0, 2.0]}, "the mean loss of epoch 2 is 2.0000, not 1.5000"),
        ({"losses": [2.0, np.nan]}, "the mean loss of epoch 2 is nan, not 1.5000"),
        ({"first": {}}, "it has other parameters"),
    ],
)
def test_losses_and_parameters_that_differ_are_named(small, honest, changes, problem):
    assert differences(small, replace(honest, **changes), honest) == [problem]


@pytest.mark.parametrize("when", ["first", "last"])
@pytest.mark.parametrize("value", ["as it began", np.nan])
def test_one_kernel_that_does_not_move_is_found(small, honest, when, value):
    arrays = dict(getattr(honest, when))
    arrays["5.kernel"] = small.parameters["5.kernel"] if isinstance(value, str) else arrays["5.kernel"] * value
    found = differences(small, replace(honest, **{when: arrays}), honest)
    assert len([problem for problem in found if "5.kernel" in problem]) == 1
    assert not any("1.kernel" in problem for problem in found)


def elsewhere(small, honest):
    """A contestant that has gone as far, the other way."""
    first = {name: 2 * array - honest.first[name] for name, array in small.parameters.items()}
    return replace(honest, first=first, draws_masks=True)


def test_going_another_way_is_found_where_no_masks_differ_and_the_epoch_is_short(small, honest):
    (found,) = differences(small, elsewhere(small, honest), honest)
    assert found == "after the first epoch its parameters are 200% of the way off"
    long_ = replace(small, batch_size=1)
    assert differences(long_, elsewhere(small, honest), honest) == []


def test_with_masks_of_its_own_a_contestant_may_go_another_way_as_far(small, honest):
    layers = [*small.model.layers[:-1], Dropout(rate=0.1), small.model.layers[-1]]
    dropping = replace(small, model=Model(input_shape=small.model.input_shape, layers=layers))
    other = elsewhere(small, honest)
    assert differences(dropping, other, honest) == []
    assert differences(dropping, replace(other, losses=[2.15, 1.5]), honest) == []
    assert differences(dropping, replace(other, losses=[2.25, 1.5]), honest) != []
    (found,) = differences(dropping, replace(other, draws_masks=False), honest)
    assert "of the way off" in found
    short = {name: array + 0.7 * (honest.first[name] - array) for name, array in small.parameters.items()}
    assert "moved" in differences(dropping, replace(other, first=short), honest)[0]
