"""Imports a module that is not installed."""

import cnnkit_engine_that_nobody_has  # noqa: F401 - the point of it
