"""The page of a report as a page: closed in itself, readable by a screen reader, the same every time."""

import base64
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from xml.dom import minidom

import pytest

from cnnkit.report import compare, document_of, write_report
from cnnkit.report.page import DARKENED, to_html
from cnnkit.report.style import DARK, LIGHT, SHADES, STYLE, shades


@pytest.fixture(params=["run", "comparison"])
def page(request, studio, read):
    if request.param == "run":
        return read(studio / "a run" / "report.html")
    return read(compare([studio / "a run", studio / "seed-0", studio / "one"]))


# ------------------------------------------------------------------------------------------------------------ safe


def test_nothing_comes_from_elsewhere_and_nothing_runs(page):
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "header", "main", "footer", "nav", "section", "h1", "h2"),
        *(
            "p",
            "b",
            "a",
            "ol",
            "li",
            "dl",
            "dt",
            "dd",
            "div",
            "span",
            "code",
            "pre",
            "wbr",
            "figure",
            "figcaption",
            "img",
        ),
        *("table", "caption", "thead", "tbody", "tr", "th", "td"),
    }
    addresses = [given[name] for _, given in page.tags for name in ("src", "href", "srcset", "action") if name in given]
    assert addresses
    assert [one[:40] for one in addresses if not one.startswith(("#", "data:image/svg+xml;base64,"))] == []
    assert [name for _, given in page.tags for name in given if name.startswith("on") or name == "style"] == []
    policy = next(given for given in page.all("meta") if given.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'; ")
    assert "url(" not in STYLE
    assert "@import" not in STYLE


def test_names_are_text_whatever_is_in_them(page):
    assert '<script>alert(1)</script> " onload="x" & | `x` $y$ @all ' in page.text
    assert "\u202e" not in page.text
    assert "\x00" not in page.text


# ------------------------------------------------------------------------------------------------------ for all readers


def test_pictures_are_whole_whatever_the_classes_are_called(page):
    """A browser shows nothing of a picture with a control character in it."""
    sources = [image["src"].partition("base64,")[2] for image in page.all("img")]
    assert sources
    for source in sources:
        minidom.parseString(base64.b64decode(source))  # noqa: S318 - our own


def test_headings_are_in_order(page):
    levels = [level for level, _ in page.headings]
    assert levels[0] == 1
    assert set(levels[1:]) == {2}
    assert [text.partition(". ")[0] for _, text in page.headings[1:]] == [str(n) for n in range(1, len(levels))]


def test_tables_have_captions_and_headings_on_both_sides(page):
    assert len(page.tables) >= 3
    assert all(page.captions.values())
    assert {given.get("scope") for given in page.all("th")} <= {"col", "row", "colgroup"}
    rows = sum(len(rows) for rows in page.tables.values())
    assert sum(given["scope"] == "row" for given in page.all("th")) == rows - len(page.tables) - (
        "matrix" in page.tables
    )


def test_tables_and_figures_are_numbered_and_what_is_named_is_there(page):
    numbers = [caption.partition(".")[0] for caption in page.captions.values()]
    assert numbers == [f"Table {number}" for number in range(1, len(numbers) + 1)]
    figures = re.findall(r"Figure (\d+)\. ", page.text)
    assert figures == [str(number) for number in range(1, len(page.all("figure")) + 1)]
    ids = [given["id"] for _, given in page.tags if "id" in given]
    assert len(set(ids)) == len(ids)
    assert {given["href"][1:] for given in page.all("a")} <= set(ids)
    assert {name for _, given in page.tags for name in given.get("aria-labelledby", "").split()} <= set(ids)


def test_pictures_have_words_and_what_scrolls_can_be_reached_by_the_keyboard(page):
    assert page.all("img")
    assert all(len(given["alt"]) > 40 for given in page.all("img"))
    wide = [given for _, given in page.tags if given.get("class") == "wide"]
    assert len(wide) == len(page.tables) + len(page.all("img"))
    assert all(given["tabindex"] == "0" and given["role"] == "region" and given["aria-labelledby"] for given in wide)


def test_the_page_says_its_language_and_its_title(page):
    assert page.all("html") == [{"lang": "en"}]
    title = page.text.strip().partition("\n")[0]
    assert title.startswith(("Report of a run: own & <i>odd</i> classifies", "Comparison of runs: "))


def contrast(one, other):
    """Of two colours, as WCAG 2.2 defines it."""

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_text_can_be_read(colours):
    for text in ("ink", "soft", "link", "warning"):
        assert contrast(colours[text], colours["paper"]) >= 4.5
        assert contrast(colours[text], colours["shade"]) >= 4.5
    steps = shades(colours)
    assert len(steps) == SHADES + 1
    assert (steps[0], steps[-1]) == (colours["paper"], colours["heat"])
    assert all(contrast(colours["ink"], step) >= 4.5 for step in steps)
    assert contrast(steps[1], steps[0]) > 1.05, "one mistake in a hundred can be seen"


def test_lines_of_pictures_can_be_seen_on_dark_paper():
    for light, dark in DARKENED.items():
        if light != "#ffffff":
            least = 1.4 if light == "#d5d9de" else 3  # the grid need not be read
            assert contrast(dark, DARK["paper"]) >= least, light
    assert DARKENED["#ffffff"] == DARK["paper"]


def test_every_colour_that_the_curves_are_drawn_with_has_one_for_dark_paper(run):
    figure = document_of([run]).figures()[0]
    assert figure.dark
    assert set(re.findall(r"#[0-9a-f]{6}", figure.picture.svg())) <= set(DARKENED)


# ------------------------------------------------------------------------------------------------------------- the same


def test_the_same_folder_gives_the_same_bytes_wherever_it_lies(studio, run, tmp_path):
    program = (
        "import sys, hashlib, pathlib; from cnnkit.report import write_report\n"
        "print(hashlib.sha256(write_report(sys.argv[1]).read_bytes()).hexdigest())"
    )
    shutil.copytree(run, tmp_path / "elsewhere" / "b")
    environment = {**os.environ, "PYTHONHASHSEED": "4711", "MATPLOTLIBRC": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program, "elsewhere/b"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == hashlib.sha256((studio / "a run" / "report.html").read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------------- without matplotlib

WITHOUT = """\
import sys
sys.modules["matplotlib"] = None
from cnnkit.cli import main
main()
"""


def test_without_matplotlib_there_are_all_tables_and_a_sentence_on_the_page_and_on_the_command_line(run, read):
    whole = read(run / "report.html")
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "report", str(run)], capture_output=True, text=True, check=True
    )
    assert "without pictures, since matplotlib is not installed" in done.stderr
    assert "pip install 'cnnkit[plot]'" in done.stderr
    page = read(run / "report.html")
    assert page.tables == whole.tables
    assert page.all("img") == []
    assert "pip install 'cnnkit[plot]', then cnnkit report 'a run'" in page.text
    assert "without pictures" not in whole.text


def test_training_without_matplotlib_says_how_to_get_pictures(studio, tmp_path):
    model, data = studio / "own.toml", studio / "blocks.npz"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "train", str(model), str(data), "--out", "run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "For them: pip install 'cnnkit[plot]', then cnnkit report run" in " ".join(done.stderr.split())
    assert (tmp_path / "run" / "report.html").exists()


def test_a_document_is_the_page(run):
    assert to_html(document_of([run])) == Path(write_report(run)).read_text(encoding="utf-8")
