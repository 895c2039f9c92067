"""The pictures of the pages. Each is made anew by every build, from small runs on scikit-learn's digits."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import cnnkit
from cnnkit import plot
from cnnkit.mistakes import worst_mistakes


def pictures(site):
    """Yield `(name, Picture)` for each picture; what the site offers beside its pages goes into the folder `site`."""
    train, test = cnnkit.load_dataset("digits")
    preset = cnnkit.load_preset("seed-tf").for_data(train.image_shape, train.classes, train.class_names)
    model = preset.model
    run = cnnkit.fit(model, train, 0.1, "numpy-batched", preset.optimizer, preset.batch_size, epochs=8)
    parameters = run.state.parameters
    image = test.images[0]

    yield "architecture-small", plot.architecture(model)
    yield "architecture", plot.architecture(cnnkit.load_preset("seed-tf").model)
    yield "dense-network", plot.architecture(cnnkit.load_preset("mlp-1h").model)
    yield "learning-curves", plot.learning_curves(run.history)
    yield "mistakes", plot.mistakes(worst_mistakes(model, parameters, test, "numpy-batched"))
    yield "confusion", plot.confusion_matrix(cnnkit.evaluate(model, parameters, test, "numpy-batched"))
    yield "digits", plot.images(train)
    yield "kernels", plot.kernels(model, parameters, before=cnnkit.initial_parameters(model, seed=0))
    yield "feature-maps", plot.feature_maps(model, parameters, image, "numpy-batched")
    yield "patches", plot.exciting_patches(model, parameters, test, "numpy-batched", filters=range(6))
    yield "convolution", _eight_steps()
    yield "max-pooling", plot.max_pooling(model, parameters, image, "numpy-batched")
    _report(Path(site))


def _eight_steps():
    """The convolution that docs/story/convolution.md works out, one step from the corner."""
    image = np.repeat([[0, 0, 0, 9, 9, 9], [0, 0, 5, 9, 9, 9]], 3, axis=0).astype(np.float32)
    kernel = np.repeat([[-1, 0, 1]], 3, axis=0).astype(np.float32)
    model = cnnkit.Model(input_shape=(6, 6, 1), layers=[cnnkit.Conv2D(filters=1, kernel_size=3)])
    parameters = {"0.kernel": kernel[:, :, None, None], "0.bias": np.zeros(1, np.float32)}
    return plot.convolution(model, parameters, image[:, :, None], "numpy", at=(0, 1))


def _report(site):
    """The report of a run as `cnnkit train` leaves it."""
    with tempfile.TemporaryDirectory() as folder:
        command = "train seed-tf digits --epochs 6 --validation 0.1 --backend numpy-batched --out run"
        subprocess.run(  # noqa: S603 - our own command
            [sys.executable, "-m", "cnnkit", *command.split()], cwd=folder, check=True, capture_output=True
        )
        shutil.copy(Path(folder, "run", "report.html"), site / "example-report.html")
