"""`cnnkit conformance`: judge a backend, and say what was found so that it can be acted upon."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cnnkit.cli import common
from cnnkit.conformance import ledger, reports
from cnnkit.conformance.report import OUTCOMES, CaseResult, Report
from cnnkit.conformance.reports.digest import claimed, listed, only_in_words, repro_command, whereabouts
from cnnkit.conformance.runner import Listener, Settings, conduct
from cnnkit.conformance.selection import PRECISIONS, area_of, check_level, check_tier, suite_cases
from cnnkit.errors import CnnkitError, OptionError
from cnnkit.files import write_whole

WIDTH = 80
LEAST_ROW = 20
"""An area of fewer cases, all of them well, gets no row of its own."""
SHOWN = 10
"""So many failures are told in full; the rest is in the files."""

_HEADINGS = {"passed": "passed", "failed": "failed", "refused": "refused", "deviates": "deviates", "not-run": "not run"}


def conformance(
    name: Annotated[str, typer.Argument(help="The backend to judge.")],
    tier: Annotated[
        str, typer.Option(help="run is everything that computes; plan is what can be proved without the device.")
    ] = "run",
    level: Annotated[
        str | None, typer.Option(help="inference or training; left out, what its ledger claims, or else training.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="float32 or float64; may be given twice. Left out, both.")
    ] = None,
    device: common.DeviceOption = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "--set", metavar="NAME=VALUE", help="An option of the backend, such as threads=2."),
    ] = None,
    fail_fast: Annotated[bool, typer.Option("--fail-fast", help="Stop at the first failure.")] = False,
    budget: Annotated[
        str | None, typer.Option(metavar="TIME", help="Stop after 60s, 2m, or so; every feature is tried early.")
    ] = None,
    time_limit: Annotated[
        str, typer.Option(metavar="TIME", help="How long one case may take until its process is killed.")
    ] = "60s",
    seed: Annotated[int, typer.Option(help="What the models of --explore are drawn from.")] = 0,
    explore: Annotated[int, typer.Option(help="Try so many random models more.", min=0)] = 0,
    only: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATTERN", help="Try only cases of this id, such as 'v06.*': partial at best, never green."
        ),
    ] = None,
    update_ledger: Annotated[
        bool, typer.Option("--update-ledger", help="Rewrite the plugin's conformance.toml to what was found.")
    ] = False,
    json_: Annotated[str | None, typer.Option("--json", metavar="FILE", help="The report; - prints it.")] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page.")] = None,
    markdown: Annotated[Path | None, typer.Option(help="Write the feature matrix in Markdown.")] = None,
    badge: Annotated[Path | None, typer.Option(help="Write an SVG badge.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for a file of each failure. [conformance-failures/NAME]")
    ] = None,
) -> None:
    """Judge a backend by the conformance suite: exit code 0 is green, or partial with --only or --budget; 1 is red.

    With --tier plan nothing is computed, and 0 is never green: all holds that can be proved without the device.
    """
    json_file = None if json_ in (None, "-") else Path(str(json_))
    forms = {"json": json_file, "junit": junit, "html": html, "markdown": markdown, "badge": badge}
    files = {form: path for form, path in forms.items() if path is not None}
    for form, path in files.items():  # before minutes are spent on the run
        if path.is_dir() or not path.parent.is_dir():
            what = "it is a folder" if path.is_dir() else f"there is no folder {path.parent}"
            raise OptionError(f"--{form} {path} cannot be written: {what}. Give the path of a file in a folder.")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise OptionError(f"--{form} {path} cannot be written: it is not allowed. Give another path.")
        same = [other for other, there in files.items() if there.absolute() == path.absolute() and other != form]
        if same:
            raise OptionError(f"--{form} and --{same[0]} name the same file, {path}. Give each a file of its own.")
    with _progress() as listener:
        report, found_ledger = conduct(
            Settings(
                name=name,
                level=check_level(level),
                precisions=tuple(precision or PRECISIONS),
                device=device,
                options=common.backend_options(option),
                seed=seed,
                budget=None if budget is None else _seconds("--budget", budget),
                fail_fast=fail_fast,
                time_limit=_seconds("--time-limit", time_limit),
                explore=explore,
                folder=out or Path("conformance-failures") / name,
                progress=listener,
                only=tuple(only or ()),
                needs_ledger=update_ledger,
                tier=check_tier(tier),
            )
        )
    if json_ == "-":
        sys.stdout.write(reports.to_json(report).rstrip("\n") + "\n")
    else:
        common.console.print("\n".join(summary(report)), soft_wrap=True)
    _write(report, files)  # after the summary, which is not to be lost with them
    if update_ledger:
        _update(found_ledger, report)
    if report.red:
        raise typer.Exit(1)


def _seconds(option: str, text: str) -> float:
    """`60s`, `2m` or `90` as seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|)", text.strip())
    seconds = float(found[1]) * (60 if found[2] == "m" else 1) if found else 0.0
    if seconds <= 0:
        raise OptionError(f"{option} is {text!r}; expected a time such as 60s, 2m or 90.")
    return seconds


