"""The site that Sphinx makes of docs/, looked at in a browser. CNNKIT_SITE names the folder that it was built into."""

import os
from pathlib import Path

import pytest

_SITE = os.environ.get("CNNKIT_SITE")
PAGES = (
    "index",
    "tutorial/first-model",
    "story/convolution",
    "story/results",
    "how-to/pictures",
    "reference/command-line",
)
THEIRS = "landmark-unique"
"""A rule of good practice, none of WCAG, that the theme's own frame around the pages breaks: it has two nameless asides."""


@pytest.fixture
def site():
    if not _SITE:
        pytest.skip("CNNKIT_SITE names no folder with the site: python -m sphinx -W -b html docs FOLDER")
    return Path(_SITE)


@pytest.mark.parametrize("width", [360, 1280])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_the_site_is_complete_and_can_be_used_by_all(browser, site, page, width):
    browser.open(site / f"{page}.html", width=width)
    assert [address for address in browser.requests() if not address.startswith(site.as_uri())] == []
    assert [said for said in browser.complaints() if "favicon" not in said] == []
    assert browser.ask("document.documentElement.scrollWidth") <= width
    broken = browser.ask("[...document.images].filter(one => !one.naturalWidth).map(one => one.src)")
    assert broken == []
    assert [found for found in browser.violations() if not found.startswith(THEIRS)] == []
    browser.screenshot(f"site-{page.replace('/', '-')}-{width}")


def test_the_example_report_is_on_the_site(browser, site):
    browser.open(site / "index.html")
    browser.driver.find_element("link text", "a report").click()
    assert "Report of a run" in browser.ask("document.body.innerText")


def test_every_picture_has_words(browser, site):
    browser.open(site / "how-to" / "pictures.html")
    words = browser.ask("[...document.images].map(one => one.alt)")
    assert words
    assert [alt for alt in words if len(alt) < 20] == []
