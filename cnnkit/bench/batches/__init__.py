"""Training and predicting in batches, with peers: `cnnkit bench batches`.

`models.py` is what is trained, `workload.py` the task as all get it, `learner.py` what a contestant is, `entries.py` who
takes part, `backend_learner.py` and `peers/` the contestants, `worker.py` and `process.py` the two ends of a contestant's
process, `race.py` the rounds, `agreement.py` the check that all do the same work, `report.py` tables and JSON.

A new model is one definition in `models.py`; a new peer one module in `peers/` and one line in `entries.py`; a backend
needs nothing: it is driven through the contract.
"""

from cnnkit.bench.batches.entries import PEERS, Entry, Peer, backend_entries, peer_entries
from cnnkit.bench.batches.models import MODELS
from cnnkit.bench.batches.race import Outcome, race
from cnnkit.bench.batches.report import Race, machine, race_table, race_to_dict, sentences
from cnnkit.bench.batches.workload import Workload

__all__ = [
    "MODELS",
    "PEERS",
    "Entry",
    "Outcome",
    "Peer",
    "Race",
    "Workload",
    "backend_entries",
    "machine",
    "peer_entries",
    "race",
    "race_table",
    "race_to_dict",
    "sentences",
]
