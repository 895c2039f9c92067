"""From an entry point to a plugin that answers, or to the reason why it does not. See `cnnkit.plugins`.

One plugin at a time, each under a plugin manager of its own and in a thread of its own, so that what one of them does
wrong is its own affair.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from types import ModuleType
from typing import Any, NoReturn, TypeVar

import pluggy

from cnnkit._hooks import PLUGIN_API, REQUIRED_HOOKS, Availability, BackendStatus, Hooks, causes
from cnnkit.errors import BackendUnavailable, MissingDependency, OptionError

ENTRY_POINT_GROUP = "cnnkit.backends"
PROBE_TIMEOUT = 20.0
"""Seconds in which a plugin is imported and probed, unless CNNKIT_PROBE_TIMEOUT says otherwise."""

UNNAMED = "unnamed"
"""What a distribution is called whose metadata cannot be read."""

T = TypeVar("T")


# ---------------------------------------------------------------------------------------------- names, without imports


@dataclass(frozen=True)
class Registration:
    """One entry point of our group: who registers which module under which name. `error` says that it is damaged."""

    name: str
    module: str
    distribution: str
    version: str
    entry_point: metadata.EntryPoint | None = None
    error: Exception | None = None


def discover() -> dict[str, list[Registration]]:
    """Every name registered in the group, in alphabetical order, with who registers it. Imports nothing."""
    found: dict[str, dict[tuple[str, str], Registration]] = {}
    seen: set[str] = set()
    for distribution in metadata.distributions():
        registrations = _registrations(distribution)
        # A distribution may lie on the path twice, as installed and as source; like an import, the first one counts.
        own = {re.sub(r"[-_.]+", "-", entry.distribution).lower() for entry in registrations} - {UNNAMED}
        if not own & seen:
            for entry in registrations:
                found.setdefault(entry.name, {})[entry.distribution, entry.module] = entry
        seen |= own
    # Sorted, because the file system lists in no order and messages should not change from run to run.
    return {name: [found[name][key] for key in sorted(found[name])] for name in sorted(found)}


def _registrations(distribution: metadata.Distribution) -> list[Registration]:
    try:
        text = distribution.read_text("entry_points.txt") or ""
    except UnicodeDecodeError:
        return []  # not a text, so it registers no name, ours or anybody's
    if ENTRY_POINT_GROUP not in text:
        return []  # most distributions: nothing of theirs is parsed, and nothing damaged in them can hurt
    name, version = _identity(distribution)
    try:
        entry_points = distribution.entry_points.select(group=ENTRY_POINT_GROUP)
    except Exception as error:  # noqa: BLE001 - the parser fails in its own ways; the listing shows this one as broken
        return [Registration(name, "", name, version, error=error)]
    return [Registration(entry.name, entry.value, name, version, entry) for entry in entry_points]


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    try:
        return distribution.metadata["Name"] or UNNAMED, distribution.version or "unknown"
    except Exception:  # noqa: BLE001 - half-removed distributions fail in many ways; their plugin may still work
        return UNNAMED, "unknown"


# ------------------------------------------------------------------------------------------------------- one plugin


@dataclass(frozen=True)
class Ready:
    """A plugin that answered `ready`, and its hooks."""

    status: BackendStatus
    hooks: pluggy.HookRelay


def unavailable(status: BackendStatus, error: BaseException | None = None) -> BackendUnavailable:
    """The error that says why the backend of `status` cannot be used, and what to do."""
    status = replace(status, error=error)
    raised = BackendUnavailable(
        f"Backend '{status.name}' is not ready ({status.state}): {status.reason}. {status.fix}.", status
    )
    raised.__cause__ = error
    return raised


def blank(name: str, registrations: Sequence[Registration]) -> BackendStatus:
    """What is known of a backend before its plugin is loaded."""
    return BackendStatus(
        name,
        "broken",
        distribution=", ".join(entry.distribution for entry in registrations),
        distribution_version=", ".join(entry.version for entry in registrations),
        module=", ".join(entry.module for entry in registrations),
    )


def broken(status: BackendStatus, reason: str, error: BaseException | None = None) -> BackendUnavailable:
    """The error for a plugin that does not do its part."""
    fix = (
        f"See the cause with `cnnkit doctor {status.name}`, and report it to the makers of {status.distribution} "
        f"{status.distribution_version}"
    )
    return unavailable(replace(status, state="broken", reason=reason, fix=fix), error)


def describe(error: BaseException) -> str:
    """An exception on one line, with the first of its causes."""
    chain = causes(error)
    text = _on_one_line(error)
    return f"{text} (caused by {_on_one_line(chain[-1])})" if len(chain) > 1 else text


def _on_one_line(error: BaseException) -> str:
    return ": ".join(filter(None, [type(error).__name__, " ".join(str(error).split())]))


def load(name: str, registrations: Sequence[Registration]) -> pluggy.HookRelay:
    """Import the one plugin of that name and return its hooks, or raise `BackendUnavailable`."""
    status = blank(name, registrations)
    entry = _only(status, registrations)
    try:
        module = entry.load()
    except BaseException as error:  # noqa: BLE001 - SystemExit too: whatever a module does, others are not harmed
        _import_failed(status, error)
    _check_version(status, module)
    manager = pluggy.PluginManager("cnnkit")
    manager.add_hookspecs(Hooks)
    try:
        manager.register(module)
    except pluggy.PluginValidationError as error:
        reason = f"has a hook that does not fit this cnnkit: {' '.join(str(error).split())}"
        raise _incompatible(status, reason, error) from error
    for caller in manager.get_hookcallers(module) or ():
        if not caller.has_spec() and not all(hook.optionalhook for hook in caller.get_hookimpls()):
            raise _incompatible(status, f"has the hook {caller.name}, which this cnnkit does not know")
    for hook in REQUIRED_HOOKS:
        if not getattr(manager.hook, hook).get_hookimpls():
            raise broken(status, f"{entry.value} has no hook {hook}, or it is not marked with @hookimpl")
    return manager.hook


def _only(status: BackendStatus, registrations: Sequence[Registration]) -> metadata.EntryPoint:
    if len(registrations) > 1:
        owners = [f"{entry.distribution} {entry.version}" for entry in registrations]
        # Whoever uninstalls cnnkit is rid of the conflict, but not as meant.
        extra = [entry.distribution for entry in registrations if entry.distribution != "cnnkit"]
        commands = " or ".join(f"python -m pip uninstall {distribution}" for distribution in dict.fromkeys(extra))
        reason = f"is registered by {' and by '.join(owners)}, so that nobody knows which is meant"
        fix = f"Uninstall the one that you do not want: {commands}"
        raise unavailable(replace(status, state="conflict", reason=reason, fix=fix))
    [registration] = registrations
    if registration.entry_point is None:
        reason = "its entry_points.txt cannot be read"
        raise broken(status, reason, registration.error)
    return registration.entry_point


def _check_version(status: BackendStatus, module: ModuleType) -> None:
    version = getattr(module, "cnnkit_plugin_api", 1)
    if not (isinstance(version, int) and 1 <= version <= PLUGIN_API):
        reason = f"is written for version {version!r} of the plugin interface; this cnnkit has version {PLUGIN_API}"
        raise _incompatible(status, reason)


def _incompatible(status: BackendStatus, reason: str, error: BaseException | None = None) -> BackendUnavailable:
    fix = f"Upgrade cnnkit, or install a version of {status.distribution} made for it"
    return unavailable(replace(status, state="incompatible-api", reason=reason, fix=fix), error)


def _import_failed(status: BackendStatus, error: BaseException) -> NoReturn:
    """Tell a module that is missing outside the plugin from a plugin that is at fault itself."""
    own = status.module.partition(":")[0].partition(".")[0]
    outside = _module_outside(own, error) if isinstance(error, ImportError) else None
    if outside is None:
        raise broken(status, f"cannot be imported: {describe(error)}", error)
    package = outside.partition(".")[0]
    if package == "cnnkit":
        raise _incompatible(status, f"needs something that this cnnkit does not have: {describe(error)}", error)
    reason = f"needs the module '{outside}', which cannot be imported: {describe(error)}"
    fix = f"Install the package that provides '{package}', or the extra of {status.distribution} that brings it"
    raise unavailable(replace(status, state="missing-dependency", reason=reason, fix=fix), error)


def _module_outside(own: str, error: BaseException) -> str | None:
    """The module outside the package `own` whose import failed first; None if there is none."""
    for cause in reversed(causes(error)):
        module = _failing_module(cause) if isinstance(cause, ImportError) else None
        if module and module.partition(".")[0] != own:
            return module
    return None


def _failing_module(error: ImportError) -> str | None:
    """The module that could not be imported; for an error that does not say, the module that raised it."""
    if isinstance(error, MissingDependency):
        return error.package
    if error.name:
        return error.name
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    return None if frame is None else frame.tb_frame.f_globals.get("__name__")


def probe(name: str, registrations: Sequence[Registration], device: str | None) -> Ready:
    """Load the plugin and ask it about `device`; `BackendUnavailable` for every answer but `ready`."""
    hooks = load(name, registrations)
    status = blank(name, registrations)
    answer = _answer(hooks, status, device)
    status = replace(
        status,
        state=answer.state,
        reason=answer.reason,
        fix=answer.fix,
        devices=tuple(answer.devices),
        versions=answer.versions,
    )
    if status.ready:
        return Ready(status, hooks)
    reason = status.reason or f"its probe answered '{status.state}' and gave no reason"
    fix = status.fix or f"Ask the makers of {status.distribution} what it needs: its probe named no fix"
    raise unavailable(replace(status, reason=reason, fix=fix))


def ask(name: str, registrations: Sequence[Registration], device: str | None) -> Availability:
    """What the plugin's probe answers about `device`, word for word; `BackendUnavailable` where it is no answer."""
    return _answer(load(name, registrations), blank(name, registrations), device)


