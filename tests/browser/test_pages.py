"""Pages that cnnkit writes, looked at in a browser: reports of runs, comparisons, reports on backends."""

import base64
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

SCHEMES, WIDTHS = ("light", "dark"), (360, 1280)
PAGES = ("run", "one-epoch", "odd-names", "all-right", "comparison", "conformance")

NAMES = (
    *("<script>alert(1)</script>", "a|b", "`x`", "[b]bold[/b]", ":cat:", "$x^2$", "名前", "<b>", "&amp;", '"quoted"'),
    *(
        "it's",
        "c*d_e",
        "Straßenbahnhaltestelle mit einem sehr langen Namen",
        "\u202eevil",
        "#1",
        "@everyone",
        "100%",
        "-",
    ),
    *("x" * 70, "the last"),
)


def cnnkit(folder, *arguments):
    command = [sys.executable, "-m", "cnnkit", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def save_patches(path, names):
    """Colour images of as many classes as there are names: two bright pixels, whose place and colour are the class."""

    def drawn(count, seed):
        labels = np.arange(count) % len(names)
        images = np.random.default_rng(seed).integers(0, 120, (count, 10, 10, 3), dtype=np.uint8)
        for row, label in enumerate(labels):
            images[row, label // 2 : label // 2 + 2, label % 5 * 2 : label % 5 * 2 + 2, label % 3] = 255
        return images, labels

    (x_train, y_train), (x_test, y_test) = drawn(200, 0), drawn(60, 1)
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test, class_names=names)


@pytest.fixture(scope="session")
def pages(tmp_path_factory):
    """The page of each kind by its name."""
    folder = tmp_path_factory.mktemp("pages")
    fast = ["--backend", "numpy-batched"]
    cnnkit(folder, "train", "seed-tf", "digits", *fast, "--epochs", 4, "--validation", 0.2, "--out", "run")
    cnnkit(folder, "train", "seed-numpy", "digits", *fast, "--out", "one-epoch")
    save_patches(folder / "odd.npz", NAMES)
    cnnkit(folder, "train", "seed-tf", "odd.npz", *fast, "--epochs", 2, "--out", "odd-names")
    save_patches(folder / "two.npz", ("dark", "bright"))
    cnnkit(folder, "train", "seed-tf", "two.npz", *fast, "--epochs", 12, "--out", "all-right")
    cnnkit(folder, "report", "run", "one-epoch", "odd-names", "all-right")
    cnnkit(folder, "conformance", "numpy", "--only", "dense.forward.*", "--html", "conformance.html")
    found = {name: folder / name / "report.html" for name in PAGES}
    return found | {name: folder / f"{name}.html" for name in ("comparison", "conformance")}


LOOKS = [(name, width, scheme) for name in PAGES for width in WIDTHS for scheme in SCHEMES]
# The one with thousands of rows takes axe half a minute each time: it is looked at in one scheme for each width.
LOOKS = [look for look in LOOKS if look[0] != "conformance" or look[1:] in ((360, "light"), (1280, "dark"))]


@pytest.mark.parametrize(("name", "width", "scheme"), LOOKS)
def test_the_page_is_whole_quiet_and_can_be_used_by_all(browser, pages, name, width, scheme):
    page = pages[name]
    browser.open(page, width=width, scheme=scheme)
    assert browser.requests() == [page.as_uri()]
    assert browser.complaints() == []
    assert browser.overflow() == []
    assert browser.ask("[...document.images].every(one => one.complete && one.naturalWidth > 0)")
    browser.screenshot(f"{name}-{width}-{scheme}")
    assert browser.violations() == []


@pytest.mark.parametrize("name", PAGES)
def test_the_page_prints(browser, pages, name):
    browser.open(pages[name])
    made = browser.print()
    assert made.startswith(b"%PDF-")
    assert made.rstrip().endswith(b"%%EOF")
    assert len(made) > 20_000


def test_what_is_wider_than_the_screen_scrolls_by_the_keyboard(browser, pages):
    from selenium.webdriver.common.keys import Keys

    browser.open(pages["odd-names"], width=360)
    matrix = browser.ask("document.querySelector('#matrix').parentElement")
    browser.driver.execute_script("arguments[0].focus()", matrix)
    matrix.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    for _ in range(50):
        if browser.driver.execute_script("return arguments[0].scrollLeft", matrix) > 0:
            break
        time.sleep(0.1)
    assert browser.driver.execute_script("return arguments[0].scrollLeft", matrix) > 0


@pytest.mark.parametrize("scheme", SCHEMES)
def test_paper_and_curves_are_dark_where_the_screen_is(browser, pages, scheme):
    browser.open(pages["run"], scheme=scheme)
    box = browser.ask("JSON.parse(JSON.stringify(document.querySelector('#curves img').getBoundingClientRect()))")
    shot = browser.command("Page.captureScreenshot", captureBeyondViewport=True, clip={**_corner(box), "scale": 1})
    image = Image.open(io.BytesIO(base64.b64decode(shot["data"]))).convert("L")
    darkest, brightest = image.getextrema()
    assert darkest == brightest
    assert (brightest < 60) == (scheme == "dark")
    colour = browser.ask("getComputedStyle(document.body).backgroundColor")
    assert colour == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 27)"}[scheme]


def _corner(box):
    """The upper left corner of a picture, where there is nothing but paper."""
    return {"x": box["x"] + 2, "y": box["y"] + 2, "width": 4, "height": 4}


# --------------------------------------------------------------------------------------------- the tests of the tests

BAD = """\
<!DOCTYPE html><html lang="en"><head><title>Bad</title></head>
<body><main><h1>Bad</h1><p style="width: 2000px">wide</p><img src="PICTURE"><p style="color: #bbb">pale</p>
<script>console.error("unwell")</script></main></body></html>
"""


@pytest.fixture
def bad(tmp_path):
    (tmp_path / "picture.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    path = Path(tmp_path, "bad.html")
    path.write_text(BAD.replace("PICTURE", (tmp_path / "picture.svg").as_uri()))
    return path


def test_a_page_that_is_none_of_this_is_seen(browser, bad):
    browser.open(bad, width=360)
    assert len(browser.requests()) == 2
    assert "unwell" in browser.complaints()[0]
    assert len(browser.overflow()) == 2
    found = browser.violations()
    assert any(line.startswith("image-alt") for line in found)
    assert any(line.startswith("color-contrast") for line in found)
