"""PyTorch as a contestant on a card, tried on its CPU where it is installed: the same work as a backend. No GPU runs here."""

from dataclasses import replace

import pytest

from cnnkit.bench.batches import PEERS
from cnnkit.bench.batches.agreement import Shown, differences, wrong_predictions
from cnnkit.bench.batches.backend_learner import make as backend_learner

pytestmark = pytest.mark.skipif(not PEERS["torch"].installed, reason="PyTorch is not installed: 'cnnkit[peers]'")


@pytest.fixture
def learner(small):
    """The learner for a workload whose last batch is smaller."""
    from cnnkit.bench.gpu import torch_side

    return torch_side.make(replace(small, count=124), device="cpu", precision="float32", graph=False)


def shown(learner):
    losses, parameters = [], []
    for _ in range(2):
        losses.append(learner.train())
        parameters.append(learner.parameters())
    return Shown(losses, *parameters, draws_masks=False)


def test_it_learns_what_a_backend_learns(learner):
    work = learner.workload
    assert learner.parameters().keys() == work.parameters.keys()
    assert differences(work, shown(learner), shown(backend_learner(work, "numpy", "epoch", {}))) == []


def test_its_loss_is_the_mean_over_images_though_the_last_batch_is_smaller(learner):
    assert learner.train() == pytest.approx(backend_learner(learner.workload, "numpy", "epoch", {}).train(), rel=1e-3)


def test_it_predicts_what_its_parameters_give(learner):
    learner.train()
    assert wrong_predictions(learner.workload, learner.parameters(), learner.predict()) == []


def test_its_versions_are_told(learner):
    import torch

    assert learner.versions["torch"] == torch.__version__


@pytest.mark.parametrize(("precision", "allowed"), [("tf32", True), ("float32", False)])
def test_tf32_is_on_only_where_it_is_asked_for(small, precision, allowed):
    import torch

    from cnnkit.bench.gpu import torch_side

    torch_side.make(small, device="cpu", precision=precision, graph=False)
    assert torch.backends.cuda.matmul.allow_tf32 is allowed
    assert torch.backends.cudnn.allow_tf32 is allowed
