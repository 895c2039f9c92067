"""Broken backends that judge the conformance suite: every one must turn it red, at the cases meant for it."""

from mutants import (
    combined,
    conduct,
    convolutions,
    dropping,
    epochs,
    gradients,
    layers,
    optimizing,
    pooling,
    precision,
    scores,
)
from mutants.breaking import MUTANTS, TOO_LITTLE_RAN, Mutant

__all__ = [
    "MUTANTS",
    "TOO_LITTLE_RAN",
    "Mutant",
    "combined",
    "conduct",
    "convolutions",
    "dropping",
    "epochs",
    "gradients",
    "layers",
    "optimizing",
    "pooling",
    "precision",
    "scores",
]