@contextmanager
def _progress() -> Iterator[Listener | None]:
    """A line that moves, where somebody is looking."""
    if not common.notes.is_terminal:
        yield None
        return
    columns = (
        BarColumn(30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[failed]} failed  {task.description}"),
    )
    with Progress(*columns, console=common.notes, transient=True) as bar:
        task = bar.add_task("loading", total=None, failed=0)
        failed = 0

        def listen(count: int, total: int, result: CaseResult) -> None:
            nonlocal failed
            failed += result.outcome == "failed"
            bar.update(task, completed=count, total=total, failed=failed, description=result.id[:30])

        yield listen


def _write(report: Report, files: Mapping[str, Path]) -> None:
    for form, path in files.items():
        text = getattr(reports, f"to_{form}")(report)
        try:
            write_whole(path, text.encode())
        except OSError as error:
            raise CnnkitError(f"{path} cannot be written: {error}.") from error


def _update(found: ledger.Ledger, report: Report) -> None:
    if found.path is None:
        common.notes.print("The ledger is as it was: the backend could not be loaded.")
        return
    try:
        changes = ledger.update(found, report.cases, suite_cases())
    except OSError as error:
        raise CnnkitError(f"the ledger {found.path} cannot be written: {error}.") from error
    added = sum(change.startswith("added") for change in changes)
    lines = [f"{found.path}: {len(changes)} entries changed", *(f"  {change}" for change in changes)]
    if added:
        lines += _wrapped(
            f"Write into the {added} added why the backend deviates (reason) and where that is being followed up "
            "(issue). Until somebody has, the run stays red."
        )
    common.notes.print("\n".join(lines), soft_wrap=True)


# ---------------------------------------------------------------------------------------------------------- in words


def summary(report: Report) -> list[str]:
    """The lines that a run ends with."""
    groups = _grouped(report.failures)
    lines = [*_head(report), "", *_areas(report)]
    for group in groups[:SHOWN]:
        lines += ["", *_failure(group, report)]
    rest = sum(len(group) for group in groups[SHOWN:])
    if rest:
        lines += ["", *_wrapped(f"{_count(rest)} more failed: --json FILE or --html FILE has all of them.")]
    saved = [Path(failure.repro).parent for failure in report.failures if failure.repro]
    if saved:
        lines += ["", *_wrapped(f"Files that repeat {_count(len(saved))} are in {saved[0]}.")]
    unsaved = [failure for failure in report.failures if "(No file repeats it: " in failure.message]
    if unsaved:
        lines += ["", *_wrapped(f"No file repeats {_count(len(unsaved))}: {unsaved[0].name} says why.")]
    if report.reasons:
        lines += ["", "Why it is red:"]
        lines += [line for reason in report.reasons for line in _wrapped(reason, "  - ", "    ")]
    return [*lines, "", *_wrapped(_counted_apart(report)), *_wrapped(_verdict(report))]


def _counted_apart(report: Report) -> str:
    """What stands between a green backend and one that can do everything."""
    refused, deviates = report.counts["refused"], report.counts["deviates"]
    found = [f"{_count(refused)} refused"] * bool(refused) + [f"{_count(deviates)} deviating"] * bool(deviates)
    return f"Declared beforehand, and counted apart: {', '.join(found)}." if found and not report.red else ""


def _count(cases: int) -> str:
    return f"{cases} case" if cases == 1 else f"{cases} cases"


def _verdict(report: Report) -> str:
    ran = len(report.cases) - report.counts["not-run"]
    some = f"{ran} of {len(report.cases)} cases ran"
    if report.partial:
        early = "" if report.only else " within the budget"
        return f"PARTIAL: nothing failed, but only {some}{early}. A part of the suite makes no backend green."
    if report.red:
        return f"RED: backend '{report.backend}' does not conform at the level {report.level}."
    if report.planned:
        return (
            f"PLAN: what can be proved of backend '{report.backend}' without its device holds, at the level {report.level} "
            f"in {listed(claimed(report))}{only_in_words(report)}. Nothing was run: `cnnkit conformance {report.backend}` "
            "does that, where the device is."
        )
    only = only_in_words(report)
    where = f" in {listed(claimed(report))}{only}" if only else ""
    return f"GREEN: backend '{report.backend}' conforms at the level {report.level}{where}."


