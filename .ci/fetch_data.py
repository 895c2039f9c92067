"""Write mnist.npz and cifar10.npz, with Keras's keys, into a folder: `python .ci/fetch_data.py FOLDER`."""

import sys
from pathlib import Path

import numpy as np

import cnnkit

folder = Path(sys.argv[1])
folder.mkdir(parents=True, exist_ok=True)
for name in ("mnist", "cifar10"):
    train, test = cnnkit.load_dataset(name)
    np.savez(
        folder / f"{name}.npz",
        x_train=train.images,
        y_train=train.labels.astype(np.uint8),
        x_test=test.images,
        y_test=test.labels.astype(np.uint8),
    )
