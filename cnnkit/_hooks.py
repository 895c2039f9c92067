"""What a plugin writes: the hooks with their specifications, and the records that they return. See `cnnkit.plugins`.

A plugin is a module named by an entry point of the group `cnnkit.backends`; the name of the entry point is the name of
the backend. The module imports nothing heavy, for it is imported to ask whether the backend could run::

    # pyproject.toml
    [project.entry-points."cnnkit.backends"]
    fancy = "cnnkit_fancy.plugin"

A module written for a later version of this interface says so: `cnnkit_plugin_api = 2`; nothing said means 1.
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, Literal, Protocol, TypeAlias, get_args

import pluggy

from cnnkit.arrays import Shape
from cnnkit.backend import Backend
from cnnkit.errors import BackendOptionError, OptionError
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.tables import html_table

PLUGIN_API = 1
"""The version of the plugin interface. It changes only when a plugin written for the older one could not work."""

hookspec = pluggy.HookspecMarker("cnnkit")
hookimpl = pluggy.HookimplMarker("cnnkit")

State: TypeAlias = Literal[
    "ready", "missing-dependency", "no-device", "incompatible-api", "conflict", "broken", "disabled"
]
STATES: tuple[State, ...] = get_args(State)


def _sentence(text: str) -> str:
    """Plugins may write None for nothing, or end in a full stop; messages add their own."""
    return " ".join((text or "").split()).removesuffix(".")


@dataclass(frozen=True)
class Availability:
    """What `cnnkit_probe` answers: whether the backend could run here, and if not, why and what to do.

    `reason` and `fix` are read as sentences without their full stop: "needs CuPy, which is not installed" and "Install
    it with: python -m pip install 'cnnkit[cuda12]'". `devices` are the names that `get_backend(device=...)` takes;
    `versions` maps what the backend runs on to its version. Raises `OptionError` for a state that there is not.
    """

    state: State
    reason: str = ""
    fix: str = ""
    devices: Sequence[str] = ()
    versions: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the state, and make plain data of the rest: it ends in tables and in JSON."""
        if self.state not in STATES:
            raise OptionError(f"Availability: state is {self.state!r}; expected one of {', '.join(STATES)}.")
        if isinstance(self.devices, str):
            raise OptionError(
                f"Availability: devices is {self.devices!r}; expected a list of names: [{self.devices!r}]."
            )
        object.__setattr__(self, "reason", _sentence(self.reason))
        object.__setattr__(self, "fix", _sentence(self.fix))
        object.__setattr__(self, "devices", tuple(str(device) for device in self.devices or ()))
        object.__setattr__(
            self, "versions", {str(name): str(version) for name, version in (self.versions or {}).items()}
        )

    @classmethod
    def ready(cls, devices: Sequence[str] = (), versions: Mapping[str, str] | None = None) -> Availability:
        """It can run, on any of `devices`."""
        return cls("ready", devices=devices, versions=versions or {})

    @classmethod
    def missing(cls, package: str, fix: str) -> Availability:
        """It needs `package`, which is not installed; `fix` is the command that installs it."""
        return cls("missing-dependency", f"needs {package}, which is not installed", fix)

    @classmethod
    def no_device(cls, reason: str, fix: str, devices: Sequence[str] = ()) -> Availability:
        """All is installed, but the device is not there; `devices` are those that are."""
        return cls("no-device", reason, fix, devices)


@dataclass(frozen=True)
class Unsupported:
    """One thing in a plan that a backend refuses: where, what and why.

    `path` is a place in the model, such as `layers[2].dilation`; `feature` a feature id, such as `conv2d.dilation`
    (docs/reference/features.md lists them); `reason` half a sentence without its full stop.
    """

    path: str
    feature: str
    reason: str


