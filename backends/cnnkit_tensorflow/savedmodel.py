"""The format `savedmodel`: TensorFlow's own folder, which TensorFlow loads, and TensorFlow Serving serves, without cnnkit.

====================================  =================================================================================
in the folder                         is
====================================  =================================================================================
signature `serving_default`           `images`, float32 `(batch, *input_shape)`, to `probabilities` `(batch, classes)`;
                                      of a model that is no classifier to `outputs` `(batch, *output_shape)`
signature `serving_uint8`             the same for `images` in uint8
function `predict`                    both of them, by the type of the images: `model = tf.saved_model.load(path)`,
                                      then `model.predict(images)`
`assets.extra/model.json`             the model file: layers, names of classes. TensorFlow does not look there
====================================  =================================================================================

The graph is that of the backend; TensorFlow writes it without devices, so it runs on whatever it is loaded on. Importing this module imports no engine.
"""

from __future__ import annotations

import importlib.util
import re
import secrets
import shutil
from pathlib import Path
from typing import Any, Final

from cnnkit.arrays import Parameters
from cnnkit.errors import BackendError, CnnkitError, MissingDependency, OptionError
from cnnkit.model import Model
from cnnkit.plan import Plan

GRAPH: Final = "saved_model.pb"
"""The file that makes a folder a SavedModel."""

LOADED_WITH: Final = "model = tensorflow.saved_model.load({path}); model.predict(images)"


def write(model: Model, parameters: Parameters, path: Path) -> None:
    """Write the folder `path`, whole or not at all. A SavedModel that is there is replaced; nothing else is."""
    spec = importlib.util.find_spec("tensorflow")
    if spec is None or spec.origin is None:  # not there, or only a folder of that name
        raise MissingDependency("The format 'savedmodel'", "TensorFlow", "tensorflow")
    _check_place(path)
    unfinished = path.with_name(f".cnnkit-{secrets.token_hex(8)}.tmp")
    try:
        _save(model.plan(), parameters, unfinished)
        extra = unfinished / "assets.extra"
        extra.mkdir()
        (extra / "model.json").write_text(model.to_json(), encoding="utf-8")
        _put(unfinished, path)
    except BaseException:  # Ctrl-C too must leave nothing behind
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def _save(plan: Plan, parameters: Parameters, folder: Path) -> None:
    import tensorflow as tf

    from cnnkit_tensorflow import network
    from cnnkit_tensorflow.layers import Run

    def run(images: Any) -> Any:
        def some() -> Any:
            return network.predict(plan, Run(module.parameters), tf.cast(images, tf.float32))

        # TensorFlow's joined kernels give no images back in the shape that they came in, and the next layer fails.
        shape = plan.output_shape
        return tf.ensure_shape(tf.cond(tf.size(images) > 0, some, lambda: tf.zeros([0, *shape])), [None, *shape])

    with tf.init_scope():  # also while the caller traces a function of its own
        if not tf.executing_eagerly():
            raise BackendError(
                "a SavedModel cannot be made inside of a tf.Graph(), where TensorFlow records operations and runs none. "
                "Export outside of the graph, with eager execution on."
            )
        module = tf.Module()
        module.parameters = {name: tf.Variable(array, name=name) for name, array in parameters.items()}
        module.predict = tf.function(run, autograph=False)
        output = "probabilities" if plan.is_classifier else "outputs"

        def signature(dtype: Any) -> Any:
            images = tf.TensorSpec([None, *plan.input_shape], dtype, name="images")
            module.predict.get_concrete_function(images)  # or `predict` would not know this type once it is loaded
            return tf.function(lambda images: {output: run(images)}, input_signature=[images], autograph=False)

        signatures = {"serving_default": signature(tf.float32), "serving_uint8": signature(tf.uint8)}
        try:
            tf.saved_model.save(module, str(folder), signatures)
        except (
            tf.errors.OpError
        ) as error:  # TensorFlow's own classes, also for a full disk: "{{node}} FILE; reason [Op:SaveV2]"
            reason = re.sub(r" \[Op:\w+\]$", "", error.message).rpartition("; ")[2]
            raise OSError(reason) from error


def _check_place(path: Path) -> None:
    """Refuse to replace a folder that holds something else: it may be somebody's work."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise OptionError(f"{path} is no folder, which a SavedModel is. Give another place.")
    if path.is_dir() and any(path.iterdir()) and not (path / GRAPH).is_file():
        raise OptionError(f"{path} holds something other than a SavedModel, and is not replaced. Give another place.")


def _put(unfinished: Path, path: Path) -> None:
    """Give the new folder its name. What has that name is moved aside first, and back if anything fails."""
    if not path.exists():
        unfinished.rename(path)
        return
    aside = path.with_name(f".cnnkit-{secrets.token_hex(8)}.old")
    try:
        path.rename(aside)
        unfinished.rename(path)
    except BaseException:  # Ctrl-C too, which may also come right behind either of them
        if aside.exists() and not path.exists():
            aside.rename(path)
        shutil.rmtree(aside, ignore_errors=True)
        raise
    try:
        shutil.rmtree(aside)
    except OSError as error:
        raise CnnkitError(
            f"{path} is written, but what was there before is still in {aside}: {error}. Remove it."
        ) from error
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
