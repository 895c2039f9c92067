"""The plugin host: which backends are installed, which of them could run, why not, and how to get one.

Names come from the entry points of the group `cnnkit.backends`, without an import. A plugin is loaded by its name, alone,
and a hook is called on that one plugin: whatever is wrong with one never stops a listing or another backend.

For those who write a plugin: `hookimpl`, the hooks in `Hooks`, and the records `Availability`, `Unsupported` and
`Rehearsal`. For those who use one: `backends`, `status` and `get_backend`. For those who report what went wrong with
one: `causes`, `describe` and `unavailable`.

Three environment variables are read whenever they are needed: `CNNKIT_BACKEND` is the name, or the chain with commas,
that is meant where a caller names no backend; `CNNKIT_DISABLE_BACKENDS` lists, with commas, what is not even imported;
`CNNKIT_PROBE_TIMEOUT` is how many seconds a plugin may take to be imported and to answer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pluggy

from cnnkit._hooks import (
    PLUGIN_API,
    STATES,
    Availability,
    BackendStatus,
    Hooks,
    Listing,
    Rehearsal,
    State,
    Unsupported,
    causes,
    did_you_mean,
    hookimpl,
    hookspec,
    reject_unknown_options,
)
from cnnkit._probing import (
    ENTRY_POINT_GROUP,
    Ready,
    Registration,
    ask,
    blank,
    broken,
    describe,
    discover,
    in_time,
    load,
    probe,
    unavailable,
)
from cnnkit.arrays import PRECISIONS
from cnnkit.backend import Backend, Selection
from cnnkit.errors import BackendNotFound, BackendUnavailable, CnnkitError, OptionError, UnsupportedModel
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan

__all__ = [
    "DEFAULT_BACKEND",
    "ENTRY_POINT_GROUP",
    "PLUGIN_API",
    "STATES",
    "Availability",
    "BackendStatus",
    "Hooks",
    "Rehearsal",
    "State",
    "Unsupported",
    "availability",
    "backend_names",
    "backends",
    "causes",
    "create_unprobed",
    "describe",
    "deviations",
    "get_backend",
    "hookimpl",
    "hookspec",
    "naming_alternatives",
    "own_precisions",
    "refusals",
    "refuses_nothing",
    "rehearsals",
    "reject_unknown_options",
    "require_support",
    "status",
    "unavailable",
    "unsupported",
]

DEFAULT_BACKEND = "numpy"
"""Which backend is meant where neither the caller nor CNNKIT_BACKEND names one.

