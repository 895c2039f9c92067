"""`cnnkit why`, `compare` and `repro`: which backend runs a model, where two of them part, and a failure once more."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table

from cnnkit import plugins
from cnnkit.arrays import Parameters, dtype_of
from cnnkit.cli import common
from cnnkit.datasets import load_dataset
from cnnkit.errors import BackendUnavailable, CnnkitError, OptionError
from cnnkit.model import Model
from cnnkit.optimizers import Optimizer
from cnnkit.plan import Plan
from cnnkit.presets import preset_names

if TYPE_CHECKING:
    from cnnkit.conformance.comparing import Cell, Comparison
    from cnnkit.conformance.judging import Verdict
    from cnnkit.conformance.ledger import Ledger
    from cnnkit.conformance.question import Question

REPLAY_LIMIT: Final = 120.0
"""Seconds in which an engine is imported and answers once."""

ModelArgument = Annotated[str, typer.Argument(help="A preset (see `cnnkit models`), a model file, or a run folder.")]


def _say(text: str) -> None:
    common.console.print(text, soft_wrap=True)


def _several(backends: str) -> list[str]:
    """The names in `A,B,C`, each once."""
    names = [name.strip() for name in backends.split(",")]
    if not all(names) or len(set(names)) < len(names):
        raise OptionError(f"backends are {backends!r}; expected names with commas between them, each once: numpy,cupy.")
    return names


def _model_of(name_or_path: str) -> tuple[Model, Parameters | None, Optimizer | None]:
    """The model of a preset, a file or a run; the parameters that a run has learned, and the optimizer."""
    path = Path(name_or_path)
    if path.is_dir() or path.suffix == ".safetensors":
        checkpoint = common.find_checkpoint(path)
        return checkpoint.model, checkpoint.parameters, checkpoint.optimizer
    preset = common.find_model(name_or_path)
    return preset.model, None, preset.optimizer


# ----------------------------------------------------------------------------------------------------------------- why


def why(
    model: ModelArgument,
    backend: common.BackendOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Ask every installed backend.")] = False,
    device: common.DeviceOption = None,
    precision: common.JudgedPrecisionOption = "float32",
    json_: common.JsonOption = False,
) -> None:
    """Say whether a backend runs a model and, if not, why, and which backends could. Starts no engine.

    It asks the backend's plugin, and the ledger in which the plugin says where it deviates. Exit code 0 if all that
    were named run the model, or with --all if one of the installed does; else 1.
    """
    if all_ == (backend is not None):
        raise OptionError("give either --backend NAME, or --all for every installed backend.")
    dtype_of(precision)
    found, _, optimizer = _model_of(model)
    plan = found.plan()
    names = plugins.backend_names() if backend is None else _several(backend)
    answers = {name: _ask(name, plan, device, precision, optimizer) for name in names}
    refused = [name for name, answer in answers.items() if not answer["runs"]]
    could = _alternatives(answers, plan, precision) if refused else []
    ok = len(refused) < len(names) if all_ else not refused
    if json_:
        common.print_json(
            {
                "model": model,
                "device": device,
                "precision": precision,
                "needs": _needs(plan, None, precision),
                "to_train": _needs(plan, optimizer, precision) if _trains(plan) else None,
                "backends": list(answers.values()),
                "alternatives": could,
                "ok": ok,
            }
        )
    else:
        _print_answers(model, plan, optimizer, precision, answers)
        if refused:
            _say(f"Backends that could: {', '.join(could)}." if could else "No installed backend could.")
    if not ok:
        raise typer.Exit(1)


def _trains(plan: Plan) -> bool:
    return plan.is_classifier and bool(plan.parameters)


def _needs(plan: Plan, optimizer: Optimizer | None, precision: str) -> list[str]:
    from cnnkit.features import features_of

    return sorted(features_of(plan, optimizer, precision))


def _ask(
    name: str, plan: Plan, device: str | None, precision: str, optimizer: Optimizer | None = None
) -> dict[str, Any]:
    """What the plugin of `name` says, before it creates anything: whether it is ready, and what in the plan it refuses."""
    status = plugins.status(name, device)
    answer = {"name": name, "state": status.state, "reason": status.reason, "fix": status.fix}
    needs = set(_needs(plan, None, precision))
    to_train = set(_needs(plan, optimizer, precision)) - needs
    refusals, ledger = [], {}
    try:
        refusals = plugins.unsupported(name, plan, device, precision)
        ledger = _ledger_of(name, needs - {one.feature for one in refusals}, to_train)
    except BackendUnavailable as error:
        if status.ready:
            answer |= {"state": error.status.state, "reason": error.status.reason, "fix": error.status.fix}
    rows = [{"path": one.path, "feature": one.feature, "reason": one.reason} for one in refusals]
    runs = answer["state"] == "ready" and not rows and not ledger.get("refuses")
    return {**answer, "runs": runs, "refuses": rows, "ledger": ledger or None}


def _ledger_of(name: str, needs: set[str], to_train: set[str]) -> dict[str, Any]:
    """What the ledger of the plugin of `name` says: the level, what it refuses of some features, and what is wrong in it."""
    from cnnkit.conformance.ledger import read

    path = plugins.deviations(name)
    if path is None:
        return {}
    ledger = read(path, ())
    problems: tuple[str, ...] = ()
    if ledger.damaged or not path.is_file():
        from cnnkit.conformance.catalogue import all_cases

        problems = read(path, all_cases()).problems
    return {
        "path": str(path),
        "level": ledger.level or "training",
        "refuses": _refused(ledger, needs),
        "does_not_train": _refused(ledger, to_train),
        "problems": list(problems),
    }


def _refused(ledger: Ledger, features: set[str]) -> list[dict[str, str]]:
    return [
        {"feature": entry.feature, "reason": entry.reason, "issue": entry.issue}
        for entry in ledger.deviations
        if entry.feature in features
    ]


def _alternatives(answers: Mapping[str, Any], plan: Plan, precision: str) -> list[str]:
    """The backends that are ready, on a device of their own choice, and refuse nothing."""
    others = {name: _ask(name, plan, None, precision) for name in plugins.backend_names() if name not in answers}
    return sorted(name for name, answer in {**answers, **others}.items() if answer["runs"])


def _print_answers(
    model: str, plan: Plan, optimizer: Optimizer | None, precision: str, answers: Mapping[str, Any]
) -> None:
    needs = _needs(plan, None, precision)
    common.console.print(f"{model} in {precision} needs {', '.join(needs)}.")
    if _trains(plan) and optimizer is not None:
        more = [feature for feature in _needs(plan, optimizer, precision) if feature not in needs]
        common.console.print(f"To train it with {type(optimizer).__name__} also takes {', '.join(more)}.")
    for name, answer in answers.items():
        ledger = answer["ledger"] or {}
        if answer["runs"]:
            _say(f"{name}: runs it{', but predicts only' if ledger.get('level') == 'inference' else ''}")
        elif answer["state"] != "ready":
            _say(f"{name}: is not ready ({answer['state']}): {answer['reason']}. {answer['fix']}.")
        for refusal in answer["refuses"]:
            _say(f"{name}: refuses {refusal['path']}: {refusal['feature']}: {refusal['reason']}")
        for refusal in ledger.get("refuses", ()):
            _say(f"{name}: refuses, as its ledger says, {refusal['feature']}: {refusal['reason']}")
        for refusal in ledger.get("does_not_train", ()) if _trains(plan) else ():
            _say(f"{name}: does not train it, as its ledger says, {refusal['feature']}: {refusal['reason']}")
        for problem in ledger.get("problems", ()):
            _say(f"{name}: has a ledger that is wrong: {problem}")


# ------------------------------------------------------------------------------------------------------------- compare


def compare(
    model: ModelArgument,
    backends: Annotated[str, typer.Option(help="Names with commas between them: numpy,cupy; or one name.")],
    data: Annotated[
        str | None, typer.Option(help="A data set by name, an .npz file or a folder; else random images.")
    ] = None,
    batch: Annotated[int, typer.Option(help="How many images.", min=1)] = 4,
    seed: Annotated[int, typer.Option(help="Of the random numbers.", min=0)] = 0,
    device: common.DeviceOption = None,
    precision: common.JudgedPrecisionOption = "float32",
    set_: common.SetOption = None,
    data_dir: common.DataDirOption = None,
    image_size: common.ImageSizeOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Run a model on several backends and name the first layer, forward or backward, where one parts from what is right.

    What is right is worked out in float64 by the conformance suite, so that one backend alone can be compared too.
    Errors are in units of u * sum|w||x|, as in the suite. Parameters are random, or those of a run. Exit code 0 if all
    agree within the threshold, 1 if not or if one refuses the model.
    """
    from cnnkit.conformance import comparing

    dtype_of(precision)
    names = _several(backends)
    found, parameters, _ = _model_of(model)
    images = labels = None
    if data is not None:
        _, test = load_dataset(data, data_dir, limit=batch, image_size=image_size)
        images, labels = test.images, test.labels
        if parameters is None and model in preset_names():
            found = common.find_model(model).for_data(test.image_shape, test.classes).model
    options = common.backend_options(set_)  # every backend has to know them
    engines = {name: plugins.get_backend(name, device, precision, **options) for name in names}
    question = comparing.question_about(
        found,
        precision,
        batch=batch,
        seed=seed,
        parameters=None if parameters is None else comparing.in_precision(parameters, precision),
        images=images,
        labels=labels,
    )
    comparison = comparing.compare_backends(
        question,
        engines,
        {name: partial(plugins.unsupported, name, device=device, precision=precision) for name in names},
    )
    if json_:
        common.print_json({"model": model, "precision": precision, "seed": seed, **comparison.to_dict()})
    else:
        _print_comparison(comparison, names)
    if not comparison.agree:
        raise typer.Exit(1)


