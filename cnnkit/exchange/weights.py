"""The arrays of a Keras model in HDF5: `layers/<class in snake case, numbered>/vars/<0, 1>`, kernel before bias.

On reading, only plain arrays that lie in the file itself are taken. HDF5 can also point to other files, compress, and
promise more than it stores; Keras does none of this for weights, and each of it is an error here before it is followed.
"""

from __future__ import annotations

import importlib
import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cnnkit.arrays import Array, Shape
from cnnkit.errors import MissingDependency
from cnnkit.exchange.archive import Archive
from cnnkit.exchange.to_keras import KerasLayer
from cnnkit.plan import Plan

ROOTS = ("layers", "_layer_checkpoint_dependencies")
"""Where the layers are: today, and in the first files of this kind."""


def group_names(class_names: Iterable[str]) -> Iterator[str]:
    """What Keras calls the groups of layers: classes in snake case, numbered from the second of a kind on."""
    counts: dict[str, int] = {}
    for class_name in class_names:
        name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", class_name)
        name = re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
        count = counts.get(name, 0)
        counts[name] = count + 1
        yield f"{name}_{count}" if count else name


def write_weights(layers: Sequence[KerasLayer]) -> bytes:
    """The arrays of `layers`, float32, as the contents of an HDF5 file."""
    file = io.BytesIO()
    with _h5py().File(file, "w") as store:
        store.create_group("vars").attrs["name"] = "cnnkit"
        for layer, group in zip(layers, group_names(layer.class_name for layer in layers), strict=True):
            held = store.create_group(f"layers/{group}/vars")
            held.attrs["name"] = layer.config["name"]
            for number, array in enumerate(layer.arrays):
                held.create_dataset(str(number), data=array.astype("<f4", copy=False))
    return file.getvalue()


def read_weights(archive: Archive, name: str, plan: Plan, groups: Mapping[int, str]) -> dict[str, Array]:
    """The parameters of `plan` from the member `name`; `groups` says which group holds those of a layer."""
    h5py = _h5py()
    data = archive.read(name)
    try:
        with h5py.File(io.BytesIO(data), "r") as store:
            return _Reader(h5py, store, len(data)).parameters(plan, groups)
    except _Refused as refused:
        raise archive.damage(f"in its {name}, {refused}") from None
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, OverflowError, AttributeError) as error:
        # h5py raises each of these for some file whose structures contradict one another
        raise archive.damage(f"its {name} is damaged ({error})") from error


def _h5py() -> Any:
    try:
        return importlib.import_module("h5py")  # as a name, for it ships no types
    except ImportError as error:
        raise MissingDependency("The format 'keras'", "h5py", "keras") from error


class _Refused(Exception):
    """What is wrong with the file, as a part of a sentence."""


class _Reader:
    def __init__(self, h5py: Any, store: Any, size: int) -> None:
        self.h5py, self.store, self.size = h5py, store, size

    def parameters(self, plan: Plan, groups: Mapping[int, str]) -> dict[str, Array]:
        found = {}
        root = next((root for root in ROOTS if self.store.get(root, getlink=True) is not None), ROOTS[0])
        for layer, group in groups.items():
            specs = [spec for spec in plan.parameters if spec.layer == layer]
            held = self.child(self.child(self.child(self.store, root), group), "vars")
            if sorted(held) != [str(number) for number in range(len(specs))]:
                raise _Refused(f"{held.name} has {len(held)} arrays, and its layer has {len(specs)}")
            for number, spec in enumerate(specs):
                found[spec.name] = self.array(held, str(number), spec.shape)
        return {spec.name: found[spec.name] for spec in plan.parameters}

    def member(self, parent: Any, name: str) -> Any:
        """What `parent` itself holds under `name`, no link being followed out of it."""
        place = f"{parent.name.rstrip('/')}/{name}"
        link = parent.get(name, getlink=True)
        if link is None:
            raise _Refused(f"{place} is missing")
        if type(link) is not self.h5py.HardLink:
            raise _Refused(f"{place} is a {type(link).__name__}, and links to other places are not followed")
        return parent[name]

    def child(self, parent: Any, name: str) -> Any:
        group = self.member(parent, name)
        if not isinstance(group, self.h5py.Group):
            raise _Refused(f"{group.name} is no group")
        return group

    def array(self, parent: Any, name: str, shape: Shape) -> Array:
        held = self.member(parent, name)
        if not isinstance(held, self.h5py.Dataset):
            raise _Refused(f"{held.name} is no array")
        if held.shape != shape or held.dtype.kind != "f" or held.dtype.itemsize != 4:
            raise _Refused(f"{held.name} is {held.dtype} of shape {held.shape}; its layer has float32 of shape {shape}")
        if held.is_virtual or held.external:
            raise _Refused(f"{held.name} lies in another file")
        if held.id.get_create_plist().get_nfilters():
            raise _Refused(f"{held.name} is compressed, which Keras does not do")
        if not 4 * math.prod(shape) <= held.id.get_storage_size() <= self.size:
            raise _Refused(f"{held.name} promises more numbers than it stores")
        return np.asarray(held[()], np.float32)
