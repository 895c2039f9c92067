"""`cnnkit bench`."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Annotated

import numpy as np
import typer
from rich.table import Table

import cnnkit
from cnnkit.bench import Timing, measure_import, measure_seed
from cnnkit.cli import common
from cnnkit.plugins import DEFAULT_BACKEND


def bench(
    backend: Annotated[list[str] | None, typer.Option("--backend", "-b", help="May be given several times.")] = None,
    images: Annotated[int, typer.Option(help="Images in a round.", min=32)] = 256,
    rounds: Annotated[int, typer.Option(help="Rounds; the best counts.", min=1)] = 7,
    set_: common.SetOption = None,
    json_: common.JsonOption = False,
) -> None:
    """Measure: the seed's loops against the backends (and PyTorch, if installed); and what `import cnnkit` costs."""
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
