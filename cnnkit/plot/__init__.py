"""Pictures of models, data and runs: functions that return a `Picture`, a matplotlib figure with its words.

Needs the extra `plot`. Nothing here opens a window or touches matplotlib's global state.
"""

from cnnkit.plot.picture import Picture

__all__ = ["Picture"]
