"""Engines as their careful users drive them, without cnnkit's backends. Each module imports its engine when it is made."""
