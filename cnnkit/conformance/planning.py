"""The cases of tier `plan`: what can be proved of a backend on a machine that does not have its device.

About the plugin, whatever the model: its probe, what it does where there is no device, its options, what it refuses.
About models: each plan that a case of tier `run` compiles is rehearsed once. Those that need the same features are one
case, so that a refusal, which names a feature, is a refusal of a whole case.
"""

from __future__ import annotations

import gc
import math
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable
from functools import cache
from typing import Final

from cnnkit.arrays import dtype_of
from cnnkit.conformance.case import Case, Level
from cnnkit.conformance.listening import Heard, heard_in
from cnnkit.conformance.plugin_subject import NO_HOOK, PluginSubject
from cnnkit.conformance.refusals import SMALLEST
from cnnkit.conformance.selection import suite_cases
from cnnkit.conformance.subject import Refusal
from cnnkit.errors import BackendError, BackendOptionError, BackendUnavailable, CnnkitError, OptionError
from cnnkit.features import FEATURES, features_of
from cnnkit.plan import Plan
from cnnkit.plugins import Rehearsal, Unsupported

NO_SUCH_DEVICE: Final = "no-such-device"
NO_SUCH_OPTION: Final = "no_such_option"

MOST_KEPT: Final = 2**20
"""Bytes: a hook that remembers its answers keeps less after all plans of the suite, one that allocates anything more."""


@cache
def plan_cases(explore: int = 0, seed: int = 0) -> tuple[Case, ...]:
    """Every case of the tier, about the models of the suite and `explore` random ones. Ids are unique."""
    heard = heard_in(suite_cases(explore, seed))
    cases = (
        *_about_the_device(),
        *_about_refusals(tuple(dict.fromkeys(one.plan for one in heard))),
        *_rehearsals(heard),
    )
    repeated = [name for name, count in Counter(case.id for case in cases).items() if count > 1]
    if repeated:
        raise AssertionError(f"two cases are called {', '.join(repeated)}")
    return cases


# ---------------------------------------------------------------------------------------------------------- the device


def _about_the_device() -> list[Case]:
    said = [
        ("probe.own-choice", "The probe answers in time whether the backend could run, or why not and what to do", own_choice),
        ("probe.listed", "The probe answers about every device that it lists, and a backend that is ready has them", listed),
        ("probe.no-such-device", "A device that cannot be is never ready, and the probe says why", no_such_device),
        ("create.no-device", "Where the probe finds no device there is no backend, on no other device either", no_device),
        ("create.options", "An option that the backend does not have is an error that names it", unknown_option),
    ]  # fmt: skip
    return [Case(name, claim, "inference", frozenset(), body, tier="plan") for name, claim, body in said]


def own_choice(subject: PluginSubject) -> None:
    """Ask about no device in particular."""
    subject.probe(None)


def listed(subject: PluginSubject) -> None:
    """Ask about each device that the first answer lists."""
    first = subject.probe(None)
    for device in first.devices:
        answer = subject.probe(device)
        subject.expect(
            first.state != "ready" or answer.state == "ready",
            f"cnnkit_probe is ready and lists the device {device!r}, but asked about it answers {answer.state!r}: {answer.reason}",
        )


def no_such_device(subject: PluginSubject) -> None:
    """Ask about a device that no machine has."""
    answer = subject.probe(NO_SUCH_DEVICE)
    subject.expect(
        answer.state != "ready",
        f"cnnkit_probe is ready for the device {NO_SUCH_DEVICE!r}: whoever asks for a device that is not there runs elsewhere",
    )


def no_device(subject: PluginSubject) -> None:
    """Try to get the backend on devices that the probe does not find, and behind its back."""
    for device in (NO_SUCH_DEVICE, subject.device):
        answer = subject.probe(device)
        if answer.state == "ready":
            continue
        try:
            made = subject.create(device, subject.options)
        except BackendUnavailable as error:
            subject.expect(
                error.status.reason == answer.reason,
                f"cnnkit_probe says of the device {device!r} that it {answer.reason}; getting the backend says that it "
                f"{error.status.reason}",
            )
        else:
            subject.expect(False, f"{made!r} is made for the device {device!r}, which the probe does not find")
    if not subject.status.ready:
        _not_made_behind_the_probe(subject)


def _not_made_behind_the_probe(subject: PluginSubject) -> None:
    """A device may go away after the probe, so that the hook itself must not turn to another one."""
    try:
        made = subject.create_unprobed()
    except BackendError as error:
        untyped = isinstance(error, BackendUnavailable) and error.status.state == "broken"
        subject.expect(
            not untyped, f"cnnkit_create_backend without its device raises no error of cnnkit.errors: {error}"
        )
    except CnnkitError as error:
        subject.expect(
            False,
            f"cnnkit_create_backend without its device raises {type(error).__name__}: {error}; expected BackendUnavailable",
        )
    else:
        subject.expect(
            False,
            f"cnnkit_create_backend makes {made!r} although the probe answers {subject.status.state!r} "
            f"({subject.status.reason}): it falls back silently",
        )


def unknown_option(subject: PluginSubject) -> None:
    """Give an option that no backend has beside those of the run, which the error has to list."""
    options = {**subject.options, NO_SUCH_OPTION: 1}
    ways: list[tuple[str, Callable[[], object]]] = []
    if subject.status.ready:
        ways.append(("creating the backend", lambda: subject.create(subject.device, options)))
    if subject.hook is not None:
        ways.append(("cnnkit_rehearse", lambda: subject.rehearse(SMALLEST.plan(), None, options)))
    subject.expect(bool(ways), f"backend '{subject.name}' {NO_HOOK.format(subject.status.reason)}")
    for what, ask in ways:
        try:
            ask()
        except BackendOptionError as error:
            missing = [name for name in options if name not in str(error)]
            subject.expect(
                not missing,
                f"{what} with the option {NO_SUCH_OPTION!r} says {str(error)!r}, without {', '.join(missing)}",
            )
        except OptionError as error:
            subject.expect(
                False,
                f"{what} with the option {NO_SUCH_OPTION!r} raises {type(error).__name__}; expected BackendOptionError",
            )
        else:
            subject.expect(False, f"{what} takes the option {NO_SUCH_OPTION!r}; expected BackendOptionError")


