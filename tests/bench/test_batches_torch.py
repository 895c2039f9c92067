"""PyTorch as a peer, where it is installed: it does the same work as a backend, with and without dropout."""

from dataclasses import replace

import pytest

from cnnkit import Model
from cnnkit.bench.batches import PEERS, backend_entries, peer_entries, race

pytestmark = pytest.mark.skipif(not PEERS["torch"].installed, reason="PyTorch is not installed: 'cnnkit[peers]'")


@pytest.mark.parametrize("dropout", [False, True])
def test_both_memory_formats_do_the_same_work_as_a_backend(small, dropout):
    layers = list(small.model.layers)
    if dropout:
        layers.insert(4, {"kind": "dropout", "rate": 0.2})
    model = Model.from_dict({**small.model.to_dict(), "layers": [dict(layer) for layer in layers]})
    outcomes = race(replace(small, model=model), backend_entries(["numpy"])[:1] + peer_entries(["torch"])[0], rounds=1)
    assert [outcome.entry.title for outcome in outcomes[1:]] == ["torch, NCHW", "torch, channels_last"]
    assert [outcome.problems for outcome in outcomes] == [[], [], []]
    assert all(outcome.draws_masks for outcome in outcomes[1:])
