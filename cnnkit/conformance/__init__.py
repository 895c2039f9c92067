"""The conformance suite: what every backend must pass, shipped with cnnkit and run by one command."""

SUITE_VERSION = "1.0"