# ------------------------------------------------------------------------------------------------------------ refusals


def _about_refusals(plans: tuple[Plan, ...]) -> list[Case]:
    def answers(subject: PluginSubject) -> None:
        for plan in plans:
            for refusal in subject.declared(plan):
                check_refusal(subject, plan, refusal)

    def keeps_nothing(subject: PluginSubject) -> None:
        subject.declared(SMALLEST.plan())  # what it imports at its first answer it may keep
        tracemalloc.start()
        try:
            gc.collect()
            before, _ = tracemalloc.get_traced_memory()
            for plan in plans:
                subject.declared(plan)
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        subject.expect(
            kept <= MOST_KEPT,
            f"after cnnkit_supports has answered about {len(plans)} plans, {kept:,} bytes more are held; expected at most {MOST_KEPT:,}",
        )

    said = [
        (
            "supports.answers",
            "What the backend refuses beforehand is told with a place, a feature and a reason",
            answers,
        ),
        ("supports.keeps-nothing", "Asking what the backend refuses costs no memory", keeps_nothing),
    ]
    return [Case(name, claim, "inference", frozenset(), body, tier="plan") for name, claim, body in said]


def check_refusal(subject: PluginSubject, plan: Plan, refusal: Unsupported) -> None:
    """Demand that a refusal says where, what and why."""
    said = f"cnnkit_supports returns {refusal}"
    subject.expect(bool(refusal.reason.strip()), f"{said}, which has no reason")
    subject.expect(not refusal.path or is_place(plan, refusal.path), f"{said}; {plan.model.title} has no such place")
    subject.expect(
        refusal.feature in FEATURES or bool(refusal.path),
        f"{said}, which names neither a feature id (docs/reference/features.md) nor a place in the model",
    )


def is_place(plan: Plan, path: str) -> bool:
    """Whether a path such as `layers[2].dilation` leads somewhere in the plan's model."""
    found = re.fullmatch(r"(?:layers\[(\d+)\](?:\.(\w+))?|(\w+))", path)
    if found is None:
        return False
    index, field, top = found.groups()
    if top is not None:
        return top in type(plan.model).model_fields
    layers = plan.model.layers
    return int(index) < len(layers) and (field is None or field in type(layers[int(index)]).model_fields)


# ----------------------------------------------------------------------------------------------------------- rehearsals


def _rehearsals(heard: list[Heard]) -> list[Case]:
    groups: dict[frozenset[str], list[Heard]] = {}
    for one in heard:
        groups.setdefault(features_of(one.plan, one.optimizer), []).append(one)
    names: Counter[str] = Counter()
    cases = []
    for features, group in groups.items():
        first = group[0].case
        names[first] += 1
        more = f".also-{names[first]}" if names[first] > 1 else ""
        models = f"{len(group)} models that need" if len(group) > 1 else "a model that needs"
        claim = f"Without the device, all shapes are worked out of {models} {', '.join(sorted(features))}"
        level: Level = "inference" if group[0].optimizer is None else "training"
        cases.append(Case(f"rehearse.{first}{more}", claim, level, features, _rehearsing(group), tier="plan"))
    return cases


def _rehearsing(group: list[Heard]) -> Callable[[PluginSubject], None]:
    def body(subject: PluginSubject) -> None:
        refused = []
        for one in group:
            try:
                rehearsed = subject.rehearse(one.plan, one.optimizer)
            except Refusal as refusal:
                if not refusal.declared:
                    raise
                refused.append(refusal)
            else:
                if rehearsed is not None:
                    check_rehearsal(subject, one, rehearsed)
        if len(refused) == len(group):
            raise refused[0]

    return body


def check_rehearsal(subject: PluginSubject, heard: Heard, rehearsed: Rehearsal) -> None:
    """Demand the shapes of the plan, and memory for at least what nobody can do without."""
    plan, model = heard.plan, f"the model of {heard.case}"
    shapes, operations = rehearsed.shapes, plan.operations
    subject.expect(
        len(shapes) == len(operations),
        f"{model} has {len(operations)} operations; the rehearsal has {len(shapes)} shapes",
    )
    for number, (shape, op) in enumerate(zip(shapes, operations, strict=True)):
        subject.expect(
            tuple(shape) == op.output_shape,
            f"{model}: operation {number} ({type(op).__name__}, layers[{op.layer}]) gives {tuple(shape)}; expected {op.output_shape}",
        )
    slots = 0 if heard.optimizer is None else len(heard.optimizer.slot_names)
    size = dtype_of(subject.precision).itemsize
    fixed = size * (1 + slots) * sum(spec.size for spec in plan.parameters)
    subject.expect(
        rehearsed.bytes_fixed is None or rehearsed.bytes_fixed >= fixed,
        f"{model}: bytes_fixed is {rehearsed.bytes_fixed}, but parameters and slots alone take {fixed}",
    )
    image = math.prod(plan.input_shape)  # as uint8
    subject.expect(
        rehearsed.bytes_per_image is None or rehearsed.bytes_per_image >= image,
        f"{model}: bytes_per_image is {rehearsed.bytes_per_image}, but an image alone takes {image}",
    )
