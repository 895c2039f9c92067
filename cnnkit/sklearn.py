"""`CNNClassifier`: a cnnkit model, on any backend, as a scikit-learn estimator."""

# ruff: noqa: N803 - scikit-learn calls them X and y, also by keyword

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnnkit.arrays import Array, Images, Shape, dtype_of
from cnnkit.backend import Backend
from cnnkit.datasets import Dataset
from cnnkit.errors import DataError, MissingDependency, ModelError, OptionError
from cnnkit.evaluation import predict
from cnnkit.history import EarlyStopping, EpochRecord, Event
from cnnkit.metrics import predicted_classes
from cnnkit.model import Model, Rescale
from cnnkit.optimizers import Adam, Optimizer
from cnnkit.presets import Preset, load_preset
from cnnkit.state import TrainingState
from cnnkit.training import fit

OLDEST: Final = "1.6"
"""The scikit-learn that brought `validate_data`."""

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_array, check_random_state, check_X_y
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingDependency("CNNClassifier", f"scikit-learn>={OLDEST}", "data") from error

__all__ = ["CNNClassifier"]

BATCH_SIZE: Final = 32
"""Where neither the caller nor a preset that the caller named says how many rows a step takes."""

EPOCHS: Final = 20
"""Likewise for the passes: enough for some hundreds of rows, which is less than what presets are made for."""


class CNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc] # scikit-learn ships no types
    """A classifier for scikit-learn's pipelines and searches, trained by `cnnkit.fit`.

    X is `(n, features)`, or images `(n, height, width, channels)`; y holds a label a row, of any type that
    scikit-learn takes. Bytes (uint8) stay bytes; any other numbers are computed in the precision of the backend. NaN and
    infinity are refused, as scikit-learn's users expect.

    Args:
        model: A `cnnkit.Model`, which is taken as it is; the name of a preset, whose layers are fitted to the data; or
            None for the layers of the preset mlp-1h, of seed-tf where the rows are images. Presets divide bytes by 255;
            for other numbers this layer is left out, and scaling them is the pipeline's task.
        image_shape: `(height, width, channels)`: the rows of a 2-D X are images, written out row by row. With a `Model`
            its `input_shape` says so already.
        backend: A name, or a list of names of which the first that is ready is taken; None means CNNKIT_BACKEND, or
            cnnkit's default.
        optimizer: Such as `cnnkit.SGD(0.01)`; None means that of the preset that `model` names, or Adam(1e-3).
        batch_size: Rows a step; None means that of the preset that `model` names, or 32.
        epochs: Passes over X, the most with `patience`; None means those of the preset that `model` names, or 20.
        random_state: Where initial parameters, orders, dropout and the validation rows come from. An int is the `seed`
            of `cnnkit.fit`; None and a RandomState give another seed to each `fit`.
        validation_fraction: A part of X, between 0 and 1, that is held out, stratified by class; the history tells of it.
        patience: Stop when the validation loss (without `validation_fraction`, the training loss) has not fallen for
            so many epochs, and end on the best weights.
        device, precision, options: Handed to the backend, for predicting too.
        verbose: 1 prints a line an epoch.

    Attributes:
        classes_: The labels, in order `(classes,)`; the columns of `predict_proba`.
        model_: The `cnnkit.Model` that was trained, its class names set where a preset was fitted.
        state_: Its `TrainingState`; `cnnkit.save(path, clf.model_, clf.state_)` writes both.
        history_: An `EpochRecord` an epoch; `train` is None unless `patience` watches the training loss.
        n_iter_: How many epochs there were.
        n_features_in_: The features of a 2-D X; `feature_names_in_` their names, if they had any.
    """

    classes_: NDArray[Any]
    model_: Model
    state_: TrainingState
    history_: tuple[EpochRecord, ...]
    n_iter_: int

    def __init__(
        self,
        *,
        model: Model | str | None = None,
        image_shape: Shape | None = None,
        backend: str | Sequence[str] | None = None,
        optimizer: Optimizer | None = None,
        batch_size: int | None = None,
        epochs: int | None = None,
        random_state: int | np.random.RandomState | None = None,
        validation_fraction: float | None = None,
        patience: int | None = None,
        device: str | None = None,
        precision: str = "float32",
        options: Mapping[str, Any] | None = None,
        verbose: int = 0,
    ) -> None:
        self.model = model
        self.image_shape = image_shape
        self.backend = backend
        self.optimizer = optimizer
        self.batch_size = batch_size
        self.epochs = epochs
        self.random_state = random_state
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.precision = precision
        self.options = options
        self.verbose = verbose

    def fit(self, X: ArrayLike, y: ArrayLike) -> CNNClassifier:
        """Train from the beginning on X and y.

        Raises:
            ValueError: X or y is nothing to learn from: `DataError`, `ModelError` or `OptionError`, or in scikit-learn's words.
            BackendError: The backend is not there, not ready, or refuses the model.
            NonFiniteLoss: The loss became NaN or infinite.
        """
        rows, targets = self._checked(X, y, reset=True)
        classes, labels = _in_order("y", targets)
        self._train(rows, labels, classes, self._drawn_seed(), self.validation_fraction, self.patience, self.epochs)
        return self

    def partial_fit(self, X: ArrayLike, y: ArrayLike, classes: ArrayLike | None = None) -> CNNClassifier:
        """Make one more pass, over X and y, from where the last `fit` or `partial_fit` ended; `epochs` is not asked.

        `classes`, all labels that will ever come, is needed at the first call. Raises what `fit` does.
        """
        if self.patience is not None or self.validation_fraction is not None:
            raise OptionError(
                f"patience is {self.patience!r} and validation_fraction {self.validation_fraction!r}, but partial_fit makes "
                "one pass over all of X. Leave both at None, or use fit."
            )
        first = not hasattr(self, "state_")
        if first and classes is None:
            raise OptionError("classes is None at the first partial_fit; expected all labels, such as numpy.unique(y).")
        given = None if classes is None else _in_order("classes", np.asarray(classes))[0]
        known: NDArray[Any] = self.classes_ if given is None or not first else given
        if given is not None and not np.array_equal(given, known):
            raise OptionError(
                f"classes is {classes!r}, but was {known!r} before. Leave it out, or begin anew with fit."
            )
        rows, targets = self._checked(X, y, reset=first)
        check_classification_targets(targets)
        number = {label: index for index, label in enumerate(known.tolist())}
        unknown = [label for label in targets.tolist() if label not in number]
        if unknown:
            raise DataError(
                f"y holds {unknown[0]!r}, which is none of the classes {known.tolist()}. Begin with all of them."
            )
        labels = np.array([number[label] for label in targets.tolist()])
        before: TrainingState | None = None if first else self.state_
        # Another order in each pass; the state itself holds the seed of the masks of dropout.
        seed = before.seed + before.step if before else self._drawn_seed()
        self._train(rows, labels, known, seed, None, None, 1, before)
        return self

    def predict_proba(self, X: ArrayLike) -> Array:
        """The probability of each class, `(n, classes)`, in the order of `classes_`."""
        check_is_fitted(self, "state_")
        images = _shaped(self._checked(X), self.model_.input_shape)
        return predict(self.model_, self.state_.parameters, images, **self._backend())

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """The most probable label of each row, `(n,)`; of several the first in `classes_`."""
        probabilities = self.predict_proba(X)
        labels: NDArray[Any] = self.classes_[predicted_classes(probabilities)]
        return labels

    # ------------------------------------------------------------------------------------------------------- training

    def _train(
        self,
        X: NDArray[Any],
        labels: NDArray[np.int64],
        classes: NDArray[Any],
        seed: int,
        validation_fraction: float | None,
        patience: int | None,
        epochs: int | None,
        before: TrainingState | None = None,
    ) -> None:
        """Train on `(n, ...)` with labels `(n,)` numbered from 0, going on from `before`, and keep what came of it."""
        preset = load_preset(self.model) if isinstance(self.model, str) else None
        earlier: tuple[EpochRecord, ...] = ()
        if before is None:
            images = _shaped(X, self._shape_of_rows(X))
            model = self._fitted_model(images, classes, preset)
        else:
            model, earlier = self.model_, self.history_
            images = _shaped(X, model.input_shape)
        run = fit(
            model,
            Dataset(images, labels),
            validation_fraction,
            optimizer=self.optimizer or (preset.optimizer if preset else Adam(learning_rate=1e-3)),
            batch_size=_first(self.batch_size, preset.batch_size if preset else None, BATCH_SIZE),
            epochs=_first(epochs, preset.epochs if preset else None, EPOCHS),
            seed=seed,
            initial=before,
            early_stopping=None if patience is None else EarlyStopping(patience=patience),
            train_metrics=False,
            callbacks=[_tell] if self.verbose else [],
            **self._backend(),
        )
        later = tuple(replace(record, epoch=record.epoch + len(earlier)) for record in run.history)
        self.classes_, self.model_, self.state_, self.history_ = classes, model, run.state, earlier + later
        self.n_iter_ = len(self.history_)

    def _drawn_seed(self) -> int:
        if isinstance(self.random_state, Integral):
            return self.random_state  # cnnkit says what is wrong with one
        return int(check_random_state(self.random_state).randint(np.iinfo(np.int32).max))

    def _backend(self) -> dict[str, Any]:
        if isinstance(self.backend, Backend):
            raise OptionError(
                f"backend is a {type(self.backend).__name__}; expected a name, since estimators are copied and pickled. Give "
                "the name, with device, precision and options beside it."
            )
        if not isinstance(self.options, Mapping | None):
            raise OptionError(
                f"options is {self.options!r}; expected the backend's own options by name, such as {{'threads': 2}}."
            )
        names = ("backend", "device", "precision", "options")
        return {name: getattr(self, name) for name in names}

    # ----------------------------------------------------------------------------------------------- models and data

    def _fitted_model(self, images: Images, classes: NDArray[Any], preset: Preset | None) -> Model:
        if isinstance(self.model, Model):
            units = self.model.plan().classes
            if units != len(classes):  # or the columns of predict_proba would not be those of classes_
                raise DataError(
                    f"y has {len(classes)} classes, but {self.model.title} tells {units} apart. Give its last Dense layer "
                    f"{len(classes)} units."
                )
            names = self.model.class_names
            if names and classes.dtype.kind in "OU" and names != tuple(classes.tolist()):
                raise DataError(
                    f"y has the labels {', '.join(map(str, classes))}, in this order, but {self.model.title} names its classes "
                    f"{', '.join(names)}. Give it class_names={classes.tolist()}, or none."
                )
            return self.model
        if preset is None:
            if self.model is not None:
                raise OptionError(f"model is {self.model!r}; expected a cnnkit.Model, the name of a preset, or None.")
            preset = load_preset("mlp-1h" if images.ndim == 2 else "seed-tf")
        shown = tuple(str(label) for label in classes.tolist())
        nameable = all(shown) and len(set(shown)) == len(shown)
        model = preset.for_data(images.shape[1:], len(classes), shown if nameable else None).model
        if images.ndim == 2:
            _require_no_images(model)
        if images.dtype == np.uint8:
            return model
        layers = [layer for layer in model.layers if not isinstance(layer, Rescale)]
        return Model(name=model.name, input_shape=model.input_shape, layers=layers, class_names=model.class_names)

    def _shape_of_rows(self, X: NDArray[Any]) -> Shape:
        """What a row is for the model: as `image_shape` says, or a `Model` that takes images, or X itself."""
        if self.image_shape is not None:
            shape = self.image_shape
            if (
                not isinstance(shape, (list, tuple))
                or len(shape) != 3
                or not all(isinstance(size, Integral) and size >= 1 for size in shape)
            ):
                raise OptionError(
                    f"image_shape is {self.image_shape!r}; expected (height, width, channels), such as (28, 28, 1)."
                )
            return tuple(int(size) for size in shape)
        return self.model.input_shape if isinstance(self.model, Model) else X.shape[1:]

    def _checked(self, X: Any, y: Any = "no_validation", *, reset: bool = False) -> Any:
        """X, or X and y where there is one, as arrays that scikit-learn's own checks let through.

        `cnnkit.fit` takes NaN, since backends are compared on it. Here it is refused, as scikit-learn has it: in a
        pipeline it means that a step which fills gaps is missing.
        """
        dimensions = X.ndim if hasattr(X, "ndim") else np.asarray(X).ndim
        computed = dtype_of("float64" if self.precision == "float64" else "float32")
        dtypes = [computed, np.uint8]  # any other becomes the first
        if dimensions == 3:
            raise DataError(
                f"X has shape {np.shape(X)}; expected (n, features) or (n, height, width, channels). Add the channel "
                "axis: X[..., numpy.newaxis]."
            )
        if dimensions != 4:
            return validate_data(self, X, y, dtype=dtypes, reset=reset)
        if reset:  # what an earlier fit said of a 2-D X
            for name in {"n_features_in_", "feature_names_in_"} & vars(self).keys():
                delattr(self, name)
        if isinstance(y, str) and y == "no_validation":
            return check_array(X, dtype=dtypes, allow_nd=True, estimator=self, input_name="X")
        return check_X_y(X, y, dtype=dtypes, allow_nd=True, estimator=self)


