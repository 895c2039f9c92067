"""The two tables of the write-up that cnnkit grew from, made again on every CPU backend, with what is wrong in them.

    python examples/seed_tables.py --out tables

Presets `seed-numpy` (table 1) and `seed-tf` (table 2) on MNIST and CIFAR-10, three seeds each. Every row is a run folder
under `--out`; after a kill the same command goes on where it was, and reads what is finished. `tables.md` and
`tables.json` there hold whatever is done so far.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import cnnkit

PRESETS = {"1": "seed-numpy", "2": "seed-tf"}
COLUMNS = ("training accuracy", "test accuracy", "precision", "recall", "F1")
WRITE_UP = {
    ("1", "mnist"): "0.90 0.90 0.90 0.90 0.90",
    ("1", "cifar10"): "0.30 0.30 0.30 0.30 0.30",
    ("2", "mnist"): "0.9894 0.9852 0.9854 0.9852 0.9852",
    ("2", "cifar10"): "0.6785 0.6336 0.6336 0.6439 0.6308",
}
NOTES = {
    "1": "Of the write-up: one number stands in all five columns, and its averaging has no name. 15 minutes for 1,000 "
    "images of CIFAR-10 would be 12.5 hours for 50,000; it gives 2 hours for both data sets. The labels that Keras hands "
    "out are whole numbers, not one-hot.",
    "2": "Of the write-up: on CIFAR-10 precision and recall are the wrong way round. Where every class has as many test "
    "images, macro recall is the accuracy, 0.6336, which stands there under precision.",
}


def main(arguments: list[str] | None = None) -> None:
    """Run what is not done yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", help="names joined by commas (default: all that are ready on the CPU)")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--tables", default="1,2")
    parser.add_argument("--datasets", default="mnist,cifar10")
    parser.add_argument("--data-dir", help="a folder with mnist.npz and cifar10.npz")
    parser.add_argument("--limit", type=int, help="only so many images for training, and for the test")
    parser.add_argument("--epochs", type=int, help="instead of the preset's")
    parser.add_argument("--out", type=Path, default=Path("seed-tables"))
    asked = parser.parse_args(arguments)
    backends = asked.backends.split(",") if asked.backends else ready_on_the_cpu()
    tables, seeds = asked.tables.split(","), asked.seeds.split(",")
    if not set(tables) <= PRESETS.keys() or not all(seed.isdecimal() for seed in seeds):
        parser.error(f"--tables {asked.tables} --seeds {asked.seeds}: tables are 1 and 2, seeds whole numbers from 0")
    if unknown := set(backends) - cnnkit.backends().keys():
        parser.error(f"there is no backend {', '.join(sorted(unknown))}; `cnnkit backends` lists those that are here")
    keep_settings(asked.out, {"limit": asked.limit, "epochs": asked.epochs})

    done: list[dict[str, Any]] = []
    for table in tables:
        for backend in backends:
            try:
                for dataset in asked.datasets.split(","):
                    for seed in map(int, seeds):
                        done.append(cell(asked, table, dataset, backend, seed))
                        write(asked.out / "tables.json", json.dumps(done, indent=1))
                        write(asked.out / "tables.md", "\n".join(report(done)) + "\n")
            except cnnkit.TrainingNotSupported:
                print(f"{backend} is left out, since it only predicts.", file=sys.stderr)
    print("\n".join(report(done)))


def ready_on_the_cpu() -> list[str]:
    """The names of all backends that can run here on the CPU."""
    return [name for name, status in cnnkit.backends().items() if status.ready and "cpu" in status.devices]


def cell(asked: argparse.Namespace, table: str, dataset: str, backend: str, seed: int) -> dict[str, Any]:
    """One run, judged: from its metrics.json if it is finished, or else trained, from its checkpoint if it has one."""
    folder = asked.out / f"table-{table}" / dataset / backend / f"seed-{seed}"
    if (folder / "metrics.json").exists():
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    train, test = cnnkit.load_dataset(dataset, asked.data_dir, limit=asked.limit)
    preset = cnnkit.load_preset(PRESETS[table]).for_data(train.image_shape, train.classes, train.class_names)
    epochs = asked.epochs or preset.epochs
    engine = cnnkit.get_backend(backend, device="cpu")
    run = cnnkit.fit(
        preset.model, train, None, engine, preset.optimizer, preset.batch_size, epochs, seed,
        train_metrics=False, out=folder, resume=True,
    )  # fmt: skip
    judged = {
        name: cnnkit.evaluate(run.model, run.state.parameters, data, engine)
        for name, data in (("train", train), ("test", test))
    }
    seconds = sum(record.seconds_train for record in run.history)
    result = {
        "table": table,
        "dataset": dataset,
        "backend": backend,
        "seed": seed,
        "epochs": epochs,
        "images": {"train": len(train), "test": len(test)},
        "ms_per_image": 1000 * seconds / (len(train) * epochs),
        "versions": dict(cnnkit.backends()[backend].versions),
        **{name: metrics.to_dict() for name, metrics in judged.items()},
    }
    write(folder / "metrics.json", json.dumps(result))
    print(f"{time.strftime('%H:%M:%S')} {folder}: test accuracy {judged['test'].accuracy:.4f}", file=sys.stderr)
    return result


