"""What cnnkit learns of the backend before PyTorch is imported, and how it is created."""

import importlib.util
import subprocess
import sys
import tomllib

import cnnkit
import pytest
import torch
from cnnkit import plugins
from cnnkit.errors import BackendOptionError, BackendUnavailable, OptionError

from cnnkit_torch import plugin


def test_the_listing_shows_the_backend_as_ready_with_the_version_of_pytorch():
    found = cnnkit.backends()["torch"]
    assert (found.state, found.devices, found.distribution) == ("ready", ("cpu",), "cnnkit-torch")
    assert torch.__version__.startswith(found.versions["torch"])  # which may go on with the build, as in 2.13.0+cpu


def test_asking_about_the_backend_does_not_import_pytorch():
    code = (
        "import sys; from cnnkit import plugins;"
        "assert plugins.status('torch').ready; assert plugins.deviations('torch').is_file();"
        "assert 'cnnkit_torch.plugin' in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_without_pytorch_the_probe_names_the_command_that_installs_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # noqa: ARG005 - called as the original is
    found = plugin.cnnkit_probe(device=None)
    assert (found.state, found.fix) == ("missing-dependency", "Install it with: python -m pip install torch")


def test_another_device_is_refused_and_not_replaced():
    with pytest.raises(BackendUnavailable, match=r"no-device.*runs on the CPU, not on 'cuda'"):
        cnnkit.get_backend("torch", device="cuda")


def test_the_ledger_has_no_deviation():
    ledger = tomllib.loads(plugins.deviations("torch").read_text())
    assert ledger == {"version": 1, "level": "training"}


@pytest.mark.parametrize("threads", [0, -1, 1.0, True, "2"])
def test_a_wrong_number_of_threads_is_refused(threads):
    with pytest.raises(BackendOptionError, match=rf"threads is {threads!r}; expected a whole number of at least 1"):
        cnnkit.get_backend("torch", threads=threads)


def test_an_unknown_option_is_refused_with_those_that_are_known():
    with pytest.raises(OptionError, match="threads"):
        cnnkit.get_backend("torch", thread=2)
