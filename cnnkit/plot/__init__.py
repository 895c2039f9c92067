"""Pictures of models, data and runs: functions that return a `Picture`, a matplotlib figure with its words.

Needs the extra `plot`. Nothing here opens a window or touches matplotlib's global state.
"""

from cnnkit.plot.confusion import confusion_matrix
from cnnkit.plot.curves import learning_curves
from cnnkit.plot.gallery import images, mistakes
from cnnkit.plot.picture import Picture
from cnnkit.plot.structure import architecture

__all__ = ["Picture", "architecture", "confusion_matrix", "images", "learning_curves", "mistakes"]
