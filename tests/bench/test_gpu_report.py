"""The report of a run on a card, from figures that are made up: its JSON follows its schema, its tables can be read."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from cnnkit.bench.gpu.report import folder, to_markdown, write
from cnnkit.bench.gpu.results import Card, Conformance, GpuReport, LayerCell, Part, StepCell, schema
from cnnkit.bench.gpu.targets import judge

SCHEMA_FILE = Path(__file__).parent.parent.parent / "docs" / "reference" / "gpu-report.schema.json"
CARD = Card(name="NVIDIA H100 80GB HBM3", capability="9.0", memory_mib=81_559, driver="580.65.06", cuda="13.0")


def layer(library, way, precision, forward, **fields):
    rounds = {"forward_rounds": (forward, forward + 1, 900.0), "backward_rounds": (2 * forward,)}
    return LayerCell(
        library=library, way=way, precision=precision, layer="conv 32, from 3", batch=1024, **rounds, **fields
    )


def step(library, way, batch, seconds, images=50_000, **fields):
    return StepCell(
        library=library, way=way, precision="tf32", batch=batch, images=images, rounds=(seconds,), first_s=1.0, **fields
    )


SUITE = Conformance(
    tier="run",
    device="gpu:0",
    suite="1.0",
    verdict="green",
    level="training",
    precisions=("float32", "float64"),
    counts={"passed": 3400, "failed": 0, "refused": 2, "deviates": 0, "not-run": 0},
    seconds=120.0,
)
PARTS = tuple(Part(name=name, outcome="done", seconds=10.0) for name in ("conformance", "layers", "steps", "inference"))


def report(**fields):
    steps = (
        step("cupy", "eager", 1024, 0.15, device_mib=1234.5),
        step("cupy", "graph", 1024, 0.14, device_mib=1300.0),
        step("torch", "graph", 1024, 0.12, device_mib=2000.0),
        step("cupy", "graph", 64, 0.30, device_mib=300.0),
    )
    given = {
        "made": "2026-11-24T12:00:00+00:00",
        "command": "cnnkit bench --gpu",
        "seconds": 400.0,
        "budget": 480.0,
        "quick": False,
        "backend": "cupy",
        "device": "gpu:0",
        "card": CARD,
        "machine": {"cpu": "Xeon", "platform": "Linux-6", "cores": 16, "load_before": 0.1, "python": "3.11.9"},
        "versions": {"cnnkit": "0.1.0", "torch": "2.13.0"},
        "parts": PARTS,
        "conformance": SUITE,
        "layers": (layer("cupy", "im2col", "float32", 50.0), layer("torch", "eager", "float32", 40.0)),
        "steps": steps,
        "inference": (step("cupy", "default", 1024, 0.05, device_mib=100.0),),
        **fields,
    }
    return GpuReport(**{"targets": judge(given["steps"], "cupy", CARD.name, quick=given["quick"]), **given})


BAD_STEP = step("torch", "eager", 64, 0.1, problems=("RuntimeError: a | b\nand more",))


def test_the_published_schema_is_a_schema_and_that_of_the_code():
    Draft202012Validator.check_schema(schema())
    assert SCHEMA_FILE.read_text(encoding="utf-8") == json.dumps(schema(), indent=2) + "\n"


@pytest.mark.parametrize(
    "fields", [{}, {"conformance": None, "layers": (), "steps": (), "inference": ()}, {"steps": (BAD_STEP,)}]
)
def test_what_is_written_is_what_the_schema_says(fields):
    assert list(Draft202012Validator(schema()).iter_errors(json.loads(report(**fields).to_json()))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data.update(format=2),
        lambda data: data["conformance"].update(tier="plan"),
        lambda data: data["conformance"].update(verdict="plan"),
        lambda data: data.pop("card"),
        lambda data: data["card"].update(name=""),
        lambda data: data["targets"][0].update(outcome="nearly"),
        lambda data: data["steps"][0].pop("seconds_50k"),
        lambda data: data.update(more=1),
    ],
)
def test_the_schema_refuses_what_no_report_is(change):
    data = json.loads(report().to_json())
    change(data)
    assert list(Draft202012Validator(schema()).iter_errors(data))


def test_medians_are_written_for_50000_images_and_not_where_they_do_not_count():
    data = json.loads(report(steps=(step("cupy", "graph", 64, 0.1, images=10_000), BAD_STEP)).to_json())
    assert [cell["seconds_50k"] for cell in data["steps"]] == [0.5, None]
    assert data["layers"][0]["forward_us"] == 51.0
    assert data["layers"][0]["backward_us"] == 100.0


def rows(text, title):
    """The table behind a line that begins so, as lists of cells."""
    lines = text[text.index(title) :].splitlines()[1:]
    start = next(at for at, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return table


def test_people_read_who_what_where_and_when():
    text = to_markdown(report())
    assert text.startswith("# cupy on an NVIDIA H100 80GB HBM3\n")
    for said in (
        "NVIDIA H100 80GB HBM3, compute capability 9.0, 81,559 MiB",
        "580.65.06, up to CUDA 13.0",
        "cnnkit 0.1.0, torch 2.13.0",
        "2026-11-24T12:00:00+00:00",
        "`cnnkit bench --gpu`",
        "**green**: tier `run` of the suite 1.0, level training, on gpu:0, in float32 and float64: 3400 passed, 2 refused",
        "- **reached**: 50,000 images in at most 0.20 s at batch 1024. cupy, graph, tf32: 0.140 s.",
        "- **missed**: batch 64 with a graph within 1.5 times of batch 1024. cupy, graph, tf32: 0.300 s, 2.14 times",
    ):
        assert said in text
    assert "What does not count" not in text


def test_the_tables_have_a_column_for_each_way_and_a_dash_for_what_is_not_there():
    text = to_markdown(report())
    heads, _, row = rows(text, "## Layer by layer, float32, batch 1,024, microseconds")
    assert heads == [
        "Layer",
        "forward, cupy, im2col",
        "forward, torch, eager",
        "back, cupy, im2col",
        "back, torch, eager",
    ]
    assert row == ["conv 32, from 3", "51.0", "41.0", "100.0", "80.0"]
    heads, _, *found = rows(text, "## Training, tf32, seconds for 50,000 images")
    assert heads == ["Batch", "cupy, eager", "cupy, graph", "torch, graph"]
    assert found == [["64", "-", "0.300", "-"], ["1,024", "0.150", "0.140", "0.120"]]
    assert rows(text, "The card's memory at most, MiB")[3] == ["1,024", "1,234", "1,300", "2,000"]
    assert rows(text, "## Prediction, tf32")[2] == ["1,024", "0.050"]


def test_a_precision_without_figures_has_no_table_and_the_other_has_its_own():
    text = to_markdown(report(layers=(layer("cupy", "cuDNN", "tf32", 7.0),)))
    assert "## Layer by layer, float32" not in text
    assert rows(text, "## Layer by layer, tf32")[2] == ["conv 32, from 3", "8.0", "14.0"]


def test_what_does_not_count_is_told_on_one_line():
    text = to_markdown(report(steps=(BAD_STEP, step("cupy", "graph", 64, 0.1))))
    assert "- torch, eager, tf32, batch 64: RuntimeError: a \\| b and more" in text
    assert rows(text, "## Training, tf32")[2] == ["64", "-", "0.100"]


def test_a_quick_run_says_so_and_so_does_one_without_a_peer():
    text = to_markdown(report(quick=True, remarks=("There is no PyTorch.",)))
    assert "**A quick run**" in text
    assert "There is no PyTorch." in text
    assert "- **not judged**:" in text


def test_a_run_without_the_suite_does_not_look_like_one_that_passed():
    text = to_markdown(report(conformance=None))
    assert "The suite was not run." in text
    assert "green" not in text


@pytest.mark.parametrize(
    ("fields", "sound"),
    [
        ({}, True),
        ({"conformance": None}, False),
        ({"conformance": SUITE.model_copy(update={"verdict": "red"})}, False),
        ({"steps": (BAD_STEP,)}, False),
        ({"layers": (layer("cupy", "cuDNN", "tf32", 1.0, problems=("no cuDNN",)),)}, False),
        ({"parts": (*PARTS[:3], Part(name="inference", outcome="skipped", seconds=0, why="late"))}, False),
        ({"steps": (step("cupy", "graph", 1024, 9.0),)}, True),  # a target that is missed is a figure too
    ],
)
def test_a_run_is_sound_if_all_was_done_and_counts(fields, sound):
    assert report(**fields).sound is sound


def test_both_files_go_into_a_folder_by_the_name_of_the_card(tmp_path, monkeypatch):
    assert folder(report()) == Path("docs/reference/gpu/nvidia-h100-80gb-hbm3")
    assert folder(report(), tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    write(report())
    place = tmp_path / "docs" / "reference" / "gpu" / "nvidia-h100-80gb-hbm3"
    assert json.loads((place / "report.json").read_text())["card"]["name"] == CARD.name
    assert (place / "REPORT.md").read_text().startswith("# cupy on an NVIDIA H100")
