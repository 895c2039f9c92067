"""Measurements that anyone can repeat: ratios, taken in one run on one machine.

A round runs every contestant once; the best round of each counts, and a ratio is one best divided by another. Nothing
here is a test: a machine that is busy with something else gives other figures.
"""

from cnnkit.bench.measuring import Timing, measure_import, measure_seed

__all__ = ["Timing", "measure_import", "measure_seed"]
