"""Raises when it is imported, from the error that is the root of it."""

try:
    {}["engine"]
except KeyError as error:
    raise RuntimeError("the engine is not set up") from error
