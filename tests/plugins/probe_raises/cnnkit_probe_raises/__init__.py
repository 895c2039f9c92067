"""Raises in its probe, and what is behind that is an import."""

from cnnkit.errors import BackendError
from cnnkit.plugins import hookimpl


@hookimpl
def cnnkit_probe():
    try:
        import cnnkit_driver_that_nobody_has  # noqa: F401 - the point of it
    except ImportError as error:
        raise RuntimeError("the driver did not start") from error


@hookimpl
def cnnkit_create_backend():
    raise BackendError("This plugin is here to be refused, not to be used.")
