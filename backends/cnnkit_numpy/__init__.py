"""One image at a time in NumPy: the readable definition of every layer.

Read `layers.py` to learn how a convolution and its three gradients work, `program.py` for how images, threads and
optimizers come together. `patches` walks over the patches of an image.
"""

from cnnkit_numpy.patches import patches

__all__ = ["patches"]
