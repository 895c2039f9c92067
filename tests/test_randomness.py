import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cnnkit.errors import OptionError
from cnnkit.randomness import dropout_kept, dropout_mask, epoch_order, stream

PLACE = {"seed": 3, "purpose": "initial", "epoch": 4, "step": 5, "layer": 6}


def draw(place):
    return (
        stream(place["seed"], place["purpose"], **{k: place[k] for k in ("epoch", "step", "layer")}).random(4).tolist()
    )


# ------------------------------------------------------------------------------------------------------------ streams


def test_one_place_always_gives_the_same_numbers():
    assert draw(PLACE) == draw(PLACE)
    assert draw(PLACE | {"seed": np.int64(3)}) == draw(PLACE)


def test_every_part_of_the_key_gives_other_numbers():
    others = [{"seed": 7}, {"purpose": "dropout"}, {"epoch": 7}, {"step": 7}, {"layer": 7}]
    draws = [draw(PLACE | other) for other in ({}, *others)]
    assert all(one != other for one, other in itertools.combinations(draws, 2))


def test_the_same_numbers_in_other_parts_of_the_key_are_another_stream():
    """Adding the parts up, or writing them one behind the other, would confuse these."""
    keys = [
        dict(zip(("epoch", "step", "layer"), numbers, strict=True))
        for numbers in itertools.product((0, 1, 2), repeat=3)
    ]
    keys += [{"seed": seed} for seed in (0, 1, 2, 2**32, 2**32 + 1, 2**64)]
    draws = [tuple(draw({"seed": 3, "purpose": "initial", "epoch": 0, "step": 0, "layer": 0} | key)) for key in keys]
    assert len(set(draws)) == len(keys)


def test_every_purpose_has_its_own_numbers():
    purposes = ("initial", "shuffle", "dropout", "split", "explore")
    assert len({tuple(draw(PLACE | {"purpose": purpose})) for purpose in purposes}) == 5


def test_the_streams_are_numpys_pcg64_seeded_as_documented():
    """A later release of cnnkit must not change the numbers of an old run."""
    key = np.random.SeedSequence([3, 3, 4, 5, 6])
    expected = np.random.Generator(np.random.PCG64(key)).random(4).tolist()
    assert draw(PLACE | {"purpose": "dropout"}) == expected


@pytest.mark.parametrize("seed", [-1, 1.0, "0", None, True])
def test_a_seed_that_is_none_is_refused(seed):
    with pytest.raises(
        OptionError, match=f"seed is {seed!r}; expected a whole number of at least 0. Use for example seed=0"
    ):
        stream(seed, "initial")


# ------------------------------------------------------------------------------------------------------------- orders


@settings(deadline=None)
@given(st.integers(0, 10), st.integers(0, 10), st.integers(0, 200))
def test_an_order_visits_every_image_once(seed, epoch, count):
    order = epoch_order(seed, epoch, count)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(count))


def test_orders_differ_by_epoch_and_by_seed_and_are_the_same_again():
    orders = [epoch_order(seed, epoch, 50).tolist() for seed in (0, 1) for epoch in (0, 1, 2)]
    assert all(one != other for one, other in itertools.combinations(orders, 2))
    assert epoch_order(1, 2, 50).tolist() == orders[-1]
    assert list(range(50)) not in orders


# -------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rate", [0.1, 0.5, 0.75])
def test_a_mask_holds_zeros_and_the_inverse_of_what_is_kept(rate, dtype):
    mask = dropout_mask(0, 0, 0, (200, 10, 10), rate, dtype)
    assert mask.dtype == dtype
    assert mask.shape == (200, 10, 10)
    assert set(np.unique(mask)) == {dtype(0), dtype(1 / (1 - rate))}
    # 20,000 draws: five standard deviations of the share of zeros
    assert (mask == 0).mean() == pytest.approx(rate, abs=5 * (rate * (1 - rate) / 20_000) ** 0.5)
    assert mask.mean() == pytest.approx(1, abs=5 * (rate / (1 - rate) / 20_000) ** 0.5)


@pytest.mark.parametrize("size", [(50,), (7,), (3, 5, 1)])
@pytest.mark.parametrize("first", [1, 2, 5])
def test_a_part_of_a_batch_gets_its_rows_of_the_whole_mask(size, first):
    """Two float32 come of 64 bits: an odd number of them before the part is another case than an even one."""
    whole = dropout_kept(1, 2, 3, (8, *size), 0.4)
    assert np.array_equal(dropout_kept(1, 2, 3, (8 - first, *size), 0.4, first=first), whole[first:])


def test_what_is_kept_is_where_the_mask_is_not_zero():
    kept = dropout_kept(1, 2, 3, (6, 50), 0.4)
    assert kept.dtype == bool
    assert np.array_equal(kept, dropout_mask(1, 2, 3, (6, 50), 0.4) != 0)


def test_without_dropout_the_mask_is_one():
    assert (dropout_mask(0, 0, 0, (3, 4), 0.0) == 1).all()


def test_every_image_of_a_batch_has_a_mask_of_its_own():
    mask = dropout_mask(0, 0, 0, (4, 50), 0.5)
    assert len({row.tobytes() for row in mask}) == 4


def test_a_mask_depends_on_seed_step_and_layer_alone():
    masks = [dropout_mask(*key, (40,), 0.5).tobytes() for key in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
    assert len(set(masks)) == 4
    assert dropout_mask(0, 0, 1, (40,), 0.5).tobytes() == masks[3]


def test_both_precisions_drop_the_same_values():
    single, double = (dropout_mask(2, 3, 4, (5, 40), 0.3, dtype) for dtype in (np.float32, np.float64))
    assert np.array_equal(single == 0, double == 0)