def report(done: list[dict[str, Any]]) -> Iterator[str]:
    """The tables in Markdown, a line after the other."""
    for table in sorted({row["table"] for row in done}):
        yield from ("", f"Table {table}, preset `{PRESETS[table]}`", "")
        yield "| data set | by | seed | " + " | ".join(COLUMNS) + " | ms / image, training |"
        yield "| --- " * (len(COLUMNS) + 4) + "|"
        rows = [row for row in done if row["table"] == table]
        for dataset in dict.fromkeys(row["dataset"] for row in rows):
            if (table, dataset) in WRITE_UP:
                yield line(dataset, "the write-up", "", *WRITE_UP[table, dataset].split(), "")
            for backend in dict.fromkeys(row["backend"] for row in rows):
                runs = [row for row in rows if (row["dataset"], row["backend"]) == (dataset, backend)]
                for row in runs:
                    time_taken = f"{row['ms_per_image']:.3f}"
                    yield line(dataset, backend, str(row["seed"]), *(f"{x:.4f}" for x in figures(row)), time_taken)
                if len(runs) > 1:
                    spreads = zip(*map(figures, runs), strict=True)
                    yield line(dataset, backend, "mean ± s.d.", *map(mean_and_spread, spreads), "")
        yield from (
            "",
            NOTES[table],
            "Ours are macro averages, and training accuracy is that of the trained network on the training images.",
            checked(rows),
        )


def figures(row: dict[str, Any]) -> tuple[float, ...]:
    """The five columns of the write-up."""
    test = row["test"]
    return (row["train"]["accuracy"], test["accuracy"], test["precision"], test["recall"], test["f1"])


def mean_and_spread(values: tuple[float, ...]) -> str:
    """Mean and sample standard deviation over the seeds."""
    return f"{statistics.mean(values):.4f} ± {statistics.stdev(values):.4f}"


def checked(rows: list[dict[str, Any]]) -> str:
    """What must hold in each row, worked out again from its confusion matrix; stops where it does not."""
    balanced = {}
    for row in rows:
        metrics = cnnkit.Metrics(np.array(row["test"]["confusion"]))
        counts = metrics.confusion.sum(axis=1)
        balanced[row["dataset"]] = bool((counts == counts[0]).all())
        facts = {"weighted recall": metrics.weighted.recall, "the accuracy in the table": row["test"]["accuracy"]}
        if balanced[row["dataset"]]:
            facts["macro recall"] = row["test"]["recall"]
        for name, value in facts.items():
            if not math.isclose(value, metrics.accuracy, rel_tol=1e-12):
                raise SystemExit(f"{row['dataset']}, {row['backend']}: {name} is {value}, not {metrics.accuracy}")
    even = [name for name, same in balanced.items() if same]
    alike = f"so is macro recall on {', '.join(even)}" if even else "macro recall is not: no test set is balanced"
    return f"Checked in {len(rows)} rows: weighted recall is the accuracy; {alike}."


def line(*cells: str) -> str:
    """One row of a table."""
    return "| " + " | ".join(cells) + " |"


def keep_settings(out: Path, settings: dict[str, Any]) -> None:
    """Write the settings into `out`, or stop if what is there was made with others: rows of two kinds would mix."""
    path = out / "settings.json"
    if path.exists() and (before := json.loads(path.read_text(encoding="utf-8"))) != settings:
        raise SystemExit(f"{out} holds tables made with {before}, not {settings}. Choose another --out.")
    write(path, json.dumps(settings))


def write(path: Path, text: str) -> None:
    """Write the file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(text, encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    main()
