"""The kill matrix: which cases of the suite catch which broken backend.

    python tests/conformance/mutants/matrix.py            writes docs/reference/kill-matrix.md
    python tests/conformance/mutants/matrix.py --check    says whether the page still lists the mutants that there are
    python tests/conformance/mutants/matrix.py NAME ...   tries some mutants, on every case, and prints what turned red

Exit code 1 where a mutant survives or the page is stale. A mutant is tried on the cases meant for it, then on the rest of
the suite until `ENOUGH` cases have turned red; on `SLOW` cases only if no other turns red.
"""

import sys
import time
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

from cnnkit.conformance.catalogue import all_cases
from cnnkit.conformance.judging import Verdict
from mutants import MUTANTS, TOO_LITTLE_RAN
from mutants.trying import is_meant, reasons, remembering, verdict_on

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "reference" / "kill-matrix.md"
ENOUGH = 10
SLOW = ("network.", "conduct.threads.", "v50.")

INTRODUCTION = """# The kill matrix

The conformance suite is itself on trial. Each mutant below is a right backend with one fault, made by a few lines in
`tests/conformance/mutants`. It must turn the suite red, at the cases that are meant for it. This page is made by

    python tests/conformance/mutants/matrix.py

and `--check` says whether it is stale; with the names of mutants the command prints all that turns red under them.
"Meant" is the first of the cases that are meant for the mutant, and how many of them turned red. "Red" counts all cases that
turned red until there were {enough}, those of whole networks and of threads left out where others did.

{count} mutants, {survived}. The backend that they are made from passes all {cases} cases, in float32 and float64.
"""

GROUPS = {
    "convolutions": "Convolutions, forward",
    "pooling": "Poolings, forward",
    "gradients": "Gradients",
    "layers": "Activations, dense layers, preprocessing",
    "dropping": "Dropout",
    "scores": "Softmax, loss and labels",
    "precision": "Precision, NaN and infinity",
    "optimizing": "Optimizers and states",
    "epochs": "Epochs",
    "conduct": "Conduct: arrays, memory, threads, odd sizes, refusals",
    "combined": "One method, size, dtype, layout or option alone",
}


def is_slow(case):
    """Whether this case is left to mutants that no other catches."""
    return case.id.startswith(SLOW)


def try_out(mutant, cases, enough):
    """`{case id: verdict}` of the cases that turned red."""
    meant = [case for case in cases if is_meant(mutant, case.id)]
    others = sorted((case for case in cases if not is_meant(mutant, case.id)), key=is_slow)
    verdicts, red = [], {}
    for number, case in enumerate([*meant, *others]):
        if number >= len(meant) and (len(red) >= enough or (red and enough == ENOUGH and is_slow(case))):
            break
        if mutant.precision in case.precisions:
            verdict = verdict_on(mutant, case)
            verdicts.append((case, verdict))
            if verdict.outcome == "failed":
                red[case.id] = verdict
    if TOO_LITTLE_RAN in mutant.meant and not red:
        said = reasons(mutant, verdicts)
        if said:
            red[TOO_LITTLE_RAN] = Verdict("failed", 0.0, message=said[0])
    return red


def row(mutant, red, cases):
    """A line of the table."""
    meant = [case.id for case in cases if is_meant(mutant, case.id)] or list(mutant.meant)
    caught = [name for name in meant if name in red]
    killed = (
        f"`{caught[0]}` ({len(caught)} of {len(meant)})" if caught else "**SURVIVED**" if not red else "**not meant**"
    )
    shown = red[caught[0]] if caught else next(iter(red.values()), None)
    message = " ".join(shown.message.split()).replace("|", "\\|") if shown else ""
    message = message if len(message) <= 150 else message[:147] + "..."
    count = f"{ENOUGH} or more" if len(red) >= ENOUGH else str(len(red))
    return f"| `{mutant.name}` | {mutant.broken} | {killed} | {count} | {message} |"


def listed(page):
    """The mutants that a page lists: (name, what is broken)."""
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    return {(cells[0].strip("|` "), cells[1]) for cells in rows}


def staleness(page):
    """What is wrong with the page's list of mutants, one sentence each."""
    there, wanted = listed(page), {(mutant.name, mutant.broken) for mutant in MUTANTS}
    return [
        *(f"{name} is not on the page" for name, _ in sorted(wanted - there)),
        *(f"{name} is on the page, but there is no such mutant" for name, _ in sorted(there - wanted)),
    ]


def write_page():
    """Try every mutant and write the page; how many were not killed as meant."""
    begin, cases = time.monotonic(), all_cases()
    tables, missed, survived = [], [], 0
    with remembering():
        for group, title in GROUPS.items():
            lines = [
                f"## {title}\n",
                "| mutant | what is broken | meant | red | what the first says |",
                "| --- | --- | --- | --- | --- |",
            ]
            for mutant in [mutant for mutant in MUTANTS if mutant.group == group]:
                red = try_out(mutant, cases, ENOUGH)
                lines.append(row(mutant, red, cases))
                survived += not red
                if "**SURVIVED**" in lines[-1] or "**not meant**" in lines[-1]:
                    missed.append(mutant.name)
            tables.append("\n".join(lines) + "\n")
            sys.stderr.write(f"{title}: {len(lines) - 3} mutants, {time.monotonic() - begin:.0f} s\n")
    said = "all killed" if not survived else f"{survived} of which SURVIVED"
    head = INTRODUCTION.format(enough=ENOUGH, count=len(MUTANTS), survived=said, cases=len(cases))
    PAGE.write_text("\n".join([head, *tables]), encoding="utf-8")
    for name in missed:
        sys.stderr.write(f"not killed as meant: {name}\n")
    return len(missed)


def print_some(names):
    """Try some mutants on every case and print what turns red; how many survive."""
    unknown = set(names) - {mutant.name for mutant in MUTANTS}
    if unknown:
        raise SystemExit(f"there is no mutant called {', '.join(sorted(unknown))}")
    survived = 0
    with remembering():
        for mutant in [mutant for mutant in MUTANTS if mutant.name in names]:
            red = try_out(mutant, all_cases(), len(all_cases()) + 1)
            survived += not red
            sys.stdout.write(f"{mutant.name}: {mutant.broken}. {len(red)} cases turn red.\n")
            for name, verdict in red.items():
                mark = "*" if is_meant(mutant, name) else " "
                sys.stdout.write(f" {mark} {name}: {verdict.message}\n")
    return survived


def main(arguments):
    if arguments == ["--check"]:
        problems = staleness(PAGE.read_text(encoding="utf-8"))
        for problem in problems:
            sys.stdout.write(f"{PAGE.name}: {problem}\n")
        return bool(problems)
    return bool(print_some(arguments) if arguments else write_page())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