def _print_comparison(comparison: Comparison, names: list[str]) -> None:
    table = Table(box=None, pad_edge=False)
    table.add_column("layer", justify="right")
    table.add_column("what", overflow="fold")
    for name in names:
        table.add_column(name, justify="right", overflow="fold")
    partings = comparison.partings
    for direction in ("forward", "backward"):
        rows = [row for row in comparison.rows if row.direction == direction]
        if rows:
            table.add_row("", direction)
        for row in rows:
            cells = [_cell_text(row.cells[name], first=partings.get(name) is row) for name in names]
            table.add_row(str(row.layer), row.what, *cells)
    common.console.print(table)
    for name, row in partings.items():
        where = f"layer {row.layer}" if row.direction == "forward" else f"layer {row.layer} on the way back"
        verb = {"parts": "parts from what is right", "refuses": "refuses the model", "fails": "fails"}
        cell = row.cells[name]
        common.console.print(f"{name} {verb[cell.outcome]} at {where} ({row.what}): {cell.message}")
    _print_remarks(comparison, names)


def _print_remarks(comparison: Comparison, names: list[str]) -> None:
    from cnnkit.conformance.measure import THRESHOLD

    backward = [row for row in comparison.rows if row.direction == "backward"]
    only_predict = [name for name in names if backward and backward[0].cells[name].outcome == "does-not-train"]
    if only_predict:
        common.console.print(f"Without gradients, since they only predict: {', '.join(only_predict)}.")
    if not backward:
        common.console.print("Without gradients: the model is no classifier with parameters.")
    if not comparison.is_clear:
        common.console.print(
            "A ReLU or a max pooling stands so near an edge that rounding may decide it, after which right gradients "
            "differ too. Try another --seed or fewer images."
        )
    if any(cell.outcome == "unseen" for row in backward for cell in row.cells.values()):
        common.console.print("? could not be seen, for what would show it is itself wrong or too large.")
    if comparison.agree:
        common.console.print(
            f"{'All agree' if len(names) > 1 else f'{names[0]} agrees with what is right'}: the worst error is {comparison.worst:.3g} units of u * sum|w||x|; the threshold is "
            f"{THRESHOLD:g}."
        )


