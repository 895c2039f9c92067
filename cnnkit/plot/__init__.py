"""Pictures of models, data and runs: functions that return a `Picture`, a matplotlib figure with its words.

Needs the extra `plot`. Nothing here opens a window or touches matplotlib's global state.
"""

from cnnkit.plot.confusion import confusion_matrix
from cnnkit.plot.curves import learning_curves
from cnnkit.plot.exciting import exciting_patches
from cnnkit.plot.gallery import images, mistakes
from cnnkit.plot.maps import feature_maps
from cnnkit.plot.picture import Picture
from cnnkit.plot.pooling import max_pooling
from cnnkit.plot.structure import architecture
from cnnkit.plot.weights import kernels
from cnnkit.plot.worked import convolution

__all__ = [
    "Picture",
    "architecture",
    "confusion_matrix",
    "convolution",
    "exciting_patches",
    "feature_maps",
    "images",
    "kernels",
    "learning_curves",
    "max_pooling",
    "mistakes",
]
