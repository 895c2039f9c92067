"""Is written for a plugin interface that is still to come."""

from cnnkit.errors import BackendError
from cnnkit.plugins import Availability, hookimpl

cnnkit_plugin_api = 99


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend():
    raise BackendError("This plugin is here to be refused, not to be used.")
