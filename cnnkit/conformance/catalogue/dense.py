"""Cases of dense layers, forward and backward."""

from __future__ import annotations

import numpy as np

from cnnkit.conformance.case import Case, drawn_case
from cnnkit.conformance.catalogue.probes import drawn_gradient_case, predict_case, probe_case, uniform
from cnnkit.model import Dense, Softmax

SHAPES = {
    "square": (5, 5),
    "wide": (3, 17),
    "tall": (17, 3),
    "deep": (300, 7),
    "one-feature": (1, 4),
    "one-unit": (6, 1),
    "one-number": (1, 1),
    "tiles": (64, 32),
    "past-tiles": (65, 33),
}

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
    *(
        drawn_case(
            f"dense.forward.no-bias.{name}",
            f"A dense layer without bias from {features} features to {units} units is x @ kernel",
            [Dense(units=units, use_bias=False)],
            (features,),
            batch=3,
        )
        for name, (features, units) in {"square": (5, 5), "wide": (3, 17)}.items()
    ),
    drawn_case(
        "dense.forward.stack",
        "Dense layers one behind the other each use their own kernel and bias",
        [Dense(units=5), Dense(units=5, use_bias=False), Dense(units=5), Dense(units=5)],
        (5,),
        batch=3,
    ),
    predict_case(
        "v33.dense.identity",
        "A product with the identity keeps 1024.5 and its neighbours: nothing rounds the inputs to 10 bits",
        [Dense(units=4)],
        [[1024.5, -1025.5, 2049.25, 4095.125], [0.10000001, 3.0000002, -1.0009766, 65537.0]],
        kernel_0=np.eye(4),
        bias_0=np.zeros(4),
    ),
    predict_case(
        "v33.dense.identity-image",
        "The identity times a kernel keeps 1024.5 and its neighbours: nothing rounds the kernel to 10 bits",
        [Dense(units=4)],
        np.eye(2),
        kernel_0=[[1024.5, -1025.5, 2049.25, 4095.125], [0.10000001, 3.0000002, -1.0009766, 65537.0]],
        bias_0=np.zeros(4),
    ),
    predict_case(
        "v33.dense.accumulation",
        "A sum of 5,000 ones is 5,000: it is not accumulated in 11 bits, in which it would stop at 2,048",
        [Dense(units=3)],
        np.ones((2, 5000)),
        kernel_0=np.ones((5000, 3)) * [1.0, -1.0, 0.5],
        bias_0=[0.0, 1.0, 0.25],
    ),
    drawn_case(
        "v33.dense.long-sum",
        "A sum of 4,096 products carries no more error than the precision makes",
        [Dense(units=5)],
        (4096,),
    ),
    *(
        drawn_gradient_case(
            f"dense.gradient.{name}",
            f"Kernel and bias of a dense layer from {features} features to {units} units get their gradients",
            [Dense(units=units), Softmax()],
            (features,),
            batch=4,
        )
        for name, (features, units) in {
            "square": (5, 5),
            "wide": (3, 17),
            "tall": (17, 3),
            "deep": (300, 7),
            "one-feature": (1, 4),
        }.items()
    ),
    drawn_gradient_case(
        "dense.gradient.no-bias",
        "A dense layer without bias has a gradient for its kernel alone",
        [Dense(units=4, use_bias=False), Softmax()],
        (5,),
        batch=4,
    ),
    drawn_gradient_case(
        "dense.gradient.sandwich",
        "The gradient passes through a dense layer to the one before it",
        [Dense(units=6), Dense(units=7, use_bias=False), Dense(units=4), Softmax()],
        (5,),
        batch=4,
    ),
    drawn_gradient_case(
        "dense.gradient.square-stack",
        "The gradient passes backward through square kernels turned over",
        [Dense(units=4), Dense(units=4), Dense(units=4), Softmax()],
        (4,),
        batch=4,
    ),
    probe_case(
        "dense.gradient.input",
        "Every feature of every row gets its own gradient through a dense layer",
        [Dense(units=6)],
        uniform((4, 5)),
    ),
]
