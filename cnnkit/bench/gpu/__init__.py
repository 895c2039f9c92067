"""Everything that can be proved and measured on an NVIDIA card, in one command: `cnnkit bench --gpu`.

`everything.py` goes through the parts within the time of `budget.py`; `suite.py` is the conformance suite on the device,
`layer_table.py` and `step_table.py` the measuring by `rounds.py`, `ways.py` who takes part. `remote.py` and `worker.py` are the
two ends of a contestant's process, `backend_side.py`, `torch_side.py` and `torch_layers.py` the contestants, `driver.py` the
card. `models.py` is what is measured, `results.py` what came out, `targets.py` what was hoped for, `report.py` how people
read it.
"""

from cnnkit.bench.gpu.budget import read_seconds
from cnnkit.bench.gpu.everything import Ask, run
from cnnkit.bench.gpu.report import folder, to_markdown, write
from cnnkit.bench.gpu.results import GpuReport
from cnnkit.bench.gpu.ways import DEFAULT

__all__ = ["DEFAULT", "Ask", "GpuReport", "folder", "read_seconds", "run", "to_markdown", "write"]
