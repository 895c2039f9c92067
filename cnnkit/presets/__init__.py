"""Presets: models with the training settings that suit them, shipped as TOML files beside this module.

A preset is a recipe. Its model says what the layers are; the image shape, the number of classes and their names come
from the data that it is trained on (`Preset.for_data`).
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import resources

from cnnkit.arrays import Shape
from cnnkit.errors import OptionError
from cnnkit.model import Dense, Model
from cnnkit.optimizers import SGD, Adam, AdamW, optimizer_from_dict


@dataclass(frozen=True)
class Preset:
    """A model, and how to train it."""

    name: str
    about: str
    model: Model
    optimizer: SGD | Adam | AdamW
    batch_size: int
    epochs: int

    def for_data(self, image_shape: Shape, classes: int, class_names: Sequence[str] | None = None) -> Preset:
        """The preset with the model's `input_shape`, the units of its last Dense layer and its class names set."""
        layers = list(self.model.layers)
        last = max(index for index, layer in enumerate(layers) if isinstance(layer, Dense))
        layers[last] = layers[last].model_copy(update={"units": classes})
        names = tuple(class_names) if class_names else None
        model = Model(name=self.model.name, input_shape=image_shape, layers=layers, class_names=names)
        return replace(self, model=model)


def preset_names() -> tuple[str, ...]:
    """The names of all presets, in alphabetical order."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_preset(name: str) -> Preset:
    """Read the preset `name`; an `OptionError` that lists the names where there is none."""
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1)
        hint = f" Did you mean '{near[0]}'?" if near else ""
        raise OptionError(f"there is no preset {name!r}; presets are {', '.join(names)}.{hint}")
    data = tomllib.loads((resources.files(__name__) / f"{name}.toml").read_text(encoding="utf-8"))
    training = data["training"]
    return Preset(
        name=name,
        about=data["about"],
        model=Model.from_dict({**data["model"], "name": name}, f"preset {name!r}"),
        optimizer=optimizer_from_dict(training["optimizer"]),
        batch_size=training["batch_size"],
        epochs=training["epochs"],
    )
