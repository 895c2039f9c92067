"""Finds no device, and says why and what to do."""

from cnnkit.errors import BackendError
from cnnkit.plugins import Availability, hookimpl


@hookimpl
def cnnkit_probe():
    return Availability.no_device("finds no abacus.", "Plug in an abacus", ["fingers"])


@hookimpl
def cnnkit_create_backend():
    raise BackendError("This plugin is here to be refused, not to be used.")
