"""The measurement compares programs that learn the same."""

import numpy as np
import pytest

from cnnkit_torch.bench import MODELS, OURS, contestants


@pytest.mark.parametrize("name", MODELS)
def test_everyone_starts_from_the_same_numbers_and_learns_the_same(name):
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (150, 28, 28, 1), dtype=np.uint8)
    found = contestants(MODELS[name], images, generator.integers(0, 10, 150))
    assert set(OURS) < set(found)
    first, second = zip(*((train(), train()) for train in found.values()), strict=True)
    np.testing.assert_allclose(first, first[0], rtol=1e-4)
    np.testing.assert_allclose(second, second[0], rtol=1e-3)
    assert second[0] < first[0]