@dataclass(frozen=True)
class Rehearsal:
    """What `cnnkit_rehearse` answers: a plan worked out as far as it goes without the device.

    Attributes:
        shapes: The output shape of each operation of the plan, in its order and without the batch axis, taken from the
            arrays or buffers that the backend will have for it. An operation that is done together with the next one
            has a shape all the same; where a layout of its own is used, it is told in the plan's.
        kernels: The names of what was compiled for the plan, such as CUDA kernels; none where nothing is.
        compiled_for: The targets that they were compiled for, such as "sm_90".
        bytes_fixed: Bytes on the device however many images there are: parameters, slots, workspace. None is not known.
        bytes_per_image: Bytes on the device for each image of a batch. None is not known.

    Raises `OptionError` for what is none of that.
    """

    shapes: Sequence[Shape]
    kernels: Sequence[str] = ()
    compiled_for: Sequence[str] = ()
    bytes_fixed: int | None = None
    bytes_per_image: int | None = None

    def __post_init__(self) -> None:
        """Check it, and make plain data of it."""
        try:
            shapes = tuple(tuple(operator.index(size) for size in shape) for shape in self.shapes)
        except TypeError as error:
            raise OptionError(
                f"Rehearsal: shapes is {self.shapes!r}; expected a tuple of whole numbers for each operation."
            ) from error
        object.__setattr__(self, "shapes", shapes)
        for what in ("kernels", "compiled_for"):
            names = getattr(self, what)
            if isinstance(names, str) or not all(isinstance(name, str) and name for name in names):
                raise OptionError(f"Rehearsal: {what} is {names!r}; expected a list of names.")
            object.__setattr__(self, what, tuple(names))
        if bool(self.kernels) != bool(self.compiled_for):
            raise OptionError(
                f"Rehearsal: kernels is {self.kernels!r} and compiled_for is {self.compiled_for!r}; what is compiled is "
                "compiled for something. Give both, or neither."
            )
        for what in ("bytes_fixed", "bytes_per_image"):
            size = getattr(self, what)
            if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 0):
                raise OptionError(f"Rehearsal: {what} is {size!r}; expected a whole number of at least 0, or None.")


@dataclass(frozen=True)
class BackendStatus:
    """What is known of one backend: its plugin's answer, or why there is none, and where the plugin comes from.

    Every state but `ready` has a `reason` and a `fix`. `error` is the exception behind it, if there is one, with the
    chain of its causes.
    """

    name: str
    state: State
    reason: str = ""
    fix: str = ""
    devices: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    distribution: str = ""
    distribution_version: str = ""
    module: str = ""
    error: BaseException | None = field(default=None, repr=False, compare=False)

    @property
    def ready(self) -> bool:
        """Whether the backend can run."""
        return self.state == "ready"

    @property
    def root_cause(self) -> BaseException | None:
        """The exception at the beginning of the chain of `error`."""
        return None if self.error is None else causes(self.error)[-1]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: every field but `error`."""
        return {
            "name": self.name,
            "state": self.state,
            "reason": self.reason,
            "fix": self.fix,
            "devices": list(self.devices),
            "versions": dict(self.versions),
            "distribution": self.distribution,
            "distribution_version": self.distribution_version,
            "module": self.module,
        }

    def _repr_html_(self) -> str:
        """A table in a notebook, of all that there is to say."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        told = {
            "state": self.state,
            "reason": self.reason,
            "fix": self.fix,
            "devices": ", ".join(self.devices),
            "versions": versions,
            "plugin": f"{self.distribution} {self.distribution_version}".strip(),
        }
        rows = [(what, text) for what, text in told.items() if text]
        return html_table((), rows, caption=f"backend {self.name}", left={0, 1}, wrapped={1})


class Listing(dict[str, BackendStatus]):
    """What `backends` returns: a dict, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (name, status.state, ", ".join(status.devices), ". ".join(filter(None, (status.reason, status.fix))))
            for name, status in self.items()
        ]
        head = ("backend", "state", "devices", "reason and fix")
        return html_table(head, rows, left={0, 1, 2, 3}, wrapped={2, 3})


def causes(error: BaseException) -> list[BaseException]:
    """An exception, what it was raised from or during, and so on to the first one."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    return chain