def _head(report: Report) -> list[str]:
    on, tier = (" for", "tier plan, ") if report.tier == "plan" else (" on", "")
    device = f"{on} {report.device}" if report.device else ""
    origin = f" ({report.distribution})" if report.distribution else ""
    head = _wrapped(
        f"Backend '{report.backend}'{origin}{device}, conformance suite {report.suite}, {tier}level {report.level}, "
        f"{' and '.join(report.precisions)}, {report.seconds:.1f} s"
    )
    return [*head, *_wrapped(whereabouts(report))] if report.tier == "plan" else head


def _areas(report: Report) -> list[str]:
    """A table: how many cases of each area had each outcome, and the worst error of those that passed."""
    areas: dict[str, list[CaseResult]] = {}
    for case in report.cases:  # a case in two precisions counts twice
        areas.setdefault(area_of(case.id), []).append(case)
    others = [case for area in [area for area in areas if _is_minor(areas[area])] for case in areas.pop(area)]
    rows = [(area[:20], cases) for area, cases in areas.items()]
    rows += [("others", others)] if others else []
    heading = f"{'area':20}" + "".join(f"{_HEADINGS[outcome]:>9}" for outcome in OUTCOMES) + f"{'worst error':>13}"
    return [heading, *(_row(area, cases) for area, cases in [*rows, ("all", list(report.cases))])]


def _is_minor(cases: Sequence[CaseResult]) -> bool:
    """Whether an area needs no row of its own: nothing ran, or little and that well."""
    outcomes = {case.outcome for case in cases}
    return outcomes == {"not-run"} or (len(cases) < LEAST_ROW and "failed" not in outcomes)


def _row(area: str, cases: Sequence[CaseResult]) -> str:
    counts = Counter(case.outcome for case in cases)
    measured = (case.units for case in cases if case.outcome == "passed")
    worst = max((units for units in measured if units is not None), default=None)
    error = "" if worst is None else f"{worst:.1f}"
    return (f"{area:20}" + "".join(f"{counts[outcome] or '·':>9}" for outcome in OUTCOMES) + f"{error:>13}").rstrip()


def _grouped(failures: Sequence[CaseResult]) -> list[list[CaseResult]]:
    """Failures that say the same, together; if that leaves many, then those of an area at the same stage."""
    groups = _together(failures, _finding)
    return groups if len(groups) <= SHOWN else _together(failures, lambda failure: (failure.stage, area_of(failure.id)))


def _together(failures: Sequence[CaseResult], key: Callable[[CaseResult], object]) -> list[list[CaseResult]]:
    groups: dict[object, list[CaseResult]] = {}
    for failure in failures:
        groups.setdefault(key(failure), []).append(failure)
    return list(groups.values())


def _finding(failure: CaseResult) -> tuple[str | None, str]:
    """What was found, as far as it can be the same in several cases: the case in both precisions, or one exception."""
    if failure.stage == "compare":
        return failure.stage, failure.id
    if failure.error == "TrainingNotSupported":
        return failure.stage, failure.error
    return failure.stage, failure.message


def _failure(group: Sequence[CaseResult], report: Report) -> list[str]:
    first, *others = group
    more = f" and {len(others)} more" if others else ""
    if others and len({failure.id for failure in group}) == 1:
        more = f" and in {', '.join(failure.precision for failure in others)}"
    lines = _wrapped(f"FAILED {first.name}{more}, at the stage {first.stage}", "", "  ")
    lines += _wrapped(f"claim  {first.claim}", "  ", "         ")
    lines += _wrapped(f"found  {first.message}", "  ", "         ")
    if first.stage in ("crash", "timeout"):
        printed = [line for line in first.traceback.splitlines() if line.strip() and not _is_ours(line)]
        lines += ["  printed last:", *(f"    {_end_of(line)}" for line in printed[-8:])] if printed else []
    command = repro_command(report, first)
    if command:
        lines.append(f"  repeat {command}")
    return lines


def _end_of(line: str) -> str:
    """A line that fits; of a long path the end says most."""
    line = _visible(line)
    return line if len(line) <= WIDTH - 4 else f"...{line[7 - WIDTH :]}"


def _is_ours(line: str) -> bool:
    """Whether a line of the stack of a process that died or hung says where the suite was, not where the backend was."""
    ours = ("/cnnkit/conformance/", "\\cnnkit\\conformance\\", '"<string>"', "threading.py", "Extension modules:")
    return any(mark in line for mark in ours)


def _visible(text: str) -> str:
    """What an engine or a file says, with the characters spelt out that would move or colour a terminal's."""
    return re.sub(r"[\x00-\x08\x0e-\x1f\x7f-\x9f]", lambda found: repr(found[0])[1:-1], text)


def _wrapped(text: str, first: str = "", rest: str = "") -> list[str]:
    return textwrap.wrap(_visible(text), WIDTH, initial_indent=first, subsequent_indent=rest, break_on_hyphens=False)
