"""Ends the interpreter when it is imported, or would like to."""

import sys

sys.exit("no licence found")
