"""Would work, if no other distribution registered the same name."""

from cnnkit.errors import BackendError
from cnnkit.plugins import Availability, hookimpl


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend():
    raise BackendError("This plugin is here to be refused, not to be used.")