def _answer(hooks: pluggy.HookRelay, status: BackendStatus, device: str | None) -> Availability:
    try:
        answer: Any = hooks.cnnkit_probe(device=device)
    except BaseException as error:  # as in `load`: not even SystemExit passes
        raise broken(status, f"its probe raised {describe(error)}", error) from error
    if not isinstance(answer, Availability):
        raise broken(status, f"its probe returned {answer!r}, which is no Availability")
    return answer


# ------------------------------------------------------------------------------------------------- all, within a time


def in_time(
    found: Mapping[str, Sequence[Registration]], work: Callable[[str, Sequence[Registration]], T]
) -> dict[str, T | BackendUnavailable]:
    """Do `work` for every name at the same time, each in a thread of its own; what is not done in time is broken.

    A thread that hangs is left behind: it is a daemon, so it does not keep the interpreter from ending.
    """
    seconds = _time_limit()
    disabled = _disabled()
    results: dict[str, T | BackendUnavailable] = {}
    outcomes: dict[str, T | BackendUnavailable] = {}

    def run(name: str, registrations: Sequence[Registration]) -> None:
        try:
            outcomes[name] = work(name, registrations)
        except BackendUnavailable as error:
            outcomes[name] = error
        except BaseException as error:  # noqa: BLE001 - nobody would see what ends a thread; here it becomes the status
            outcomes[name] = broken(blank(name, registrations), f"cannot be loaded: {describe(error)}", error)

    threads: dict[str, threading.Thread] = {}
    for name, registrations in found.items():
        if name in disabled:
            continue
        threads[name] = threading.Thread(target=run, args=(name, registrations), name=f"probe {name}", daemon=True)
        threads[name].start()
    deadline = time.monotonic() + seconds
    for name, registrations in found.items():
        status = blank(name, registrations)
        if name in disabled:
            fix = f"Remove '{name}' from the environment variable CNNKIT_DISABLE_BACKENDS"
            status = replace(status, state="disabled", reason="CNNKIT_DISABLE_BACKENDS names it", fix=fix)
            results[name] = unavailable(status)
            continue
        threads[name].join(max(0.0, deadline - time.monotonic()))
        results[name] = outcomes.get(name) or _late(status, seconds)
    return results


def _late(status: BackendStatus, seconds: float) -> BackendUnavailable:
    reason = f"did not answer within {seconds:g} s"
    fix = (
        "Set CNNKIT_PROBE_TIMEOUT to more seconds if it is only slow, or report it to the makers of "
        f"{status.distribution} {status.distribution_version}"
    )
    return unavailable(replace(status, state="broken", reason=reason, fix=fix))


def _time_limit() -> float:
    text = os.environ.get("CNNKIT_PROBE_TIMEOUT", "").strip()
    try:
        seconds = float(text or PROBE_TIMEOUT)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds <= threading.TIMEOUT_MAX:
        raise OptionError(f"CNNKIT_PROBE_TIMEOUT is {text!r}; expected seconds, such as 20.")
    return seconds


def _disabled() -> set[str]:
    return {name.strip() for name in os.environ.get("CNNKIT_DISABLE_BACKENDS", "").split(",")}
