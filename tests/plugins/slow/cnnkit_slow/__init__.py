"""Hangs in its probe."""

import time

from cnnkit.errors import BackendError
from cnnkit.plugins import Availability, hookimpl


@hookimpl
def cnnkit_probe():
    time.sleep(600)
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend():
    raise BackendError("This plugin is here to be refused, not to be used.")
