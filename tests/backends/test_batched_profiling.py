"""The command that says where the time of a step goes: what it counts, what it prints, what it refuses."""

from functools import partial

import pytest

from cnnkit_batched import profiling
from cnnkit_batched.profiling import main, profile

CONVOLUTION = (
    26 * 26 * (3 * 3 + 1) * 16
)  # model a: 16 filters and a bias at 26 x 26 places, forward, and for the weights
DENSE = 13 * 13 * 16 * 10
BIASES = 10

KINDS = ("products", "patches and copies", "maxima", "the way back of pooling and ReLU", "other")


def test_the_work_of_products_is_that_of_their_multiplications_and_additions():
    """Nothing turns back into the images, and biases have no gradient to hand on."""
    found = profile("a", rounds=1)
    assert found["products"][1] == 2 * (2 * CONVOLUTION + 2 * (DENSE + BIASES) + DENSE)
    assert found["one large product"][1] == 2 * 2048**3
    assert {kind for kind, (_, work) in found.items() if work} == {"products", "one large product"}


def test_every_kind_of_call_has_a_line_and_only_products_have_a_rate(capsys, monkeypatch):
    monkeypatch.setattr(profiling, "profile", partial(profile, rounds=1))
    main(["a"])
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.startswith("a: ")
    assert {kind for line in lines for kind in KINDS if kind in line} == set(KINDS)
    assert len(lines) == len(KINDS)
    assert sum("of one large product" in line for line in lines) == 1


def test_a_model_that_is_not_known_is_wrong_use(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["e"])
    assert "there is no model 'e'. Use one of a, b, c, d, seed-tf." in capsys.readouterr().err
