"""Cases of dense layers, forward and backward."""

from __future__ import annotations

from cnnkit.conformance.case import Case, drawn_case
from cnnkit.model import Dense, Softmax

SHAPES = {"square": (5, 5), "wide": (3, 17), "deep": (300, 7), "one-feature": (1, 4), "one-unit": (6, 1)}

CASES: list[Case] = [
    *(
        drawn_case(
            f"dense.forward.{name}",
            f"A dense layer from {features} features to {units} units is x @ kernel + bias",
            [Dense(units=units)],
            (features,),
            batch=3,
        )
        for name, (features, units) in SHAPES.items()
    ),
    drawn_case(
        "dense.gradient.sandwich",
        "The gradient passes through a dense layer to the one before it",
        [Dense(units=6), Dense(units=7, use_bias=False), Dense(units=4), Softmax()],
        (5,),
        "gradients",
        batch=4,
    ),
]
