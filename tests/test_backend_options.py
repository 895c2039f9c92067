"""docs/reference/backend-options.md lists the options, devices and precisions that the backends have."""

import importlib
import re
from pathlib import Path

import pytest

from cnnkit.errors import BackendOptionError

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "reference" / "backend-options.md").read_text("utf-8")
ROWS = re.findall(r"^\| `([\w-]+)` \| (.*?) \| (.*?) \| (.*?)\|$", PAGE, re.MULTILINE)
PLUGINS = {
    "numpy": "cnnkit_numpy.plugin",
    "numpy-batched": "cnnkit_batched.plugin",
    "cupy": "cnnkit_cupy.plugin",
    "tensorflow": "cnnkit_tensorflow.plugin",
}


def coded(text):
    """The words of `text` in back quotes."""
    return re.findall(r"`(\w+)`", text)


def test_the_page_has_all_backends_that_come_along():
    assert [name for name, *_ in ROWS] == list(PLUGINS)


@pytest.mark.parametrize(("name", "devices", "options", "precisions"), ROWS)
def test_a_row_has_what_the_plugin_knows(name, devices, options, precisions):
    plugin = importlib.import_module(PLUGINS[name])
    with pytest.raises(BackendOptionError, match=f"its options are {', '.join(coded(options))}\\. ") as raised:
        plugin.cnnkit_create_backend(None, "float32", {"no such option": 1})
    assert name in str(raised.value)
    own = plugin.cnnkit_precisions() if hasattr(plugin, "cnnkit_precisions") else {}
    assert coded(precisions) == list(own)
    assert devices.startswith("gpu" if name == "cupy" else "cpu")


@pytest.mark.parametrize(("name", "options"), [(name, options) for name, _, options, _ in ROWS])
def test_every_option_of_a_backend_is_told_in_its_section(name, options):
    section = PAGE.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    assert [option for option in coded(options) if f"`{option}`" not in section] == []