def _cell_text(cell: Cell, *, first: bool) -> str:
    from cnnkit.conformance.reports.digest import units_in_words

    text = {"refuses": "refuses", "fails": "fails", "does-not-train": "-", "unseen": "?"}.get(cell.outcome)
    text = text or units_in_words(cell.units) or "wrong"
    return f"> {text}" if first else text


# --------------------------------------------------------------------------------------------------------------- repro


def repro(
    file: Annotated[Path, typer.Argument(help="A file that `cnnkit conformance` saved.")],
    backend: common.BackendOption = None,
    device: common.DeviceOption = None,
    precision: Annotated[str | None, typer.Option(help="float32 or float64; else that of the failure.")] = None,
    set_: common.SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Replay a failure of the conformance suite on any backend. Exit code 0 if it passes, 1 if it fails.

    As in the suite, the backend runs in a process of its own: one that crashes or hangs has failed.
    """
    from cnnkit.conformance import repro as repro_
    from cnnkit.conformance.measure import THRESHOLD

    failure = repro_.load(file)
    precision = precision or failure.precision
    choice = common.backend_choice(backend) or failure.backend
    name, verdict = _replayed(file, choice, device, precision, common.backend_options(set_))
    if json_:
        common.print_json(
            {
                "file": str(file),
                "case": failure.case,
                "claim": failure.claim,
                "backend": name,
                "precision": precision,
                "question": None if failure.question is None else _question_in_words(failure.question),
                "outcome": verdict.outcome,
                "stage": verdict.stage,
                "message": verdict.message,
                "units": verdict.units,
                "threshold": THRESHOLD,
                "then": {"backend": failure.backend, "precision": failure.precision, "message": failure.message},
            }
        )
    else:
        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_row("case", failure.case)
        table.add_row("claim", failure.claim)
        table.add_row("question", "that case" if failure.question is None else _question_in_words(failure.question))
        table.add_row(f"then, {failure.backend} in {failure.precision}", f"fails: {failure.stage}: {failure.message}")
        table.add_row(f"now, {name} in {precision}", _verdict_in_words(verdict, THRESHOLD))
        common.console.print(table)
    if verdict.outcome != "passed":
        raise typer.Exit(1)


def _replayed(
    file: Path, backend: str | list[str], device: str | None, precision: str, options: dict[str, Any]
) -> tuple[str, Verdict]:
    """The backend that was asked again, and its answer."""
    from cnnkit.conformance.judging import Verdict
    from cnnkit.conformance.process import Lost, WorkerProcess

    names = [backend] if isinstance(backend, str) else backend
    for name in names:
        if name not in plugins.backend_names():
            plugins.status(name)  # raises the error that says which there are
    dtype_of(precision)
    request = {"file": str(file), "backend": backend, "device": device, "precision": precision, "options": options}
    worker = WorkerProcess()
    try:
        found = worker.ask(REPLAY_LIMIT, ask="replay", **request)
    except Lost as lost:
        if lost.traceback:
            common.notes.print(lost.traceback, soft_wrap=True)
        return ", ".join(names), Verdict("failed", 0.0, None, lost.stage, f"{lost}", lost.error, lost.traceback)
    finally:
        worker.close()
    if "raised" in found:
        raise (OptionError if found["wrong_use"] else CnnkitError)(found["raised"])
    return found.pop("backend"), Verdict(**found)


def _question_in_words(question: Question) -> str:
    from cnnkit.conformance.explore import in_words

    asked = {"predict": "predict", "gradients": "take the gradients of"}.get(question.ask)
    if asked is None:
        steps = len(list(question.batches()))
        asked = f"train {steps} step{'s' * (steps != 1)} with {question.optimizer} on"
    images, count = question.images, sum(array.size for array in question.parameters.values())
    plural = "s" * (len(images) != 1)
    return f"{asked} {len(images)} {images.dtype} image{plural} with {count:,} parameters: {in_words(question.model)}"


def _verdict_in_words(verdict: Verdict, threshold: float) -> str:
    if verdict.outcome == "passed":
        return f"passes; the worst error is {verdict.units or 0.0:.3g} units, the threshold is {threshold:g}"
    if verdict.outcome == "refused":
        return f"refuses it: {verdict.message}"
    return f"fails: {verdict.stage}: {verdict.message}"
