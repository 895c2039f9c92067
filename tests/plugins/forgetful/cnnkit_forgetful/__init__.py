"""Is not ready and forgets to say why, and what to do."""

from cnnkit.errors import BackendError
from cnnkit.plugins import Availability, hookimpl


@hookimpl
def cnnkit_probe():
    return Availability("no-device")


@hookimpl
def cnnkit_create_backend():
    raise BackendError("This plugin is here to be refused, not to be used.")
