"""PyTorch as a contestant on the card: channels_last, the fused Adam, its data on the card, each step eager or in a CUDA graph.

The network is that of `bench batches`, moved to the card.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, final

import torch

from cnnkit.arrays import Array, Parameters
from cnnkit.bench.batches.learner import Learner, predict_in_parts
from cnnkit.bench.batches.peers import torch_eager
from cnnkit.bench.batches.workload import LEARNING_RATE, Workload
from cnnkit.bench.gpu.contestant import LayerCalls
from cnnkit.bench.gpu.models import LayerTask
from cnnkit.bench.gpu.torch_layers import calls_of

WARM_UP = 3
"""Steps before a graph is recorded, as PyTorch's documentation has it; they are undone."""


def make(workload: Workload, *, device: str, precision: str, graph: bool) -> Learner:
    """The learner on `device`, such as "cuda:0"; `precision` is "float32" or "tf32"."""
    return _Torch(workload, _ready(device, precision), graph=graph)


def layer(task: LayerTask, *, device: str, precision: str, graph: bool) -> LayerCalls:  # noqa: ARG001 - of steps
    """One layer, by torch.nn.functional."""
    return calls_of(task, _ready(device, precision))


def release() -> None:
    """Give back what PyTorch's allocator keeps."""
    torch.cuda.empty_cache()


def _ready(device: str, precision: str) -> torch.device:
    """The device, which is the current one, with PyTorch in that precision."""
    allowed = precision == "tf32"
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed
    torch.backends.cudnn.benchmark = True
    found = torch.device(device)
    if found.type == "cuda":
        torch.cuda.set_device(found)
    return found


@final
class _Torch(Learner):
    def __init__(self, workload: Workload, device: torch.device, *, graph: bool) -> None:
        super().__init__(workload)
        torch.manual_seed(workload.seed)
        made: Any = torch_eager.make(workload, channels_last=True)
        self.network, self.places, (self.scale, self.offset) = made.network.to(device), made.places, made.rescale
        self.device, self.size = device, workload.batch_size
        weights = list(self.network.parameters())
        self.optimizer = torch.optim.Adam(
            weights, lr=LEARNING_RATE, eps=workload.optimizer.epsilon, fused=True, capturable=graph
        )
        self.loss_of = torch.nn.CrossEntropyLoss()
        self.images = torch.from_numpy(workload.images).to(device)  # (count, height, width, channels)
        self.labels, self.order = (torch.from_numpy(it).to(device) for it in (workload.labels, workload.order))
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=device)
        sizes = {len(rows) for rows in torch.split(self.order, self.size)}  # the last batch may be smaller
        self.graphs = {size: self._recorded(size) for size in sizes} if graph else {}

    @property
    def versions(self) -> Mapping[str, str]:
        found = {"torch": torch.__version__}
        if torch.version.cuda:
            found |= {"torch's CUDA": torch.version.cuda, "torch's cuDNN": str(torch.backends.cudnn.version())}
        return found

    def train(self) -> float:
        self.loss_sum.zero_()
        for rows in torch.split(self.order, self.size):
            if self.graphs:
                place, graph = self.graphs[len(rows)]
                place.copy_(rows)
                graph.replay()
            else:
                self._step(rows)
        return float(self.loss_sum) / len(self.order)

    def _step(self, rows: torch.Tensor) -> None:
        self.optimizer.zero_grad()
        loss = self.loss_of(self._scores(self.images[rows]), self.labels[rows])
        loss.backward()
        self.optimizer.step()
        self.loss_sum += loss.detach() * len(rows)

    def _scores(self, images: torch.Tensor) -> Any:
        x = images.permute(0, 3, 1, 2).float() * self.scale  # (batch, channels, height, width), channels last in memory
        return self.network(x + self.offset if self.offset else x)

    def _recorded(self, size: int) -> tuple[torch.Tensor, Any]:
        """Where the places of a batch of `size` images go, and the graph of a step on them. No step is left over."""
        rows = self.order[:size].clone()
        before = [weight.detach().clone() for weight in self.network.parameters()]
        side = torch.cuda.Stream(self.device)
        side.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self._step(rows)
        torch.cuda.current_stream(self.device).wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad()
        with torch.cuda.graph(graph):
            self._step(rows)
        with torch.no_grad():
            for weight, value in zip(self.network.parameters(), before, strict=True):
                weight.copy_(value)
            for slots in self.optimizer.state.values():
                for slot in slots.values():
                    slot.zero_()  # in place: the graph knows these by address
        return rows, graph

    def predict(self) -> Array:
        with torch.inference_mode():
            return predict_in_parts(self._probabilities, self.workload.images, self.size)

    def _probabilities(self, images: Any) -> Array:
        scores = self._scores(torch.from_numpy(images).to(self.device))
        found: Array = torch.softmax(scores, 1).cpu().numpy()
        return found

    def parameters(self) -> Parameters:
        return {name: back(tensor.detach().cpu().numpy()).copy() for name, (tensor, back) in self.places.items()}
