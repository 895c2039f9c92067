"""A browser that looks at pages as people do: Chromium, driven by Selenium, offline.

CNNKIT_AXE names axe.min.js of the npm package axe-core; CNNKIT_SCREENSHOTS a folder that gets a picture of every page.
CNNKIT_REQUIRE_BROWSER=1 makes a lack of Chromium, its driver, Selenium or axe a failure.
"""

import base64
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
OPTIONS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--hide-scrollbars", "--force-color-profile=srgb"),
)
WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")

# Read before any test clears it.
_REQUIRED = os.environ.get("CNNKIT_REQUIRE_BROWSER") == "1"
_AXE, _SCREENSHOTS = (os.environ.get(f"CNNKIT_{name}") for name in ("AXE", "SCREENSHOTS"))


@dataclass
class Browser:
    """A page at a time: `open` it, then look."""

    driver: Any
    axe: str
    page: Path | None = None

    def open(self, page, *, width=1280, height=900, scheme="light"):
        """Open a file as somebody does who clicks on it, on a screen of that width, in light or dark."""
        self.page = Path(page)
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        self.command("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(self.page.resolve().as_uri())

    def command(self, name, **arguments):
        """A command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(name, arguments)

    def ask(self, script):
        """What the page answers to a piece of JavaScript."""
        return self.driver.execute_script(f"return {script}")

    def requests(self):
        """The addresses that were asked for since `open`, without what stands in the page itself."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [
            message["params"]["request"]["url"]
            for message in messages
            if message["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in sent if not address.startswith("data:")]

    def complaints(self):
        """What stands in the console since `open`: errors and warnings."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def overflow(self):
        """What reaches out of the screen to the right, but for what stands in something that scrolls by itself."""
        return self.driver.execute_script(
            """
            const edge = window.innerWidth, found = [];
            const scrolls = one => one && one !== document.body
                && (["auto", "scroll", "hidden"].includes(getComputedStyle(one).overflowX) || scrolls(one.parentElement));
            if (document.documentElement.scrollWidth > edge) found.push(`the page, ${document.documentElement.scrollWidth}`);
            for (const one of document.querySelectorAll("body *"))
                if (one.getBoundingClientRect().right > edge + 1 && !scrolls(one.parentElement))
                    found.push(one.outerHTML.slice(0, 120));
            return found;
            """
        )

    def violations(self):
        """What axe-core finds: one line for each element that breaks a rule of WCAG 2.2 A or AA, or a good practice."""
        self.driver.execute_script(self.axe)
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run(document, {resultTypes: ['violations']}).then(done,"
            " error => done({violations: [{id: String(error), nodes: [{html: '', failureSummary: ''}]}]}))"
        )
        return [
            f"{rule['id']}: {node['html'][:200]} {node['failureSummary']}"
            for rule in found["violations"]
            for node in rule["nodes"]
        ]

    def screenshot(self, name):
        """Write a picture of the whole page to the folder CNNKIT_SCREENSHOTS, if there is one."""
        if _SCREENSHOTS:
            height = min(self.ask("document.documentElement.scrollHeight"), 16_000)
            width = self.ask("window.innerWidth")
            clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
            shot = self.command("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
            folder = Path(_SCREENSHOTS)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))

    def print(self):
        """The page as the bytes of a PDF file, as A4."""
        made = self.command(
            "Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True, printBackground=False
        )
        return base64.b64decode(made["data"])


@pytest.fixture(scope="session")
def _driver(tmp_path_factory):
    try:
        from selenium import webdriver
    except ImportError:
        _lacking("selenium is not installed: pip install 'cnnkit[browser]'")
    for program in (CHROMIUM, DRIVER):
        if not program.exists():
            _lacking(f"{program} is not there: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="session")
def _axe():
    if not _AXE or not Path(_AXE).is_file():
        _lacking("CNNKIT_AXE names no axe.min.js; npm install axe-core brings one")
    return Path(_AXE).read_text(encoding="utf-8")


@pytest.fixture
def browser(_driver, _axe):
    """A browser with axe-core: open any file in it, and ask what is wrong with the page."""
    return Browser(_driver, _axe)


def _lacking(what):
    if _REQUIRED:
        pytest.fail(f"CNNKIT_REQUIRE_BROWSER=1, but {what}")
    pytest.skip(what)
