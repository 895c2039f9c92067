"""PyTorch as a contestant of `cnnkit bench`: the preset `seed-numpy` in plain eager code, one image a step."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

from cnnkit.arrays import Images, Labels, Parameters
from cnnkit.bench.contestant import Contestant


def torch_contestants(
    parameters: Parameters, pixels: Images, labels: Labels, learning_rate: float
) -> tuple[dict[str, Contestant], str]:
    """The contestant by its name, and a sentence on what it is; none where PyTorch is not installed."""
    if find_spec("torch") is None:
        return (
            {},
            "PyTorch is not installed, so it was not measured. Install it with: pip install 'cnnkit[peers]' (in a checkout: '.[peers]')",
        )
    import torch
    from torch import nn

    kernels = [array for name, array in sorted(parameters.items()) if array.ndim == 4]
    filters = kernels[0].shape[3]
    height, width = pixels.shape[1], pixels.shape[2]
    features = (height - 2) // 2 * ((width - 2) // 2) * filters
    network: Any = nn.Sequential(
        nn.Conv2d(1, filters, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(features, 10)
    )
    optimizer = torch.optim.SGD(network.parameters(), lr=learning_rate)
    loss_of = nn.CrossEntropyLoss()
    raw = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    targets = torch.from_numpy(labels)

    def prepared(index: int) -> Any:
        return (raw[index : index + 1].float() * (1 / 255) - 0.5).mean(dim=1, keepdim=True)

    def train() -> None:
        for index in range(len(raw)):
            optimizer.zero_grad()
            loss = loss_of(network(prepared(index)), targets[index : index + 1])
            loss.backward()
            optimizer.step()

    def predict() -> None:
        with torch.inference_mode():
            for index in range(len(raw)):
                torch.softmax(network(prepared(index)), dim=1)

    remark = f"PyTorch {torch.__version__}, eager, {torch.get_num_threads()} threads"
    return {"torch": Contestant(train, predict, len(raw))}, remark
