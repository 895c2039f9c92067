"""All cases of the suite, in the order in which they run: what is simple first, what rests on it after."""

from __future__ import annotations

from functools import cache

from cnnkit.conformance.case import Case


@cache
def all_cases() -> tuple[Case, ...]:
    """Every case. Ids are unique."""
    from cnnkit.conformance.catalogue import (
        activations,
        batches,
        combinations,
        combined_training,
        company,
        conduct,
        convolution,
        crossed,
        dense,
        epochs,
        layouts,
        literals,
        mistakes,
        networks,
        nonfinite,
        optimizers,
        pooling,
        preprocessing,
        relations,
        scores,
        sizes,
        states,
        ways,
    )

    modules = (
        literals,
        dense,
        convolution,
        pooling,
        activations,
        preprocessing,
        scores,
        sizes,
        nonfinite,
        relations,
        layouts,
        conduct,
        company,
        mistakes,
        optimizers,
        epochs,
        batches,
        ways,
        states,
        combinations,
        crossed,
        combined_training,
        networks,
    )
    cases = tuple(case for module in modules for case in module.CASES)
    ids = [case.id for case in cases]
    repeated = sorted({name for name in ids if ids.count(name) > 1})
    if repeated:
        raise AssertionError(f"two cases are called {', '.join(repeated)}")
    return cases
