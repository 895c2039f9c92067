"""The command line: parse, call, print."""

from cnnkit.cli.app import main

__all__ = ["main"]
