"""`cnnkit bench`, with or without --gpu, and `cnnkit bench batches`."""

from __future__ import annotations

import platform
import shlex
import sys
from collections.abc import Iterable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

import cnnkit
from cnnkit.bench import Timing, measure_import, measure_seed
from cnnkit.bench.batches import (
    MODELS,
    PEERS,
    Race,
    Workload,
    backend_entries,
    machine,
    peer_entries,
    race,
    race_table,
    race_to_dict,
    sentences,
)
from cnnkit.cli import common
from cnnkit.errors import OptionError
from cnnkit.model import Model
from cnnkit.plugins import DEFAULT_BACKEND

WIDTH = 99
"""Columns of a table also where the output is no terminal, and is taken to be narrower."""

bench = typer.Typer(invoke_without_command=True)


@bench.callback()
def seed(
    context: typer.Context,
    backend: Annotated[list[str] | None, typer.Option("--backend", "-b", help="May be given several times.")] = None,
    images: Annotated[int, typer.Option(help="Images in a round.", min=32)] = 256,
    rounds: Annotated[int, typer.Option(help="Rounds; the best counts.", min=1)] = 7,
    gpu: Annotated[
        bool, typer.Option("--gpu", help="Prove and measure everything on an NVIDIA GPU, and write a report.")
    ] = False,
    device: Annotated[str | None, typer.Option(help="With --gpu: which one. Default: gpu:0.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="With --gpu: folder of the report. Default: docs/reference/gpu/CARD.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="With --gpu: the time it may take. Default: 480s.")] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="With --gpu: fewer images and sizes; judges no target.")
    ] = False,
    set_: common.SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Measure: the seed's loops against the backends (and PyTorch, if installed); and what `import cnnkit` costs.

    `cnnkit bench batches` measures training and predicting in batches. `cnnkit bench --gpu` runs on a GPU alone: the
    conformance suite, single layers, training and prediction against PyTorch. Exit code 1 where not all of that was done
    or counts, 2 where there is no GPU.
    """
    if context.invoked_subcommand is not None:
        _refuse(_given(context), f"stands before `{context.invoked_subcommand}`. Write it behind")
        return
    given = _given(context)
    if gpu:
        _refuse(given & {"images", "rounds", "set_"}, "goes with the plain `cnnkit bench`, not with --gpu")
        _on_a_gpu(backend, device or "gpu:0", out, budget or "480s", quick=quick, json_=json_)
        return
    _refuse(given & {"device", "out", "budget", "quick"}, "goes with --gpu only")
    timings, remark = measure_seed(backend or [DEFAULT_BACKEND], images, rounds, options=common.backend_options(set_))
    imports = measure_import()
    if json_:
        common.print_json(
            {
                "seed_numpy": [asdict(timing) for timing in timings],
                "peer": remark,
                "import_seconds": imports,
                "machine": platform.platform(),
                "versions": {"cnnkit": cnnkit.__version__, "numpy": np.__version__},
            }
        )
        return
    common.console.print(_table(timings))
    common.console.print(remark, soft_wrap=True)
    base = imports["numpy"]
    costs = [f"{name} {seconds * 1000:.0f} ms ({seconds / base:.1f} x)" for name, seconds in imports.items()]
    common.console.print(f"import: {', '.join(costs)}", soft_wrap=True)


def _given(context: typer.Context) -> set[str]:
    """The parameters that were written on the command line."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}


def _refuse(names: Iterable[str], why: str) -> None:
    for name in sorted(names):
        raise OptionError(f"--{name.strip('_')} {why}.")


def _on_a_gpu(
    backends: list[str] | None, device: str, out: Path | None, budget: str, *, quick: bool, json_: bool
) -> None:
    from cnnkit.bench import gpu

    if backends and len(backends) > 1:
        raise OptionError(f"--gpu measures one backend; there are {len(backends)}: {', '.join(backends)}.")
    command = shlex.join(["cnnkit", *sys.argv[1:]])
    ask = gpu.Ask((backends or [gpu.DEFAULT])[0], device, gpu.read_seconds(budget), quick, command)
    report = gpu.run(ask, lambda it: gpu.write(it, out), partial(_note, "gpu"))
    if json_:
        sys.stdout.write(report.to_json())
    else:
        for target in report.targets:
            common.console.print(f"{target.outcome}: {target.name}. {target.said}", soft_wrap=True)
        for part in report.parts:
            if part.outcome != "done":
                common.console.print(f"{part.name} is {part.outcome}: {part.why}", soft_wrap=True)
        common.console.print(f"The report is in {gpu.folder(report, out)}", soft_wrap=True)
    if not report.sound:
        raise typer.Exit(1)


