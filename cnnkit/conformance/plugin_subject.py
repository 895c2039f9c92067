"""The subject of tier `plan`: a plugin on trial, in one precision and without its device. Nothing is computed with it.

Where the plugin has `cnnkit_rehearse`, plans are rehearsed by it. Without that hook a backend is rehearsed by compiling,
which takes its device: a backend that has neither cannot show anything here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from cnnkit import plugins
from cnnkit.backend import Backend
from cnnkit.conformance.measure import Mismatch
from cnnkit.conformance.refusals import SMALLEST, refuses
from cnnkit.conformance.subject import Refusal, Stage
from cnnkit.errors import BackendUnavailable, CnnkitError, OptionError, UnsupportedModel
from cnnkit.optimizers import Optimizer
from cnnkit.parameters import initial_parameters
from cnnkit.plan import Plan
from cnnkit.plugins import Availability, BackendStatus, Rehearsal, Unsupported
from cnnkit.state import fresh_state

NO_HOOK: Final = (
    "has no hook cnnkit_rehearse and cannot compile here ({}), so that nothing can be said of its plans. Write the hook, "
    "which works a plan out without the device (`python -m pydoc cnnkit.plugins` shows it), or run where the device is"
)


def can_be_planned(status: BackendStatus) -> bool:
    """Whether there is a plugin to be judged without its device; if its probe alone is broken, a case will say so."""
    if status.state != "broken":
        return status.state in ("ready", "no-device")
    try:
        plugins.refuses_nothing(status.name)
    except BackendUnavailable:
        return False
    return True


class PluginSubject:
    """A plugin on trial in one case. A case asks and makes, and judges what it is told with `expect`."""

    worst: None = None
    """Nothing is computed, so no error is measured."""
    question: None = None

    def __init__(
        self, name: str, device: str | None, precision: str, options: Mapping[str, Any], status: BackendStatus
    ) -> None:
        self.name, self.device, self.precision, self.options = name, device, precision, dict(options)
        self.status = status
        """What the host says of the backend on `device`."""
        self.stage: Stage = "load"
        self.rehearsals: list[Rehearsal] = []
        """What the hook has answered so far."""

    def expect(self, condition: bool, message: str) -> None:
        """Demand a fact; `message` says what is the case instead."""
        self.stage = "compare"
        if not condition:
            raise Mismatch(message)

    # --------------------------------------------------------------------------------------------------- the device

    def probe(self, device: str | None) -> Availability:
        """What the probe answers about a device, which has to be an answer with all that belongs to it."""
        self.stage = "load"
        asked = "about no device in particular" if device is None else f"about the device {device!r}"
        try:
            answer = plugins.availability(self.name, device)
        except BackendUnavailable as error:
            raise Mismatch(f"cnnkit_probe, asked {asked}: {error.status.reason}") from error
        said = f"cnnkit_probe, asked {asked}, answers {answer.state!r}"
        if answer.state != "ready":
            self.expect(bool(answer.reason), f"{said} and gives no reason")
            self.expect(bool(answer.fix), f"{said} and says of no fix")
        self.expect(all(answer.devices), f"{said} and lists a device without a name: {answer.devices}")
        unnamed = {name: version for name, version in answer.versions.items() if not (name and version)}
        self.expect(not unnamed, f"{said} and gives versions that are empty: {unnamed}")
        return answer

    def create(self, device: str | None, options: Mapping[str, Any]) -> Backend:
        """The backend, as users get it."""
        self.stage = "load"
        return plugins.get_backend(self.name, device, self.precision, **options)

    def create_unprobed(self) -> Backend:
        """What the hook makes on its own, as if the device had gone after the probe."""
        self.stage = "load"
        return plugins.create_unprobed(self.name, self.device, self.precision, self.options)

    # ---------------------------------------------------------------------------------------------------- the plans

    def declared(self, plan: Plan) -> Sequence[Unsupported]:
        """What the plugin refuses beforehand."""
        self.stage = "refuse"
        return refuses(self.name, self.device, self.precision)(plan)

    @cached_property
    def hook(self) -> Callable[..., Rehearsal] | None:
        """`cnnkit_rehearse` of the plugin, if it has one."""
        return plugins.rehearsals(self.name)

    @cached_property
    def backend(self) -> Backend:
        """The backend, for a plugin without the hook. Raises `Mismatch` where there is none to be had."""
        if not self.status.ready:
            raise Mismatch(f"backend '{self.name}' {NO_HOOK.format(f'{self.status.state}: {self.status.reason}')}")
        return self.create(self.device, self.options)

    def require_options(self) -> None:
        """Raise `OptionError` if the options of the run, or its precision, are not the backend's."""
        if self.hook is None:
            if self.status.ready:
                _ = self.backend
            return
        try:
            self.hook(SMALLEST.plan(), None, self.device, self.precision, self.options)
        except OptionError:
            raise
        except CnnkitError:
            return  # a case rehearses the like again, and judges what comes of it

    def rehearse(
        self, plan: Plan, optimizer: Optimizer | None, options: Mapping[str, Any] | None = None
    ) -> Rehearsal | None:
        """What the hook works out, with other `options` if they are given; None after a plugin without it has compiled.

        Raises `Refusal`, declared or not, for what the backend refuses, and `Mismatch` where it does one thing and has
        said another.
        """
        declared = [Refusal(one.path, one.feature, one.reason, declared=True) for one in self.declared(plan)]
        self.stage = "compile"
        try:
            if self.hook is None:
                if declared:
                    raise declared[0]
                self._compile(plan, optimizer)
                return None
            rehearsed = self.hook(
                plan, optimizer, self.device, self.precision, self.options if options is None else options
            )
        except UnsupportedModel as error:
            self.stage = "refuse"
            raise Refusal(error.path, error.feature, error.reason, declared=bool(declared)) from error
        self.rehearsals.append(rehearsed)
        if declared:
            raise Mismatch(f"cnnkit_supports says that {declared[0]}; cnnkit_rehearse does not refuse it")
        return rehearsed

    def _compile(self, plan: Plan, optimizer: Optimizer | None) -> None:
        parameters = initial_parameters(plan.model, precision=self.precision)
        if optimizer is None:
            self.backend.compile(plan, parameters)
        else:
            self.backend.compile_training(plan, fresh_state(parameters, optimizer), optimizer)