class Hooks(Protocol):
    """The hooks. Each is a function of the plugin's module, marked with `@hookimpl`; it may leave out arguments."""

    @hookspec(firstresult=True)
    def cnnkit_probe(self, device: str | None) -> Availability:
        """Whether the backend could run on `device`, None being its own choice. Required; cheap; never raises.

        It answers within `CNNKIT_PROBE_TIMEOUT` seconds (20), runs in a thread of its own, and looks for packages
        without importing them. A device that is not there is the state `no-device`, never another device::

            import importlib.metadata
            import importlib.util
            from cnnkit.plugins import Availability, hookimpl

            @hookimpl
            def cnnkit_probe(device):
                if importlib.util.find_spec("fancy") is None:
                    return Availability.missing("fancy", "Install it with: python -m pip install fancy")
                if device not in (None, "cpu"):
                    return Availability.no_device(f"has no device {device!r}", 'Use device="cpu"', ["cpu"])
                return Availability.ready(["cpu"], {"fancy": importlib.metadata.version("fancy")})
        """

    @hookspec(firstresult=True)
    def cnnkit_create_backend(self, device: str | None, precision: str, options: dict[str, Any]) -> Backend:
        """A new backend on `device` in `precision`, "float32", "float64" or one of `cnnkit_precisions`. Required.

        It is called after a `ready` probe. A device may have gone since: then it raises, and no other device is used.

        `options` is what the caller of `get_backend` wrote beyond that, unchecked. Raises an error of `cnnkit.errors`
        for what it cannot do: `BackendOptionError` for a wrong option or precision, which is reported to the caller,
        any other to say that this backend is not to be had, so that a chain goes on. It never falls back::

            from cnnkit.plugins import hookimpl, reject_unknown_options

            @hookimpl
            def cnnkit_create_backend(device, precision, options):
                from cnnkit_fancy.backend import FancyBackend  # imports the engine: here, not above

                reject_unknown_options("fancy", options, known=["threads"])
                return FancyBackend(device or "cpu", precision, **options)
        """

    @hookspec(firstresult=True)
    def cnnkit_supports(self, plan: Plan, device: str | None, precision: str) -> Sequence[Unsupported]:
        """What in `plan` the backend refuses; an empty list for nothing. Optional; computes and allocates nothing.

        Without this hook the backend is taken to support every plan::

            from cnnkit.plan import Conv2DOp
            from cnnkit.plugins import Unsupported, hookimpl

            @hookimpl
            def cnnkit_supports(plan):
                return [
                    Unsupported(f"layers[{op.layer}].dilation", "conv2d.dilation", "fancy has no kernel for it")
                    for op in plan.operations
                    if isinstance(op, Conv2DOp) and op.dilation != (1, 1)
                ]
        """

    @hookspec(firstresult=True)
    def cnnkit_rehearse(
        self, plan: Plan, optimizer: Optimizer | None, device: str | None, precision: str, options: dict[str, Any]
    ) -> Rehearsal:
        """All of `plan` that can be worked out without the device: shapes, memory, compiled kernels. Optional.

        It is for a backend whose device may be elsewhere, such as a GPU: tier `plan` of the conformance suite asks it
        on a machine that has none. `optimizer` is None for prediction. It is asked whatever the probe says of the
        device, but for a missing package; it computes nothing, and what it compiles it may keep for the next plan.

        Raises `UnsupportedModel` for what the backend refuses, as compiling does; `TrainingNotSupported` if it only
        predicts; `BackendOptionError` for a wrong option or precision, as `cnnkit_create_backend` does. A backend without
        this hook is rehearsed by compiling, which takes its device::

            import math
            from cnnkit.plugins import Rehearsal, hookimpl, reject_unknown_options

            @hookimpl
            def cnnkit_rehearse(plan, precision, options):
                reject_unknown_options("fancy", options, known=["threads"])
                buffers = [op.output_shape for op in plan.operations]  # those that the engine will allocate
                size = 8 if precision == "float64" else 4
                return Rehearsal(
                    shapes=buffers,
                    bytes_fixed=size * sum(spec.size for spec in plan.parameters),
                    bytes_per_image=size * sum(map(math.prod, [plan.input_shape, *buffers])),
                )
        """

    @hookspec(firstresult=True)
    def cnnkit_precisions(self) -> Mapping[str, str]:
        """The precisions that the backend offers beside float32 and float64, each with what it rounds. Optional.

        They are for those who ask for them by name, and what they round is printed. Arrays that cross the contract are
        float32 in each of them. The conformance suite does not judge them::

            from cnnkit.plugins import hookimpl

            @hookimpl
            def cnnkit_precisions():
                return {"bfloat16": "products of numbers rounded to 7 bits"}
        """

    @hookspec(firstresult=True)
    def cnnkit_deviations(self) -> str | PathLike[str]:
        """The path of the plugin's `conformance.toml`, which lists where it knowingly deviates. Optional.

        The file ships inside the plugin's package::

            from pathlib import Path
            from cnnkit.plugins import hookimpl

            @hookimpl
            def cnnkit_deviations():
                return Path(__file__).with_name("conformance.toml")
        """


REQUIRED_HOOKS = ("cnnkit_probe", "cnnkit_create_backend")


def reject_unknown_options(backend_name: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Raise `BackendOptionError` for the first of `options` that is not in `known`, and list those that are."""
    known = list(known)
    for option in options:
        if option not in known:
            listed = f"its options are {', '.join(known)}" if known else "it takes no options"
            raise BackendOptionError(
                f"Backend '{backend_name}' has no option '{option}'; {listed}. "
                f"{did_you_mean(option, known) or 'Leave it out.'}"
            )


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that offers the nearest of `known`, or an empty text if none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"Did you mean '{near[0]}'?" if near else ""