def _require_no_images(model: Model) -> None:
    try:
        model.plan()
    except ModelError as error:
        raise DataError(
            f"X has rows of {model.input_shape[0]} features, but the preset '{model.name}' takes images. Give their "
            "image_shape=(height, width, channels), or model='mlp-1h'."
        ) from error


def _shaped(X: NDArray[Any], shape: Shape) -> Images:
    """X with its rows in `shape`; only rows of features become images, and never the other way round."""
    if X.shape[1:] == shape:
        return X
    if X.ndim == 2 and X.shape[1] == math.prod(shape):
        return X.reshape(len(X), *shape)
    raise DataError(
        f"X has shape {X.shape}, but the model takes {shape} for each row: expected (n, {', '.join(map(str, shape))})"
        f"{f' or (n, {math.prod(shape)})' if len(shape) == 3 else ''}. Give such an X, or another image_shape or model."
    )


def _in_order(where: str, labels: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """The different labels in order, and which of them each one is."""
    try:
        check_classification_targets(labels)
        return np.unique(labels, return_inverse=True)
    except TypeError as error:  # texts beside numbers, None, or bytes
        reason = str(error).rstrip(".")
        raise DataError(
            f"{where} has labels that cannot be put in order: {reason}. Give texts only, or numbers only."
        ) from error


def _first(*choices: int | None) -> int:
    return next(choice for choice in choices if choice is not None)


def _tell(event: Event) -> None:
    if isinstance(event, EpochRecord):
        held = event.validation
        measured = f", validation loss {held['loss']:.4f}, accuracy {held['accuracy']:.4f}" if held else ""
        print(f"Epoch {event.epoch}: running loss {event.running_loss:.4f}{measured}")  # noqa: T201 - verbose asks for it
