"""Says that it is ready and creates nothing."""

from cnnkit.plugins import Availability, hookimpl


@hookimpl
def cnnkit_probe():
    return Availability.ready(["cpu"])


@hookimpl
def cnnkit_create_backend():
    return None
