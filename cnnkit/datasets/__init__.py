"""Images with their labels: arrays, known data sets, .npz files and folders of images.

Read `dataset` first (what a data set is, and how it is split), then `loading` (from a name or a path to two data
sets), then where the arrays come from: `sources` (known data sets, cache and download), `archives` (the file formats)
and `folders` (images by class).
"""

from cnnkit.datasets.dataset import Dataset
from cnnkit.datasets.folders import image_files, load_folder, read_images
from cnnkit.datasets.loading import dataset_names, load_dataset

__all__ = ["Dataset", "dataset_names", "image_files", "load_dataset", "load_folder", "read_images"]