def _table(timings: list[Timing]) -> Table:
    table = Table(title="seed-numpy, 28 x 28 x 1, one image at a time", box=None, pad_edge=False, title_justify="left")
    for heading in ("", "train, µs / image", "against the loops", "predict, µs / image", "against the loops"):
        table.add_column(heading, justify="left" if not heading else "right")
    loops = timings[0]
    for timing in timings:
        cells = []
        for kind in ("train", "predict"):
            spent, base = getattr(timing, kind), getattr(loops, kind)
            cells += [f"{spent:,.0f}", f"{base / spent:,.0f} x"]
        table.add_row(timing.name, *cells)
    return table


@bench.command()
def batches(
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            "-m",
            help=f"{', '.join(MODELS)}, a preset or a model file; may be given several times. Default: seed-tf and d.",
        ),
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option("--backend", "-b", help="May be given several times. Default: numpy.")
    ] = None,
    peer: Annotated[
        list[str] | None,
        typer.Option("--peer", "-p", help=f"{', '.join(PEERS)}; may be given several times. All where none is given."),
    ] = None,
    no_peers: Annotated[bool, typer.Option("--no-peers", help="Backends alone.")] = False,
    batch_size: Annotated[int, typer.Option(help="Images a step.", min=1)] = 64,
    images: Annotated[int, typer.Option(help="Images in a round.", min=1)] = 4096,
    rounds: Annotated[int, typer.Option(help="Rounds after the first epoch; the best counts.", min=1)] = 5,
    threads: Annotated[int, typer.Option(help="Threads of each contestant.", min=1)] = 2,
    seed: Annotated[int, typer.Option(help="Where all numbers come from.", min=0)] = 0,
    set_: common.SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Measure training and predicting in batches: backends against Keras, TensorFlow by hand, PyTorch and JAX.

    Each contestant has a process of its own, all do the same work, which is checked, and rounds go through all of them.
    The first backend is what the others are compared with. Exit code 1 where somebody's figures do not count.
    """
    if peer and no_peers:
        raise OptionError("--peer and --no-peers were both given. Leave one of them out.")
    models = {name: _model(name) for name in dict.fromkeys(model or ("seed-tf", "d"))}
    peers, missing = peer_entries([] if no_peers else peer)
    if peer and missing:
        raise missing[0]
    entries = backend_entries(backend or [DEFAULT_BACKEND], common.backend_options(set_)) + peers
    before = machine()
    races = []
    for name, chosen in models.items():
        work = Workload(chosen, images, batch_size, threads, seed)
        races.append(Race(name, work, race(work, entries, rounds, partial(_note, name))))
        if not json_:
            _wide_console().print(race_table(races[-1]))
            for sentence in sentences(races[-1]):
                common.console.print(sentence, soft_wrap=True)
            common.console.print()
    if json_:
        common.print_json(
            {
                "machine": before,
                "versions": {"cnnkit": cnnkit.__version__, "numpy": np.__version__},
                "rounds": rounds,
                "models": [race_to_dict(it) for it in races],
                "missing": [str(it) for it in missing],
            }
        )
    else:
        for it in missing:
            common.console.print(str(it), soft_wrap=True)
    if any(outcome.problems for it in races for outcome in it.outcomes):
        raise typer.Exit(1)


def _model(name: str) -> Model:
    return MODELS[name]() if name in MODELS else common.find_model(name).model


def _wide_console() -> Console:
    """The console, or one that is as wide as a table."""
    if common.console.width >= WIDTH:
        return common.console
    return Console(width=WIDTH, highlight=False, markup=False, emoji=False)


def _note(model: str, what: str) -> None:
    common.notes.print(f"{model}: {what}", soft_wrap=True)