The one entry-point name that the core knows. It is looked up like any other and has no other privilege.
"""


# -------------------------------------------------------------------------------------------------------- listing


def backend_names() -> list[str]:
    """The names of all installed backends, in alphabetical order, whatever their state. Imports no plugin."""
    return list(discover())


def backends(device: str | None = None) -> dict[str, BackendStatus]:
    """Every installed backend by name, in alphabetical order, and whether it could run on `device`.

    All plugins are asked at the same time. None of them, however broken, makes this fail or wait for longer than
    CNNKIT_PROBE_TIMEOUT. Raises `OptionError` if that is not a number of seconds.
    """
    outcomes = in_time(discover(), partial(probe, device=device))
    return Listing({name: outcome.status for name, outcome in outcomes.items()})


def status(name: str, device: str | None = None) -> BackendStatus:
    """Whether the backend `name` could run on `device`. Raises `BackendNotFound` if no plugin registers the name."""
    outcomes = in_time({name: _find(name)}, partial(probe, device=device))
    return outcomes[name].status


def availability(name: str, device: str | None = None) -> Availability:
    """What the probe of the backend `name` answers about `device`, word for word.

    `status` is what users are told: it fills in what a probe leaves out, and never raises for a broken plugin. Raises
    `BackendNotFound`, and `BackendUnavailable` where the plugin cannot be loaded or gives no answer in time.
    """
    outcome = in_time({name: _find(name)}, partial(ask, device=device))[name]
    if isinstance(outcome, BackendUnavailable):
        raise outcome
    return outcome


def _find(name: str, origin: str = "") -> list[Registration]:
    found = discover()
    if name in found:
        return found[name]
    installed = f"Installed are {', '.join(found)}." if found else "No plugin is installed that brings one."
    text = f"No backend is called '{name}'{origin}. {did_you_mean(name, found)} {installed}"
    raise BackendNotFound(" ".join(text.split()))


# -------------------------------------------------------------------------------------------------------- getting one


def get_backend(
    which: str | Sequence[str] | Backend | None = None,
    device: str | None = None,
    precision: str = "float32",
    **options: Any,
) -> Backend:
    """A backend that is ready to compile.

    Args:
        which: A name; a chain of names, of which the first that can be had is taken; or a Backend, which is returned
            as it is. None means what CNNKIT_BACKEND says, or else `DEFAULT_BACKEND`.
        device: One of the backend's devices; None is its own choice. A device that is not there is an error.
        precision: "float32", "float64", or one that the backend offers beside them (`own_precisions`).
        options: What the backend's plugin understands beyond that.

    Its `.selection` says what was chosen and, in `.rejected`, which names of the chain were not, and why.

    Raises:
        BackendNotFound: No plugin registers the name.
        BackendUnavailable: It is installed but not ready, or could not be created; `.status` has the details.
        OptionError: `precision` or an option is wrong. That is reported at once, also in the middle of a chain.
    """
    if isinstance(which, Backend):
        _accept_nothing_more(which, device, precision, options)
        return which
    names, origin = _chain(which)
    rejected: list[tuple[str, CnnkitError]] = []
    for name in names:
        try:
            rounded = _rounded(name, origin, precision)
            backend = _create(name, origin, device, precision, options)
        except OptionError:
            raise  # the caller's mistake, which another backend must not hide
        except CnnkitError as error:
            rejected.append((name, error))
        else:
            reasons = tuple((other, str(error)) for other, error in rejected)
            selection = Selection(name, device, precision, dict(options), reasons, rounded)
            object.__setattr__(backend, "selection", selection)  # a backend may be a frozen dataclass
            return backend
    raise _nothing_left(rejected)


def _accept_nothing_more(backend: Backend, device: str | None, precision: str, options: Mapping[str, Any]) -> None:
    given = [] if device is None else [f"device={device!r}"]
    given += [] if precision == "float32" else [f"precision={precision!r}"]
    given += [f"{option}={value!r}" for option, value in options.items()]
    if given:
        raise OptionError(
            f"{', '.join(given)} came along with a {type(backend).__name__}, which is already made. Give them where it "
            "is made, or give its name in place of the backend."
        )


def _chain(which: str | Sequence[str] | None) -> tuple[list[str], str]:
    """The names to try in order, and what a message says about where they came from."""
    origin = ""
    if which is None:
        from_environment = os.environ.get("CNNKIT_BACKEND", "").strip()
        if not from_environment:
            return [DEFAULT_BACKEND], ""
        which = [name.strip() for name in from_environment.split(",")]
        origin = f" (the environment variable CNNKIT_BACKEND is '{from_environment}')"
    names = [which] if isinstance(which, str) else which
    if not isinstance(names, (list, tuple)) or not names or not all(isinstance(name, str) and name for name in names):
        raise OptionError(
            f"backend is {which!r}{origin}; expected a name, a list of names, or a Backend, such as '{DEFAULT_BACKEND}'."
        )
    return list(names), origin


def _rounded(name: str, origin: str, precision: str) -> str:
    """What `precision` of the backend `name` rounds, empty for float32 and float64; `OptionError` if there is no such."""
    if precision in PRECISIONS:
        return ""
    offered = _own_precisions(_loaded(name, origin))
    if precision not in offered:
        *most, last = map(repr, (*PRECISIONS, *offered))
        raise OptionError(f"precision is {precision!r}; expected {', '.join(most)} or {last}.")
    return offered[precision]


def _create(name: str, origin: str, device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:
    outcome = in_time({name: _find(name, origin)}, partial(probe, device=device))[name]
    if isinstance(outcome, BackendUnavailable):
        raise outcome
    return _created(outcome, device, precision, options)


def create_unprobed(name: str, device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:
    """What `cnnkit_create_backend` of `name` makes when nobody has asked its probe.

    It is for the conformance suite, which looks at what happens to those whose device goes away after the probe.
    `get_backend` is for everybody else. Raises what the hook raises, as `get_backend` does.
    """
    return _created(_loaded(name), device, precision, options)


def _created(plugin: Ready, device: str | None, precision: str, options: Mapping[str, Any]) -> Backend:
    try:
        backend: Any = plugin.hooks.cnnkit_create_backend(device=device, precision=precision, options=dict(options))
    except CnnkitError:
        raise
    except (Exception, SystemExit) as error:  # whatever an engine raises, callers and chains see one class of ours
        raise broken(plugin.status, f"could not be created: {describe(error)}", error) from error
    if not isinstance(backend, Backend):
        raise broken(plugin.status, f"its cnnkit_create_backend returned {backend!r}, which is no Backend")
    return backend


def _nothing_left(rejected: Sequence[tuple[str, CnnkitError]]) -> CnnkitError:
    """The error at the end of a chain: for one name its own, for several one that lists every reason."""
    if len(rejected) == 1:
        return rejected[0][1]
    names = ", ".join(name for name, _ in rejected)
    text = "\n".join([f"None of the backends {names} can be used:", *(f"  {error}" for _, error in rejected)])
    installed = [(name, error) for name, error in rejected if not isinstance(error, BackendNotFound)]
    if not installed:
        return BackendNotFound(text)
    name, error = installed[0]
    if isinstance(error, BackendUnavailable):
        return BackendUnavailable(text, error.status)
    refused = replace(status(name), state="broken", reason=str(error), fix="Try another backend", error=error)
    return BackendUnavailable(text, refused)


# ------------------------------------------------------------------------------------------------ the optional hooks


def unsupported(name: str, plan: Plan, device: str | None = None, precision: str = "float32") -> list[Unsupported]:
    """What in `plan` the backend `name` refuses; empty if nothing, or if its plugin does not say.

    The plugin is loaded but not probed, so that a question about a model can be answered without the device. Raises
    `BackendNotFound` and `BackendUnavailable`.
    """
    _rounded(name, "", precision)
    return refusals(name)(plan, device, precision)


def refusals(name: str) -> Callable[[Plan, str | None, str], list[Unsupported]]:
    """`unsupported` for one backend, to be asked `(plan, device, precision)` many times: its plugin is found once."""
    return partial(_refusals, _loaded(name))


def refuses_nothing(name: str) -> bool:
    """Whether the plugin of `name` says nothing about plans beforehand, for want of `cnnkit_supports`."""
    return not _loaded(name).hooks.cnnkit_supports.get_hookimpls()


def rehearsals(
    name: str,
) -> Callable[[Plan, Optimizer | None, str | None, str, Mapping[str, Any]], Rehearsal] | None:
    """What rehearses plans for the backend `name` without its device; None for want of `cnnkit_rehearse`.

    It is asked `(plan, optimizer, device, precision, options)` many times: the plugin is found once, and not probed.
    Raises `BackendNotFound` and `BackendUnavailable`; what it returns raises what the hook does.
    """
    plugin = _loaded(name)
    return partial(_rehearsal, plugin) if plugin.hooks.cnnkit_rehearse.get_hookimpls() else None


def _rehearsal(
    plugin: Ready,
    plan: Plan,
    optimizer: Optimizer | None,
    device: str | None,
    precision: str,
    options: Mapping[str, Any],
) -> Rehearsal:
    try:
        answer: Any = plugin.hooks.cnnkit_rehearse(
            plan=plan, optimizer=optimizer, device=device, precision=precision, options=dict(options)
        )
    except CnnkitError:
        raise
    except (Exception, SystemExit) as error:  # as in `_create`
        raise broken(plugin.status, f"its cnnkit_rehearse raised {describe(error)}", error) from error
    if not isinstance(answer, Rehearsal):
        raise broken(plugin.status, f"its cnnkit_rehearse returned {answer!r}, which is no Rehearsal")
    return answer


def own_precisions(name: str) -> Mapping[str, str]:
    """The precisions that the backend `name` offers beside float32 and float64, each with what it rounds.

    Of arrays that cross the contract the dtype is float32 in each of them. Raises `BackendNotFound` and
    `BackendUnavailable`.
    """
    return _own_precisions(_loaded(name))


def _own_precisions(plugin: Ready) -> Mapping[str, str]:
    answer = _ask(plugin, "cnnkit_precisions")  # None where there is no such hook
    if answer is None:
        return {}
    texts = isinstance(answer, Mapping) and all(
        isinstance(text, str) and text for item in answer.items() for text in item
    )
    if not texts or any(name in PRECISIONS for name in answer):
        reason = f"its cnnkit_precisions returned {answer!r}, which does not say by name what each rounds"
        raise broken(plugin.status, reason)
    return dict(answer)


def deviations(name: str) -> Path | None:
    """Where the plugin of `name` keeps its `conformance.toml`; None if it has none."""
    plugin = _loaded(name)
    answer = _ask(plugin, "cnnkit_deviations")  # None where there is no such hook
    if answer is not None and not isinstance(answer, (str, os.PathLike)):
        raise broken(plugin.status, f"its cnnkit_deviations returned {answer!r}, which is no path")
    return None if answer is None else Path(answer)


def require_support(backend: Backend, plan: Plan) -> None:
    """Raise `UnsupportedModel` if the plugin of `backend` refuses something in `plan`, naming backends that would not.

    Does nothing for a backend that did not come from `get_backend`: there is no plugin to ask.
    """
    chosen = backend.selection
    if chosen is None:
        return
    refused = unsupported(chosen.name, plan, chosen.device, chosen.precision)
    if refused:
        first = refused[0]
        alternatives = _alternatives(chosen, plan)
        raise UnsupportedModel(chosen.name, first.path, first.feature, first.reason, alternatives)


@contextmanager
def naming_alternatives(backend: Backend, plan: Plan) -> Iterator[None]:
    """A context to compile `plan` in: an `UnsupportedModel` that `backend` raises there comes out with alternatives.

    It is for what a backend refuses and has not said beforehand. As in `require_support`, one that did not come from
    `get_backend` speaks for itself.
    """
    try:
        yield
    except UnsupportedModel as refused:
        if backend.selection is None:
            raise
        alternatives = _alternatives(backend.selection, plan)
        raise UnsupportedModel(
            refused.backend, refused.path, refused.feature, refused.reason, alternatives
        ) from refused


def _alternatives(chosen: Selection, plan: Plan) -> list[str]:
    others = {name: registrations for name, registrations in discover().items() if name != chosen.name}
    names = []
    for name, outcome in in_time(others, partial(probe, device=None)).items():
        if isinstance(outcome, BackendUnavailable):
            continue
        try:
            if not _refusals(outcome, plan, None, chosen.outside):
                names.append(name)
        except BackendUnavailable:
            continue  # a plugin that fails when it is asked is no alternative to anything
    return names


def _loaded(name: str, origin: str = "") -> Ready:
    def work(name: str, registrations: Sequence[Registration]) -> Ready:
        return Ready(blank(name, registrations), load(name, registrations))

    outcome = in_time({name: _find(name, origin)}, work)[name]
    if isinstance(outcome, BackendUnavailable):
        raise outcome
    return outcome


def _refusals(plugin: Ready, plan: Plan, device: str | None, precision: str) -> list[Unsupported]:
    if not plugin.hooks.cnnkit_supports.get_hookimpls():
        return []
    answer = _ask(plugin, "cnnkit_supports", plan=plan, device=device, precision=precision)
    if not isinstance(answer, (list, tuple)) or not all(isinstance(refusal, Unsupported) for refusal in answer):
        raise broken(plugin.status, f"its cnnkit_supports returned {answer!r}, which is no list of Unsupported")
    return list(answer)


def _ask(plugin: Ready, hook: str, **arguments: Any) -> Any:
    caller: pluggy.HookCaller = getattr(plugin.hooks, hook)
    try:
        return caller(**arguments)
    except (Exception, SystemExit) as error:  # as in `_create`
        raise broken(plugin.status, f"its {hook} raised {describe(error)}", error) from error
