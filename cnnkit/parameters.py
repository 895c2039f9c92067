"""The numbers that a model learns: named NumPy arrays, drawn on the host from a seed, by formula.

=================  =====================================================================  ==============================
`glorot_uniform`   uniform on ±sqrt(6 / (fan_in + fan_out))                               Glorot and Bengio (2010), eq. 16
`glorot_normal`    normal with standard deviation sqrt(2 / (fan_in + fan_out))            Glorot and Bengio (2010), eq. 12
`he_uniform`       uniform on ±sqrt(6 / fan_in)                                           He et al. (2015), eq. 10
`he_normal`        normal with standard deviation sqrt(2 / fan_in)                        He et al. (2015), eq. 10
`zeros`            every bias
=================  =====================================================================  ==============================

For a convolution `fan_in = kernel_height * kernel_width * in_channels` and
`fan_out = kernel_height * kernel_width * filters`; for a dense layer they are its inputs and its units. The normal
distributions are not truncated.
"""

from __future__ import annotations

import math

import numpy as np

from cnnkit.arrays import Array, Parameters, dtype_of
from cnnkit.errors import DataError
from cnnkit.model import Model
from cnnkit.plan import ParameterSpec, Plan
from cnnkit.randomness import stream


def initial_parameters(model: Model, seed: int = 0, precision: str = "float32") -> dict[str, Array]:
    """The parameters with which training of `model` begins.

    Drawn in float64, one stream for each layer, then rounded to `precision`: a layer's numbers depend on the seed and
    its index alone, and float32 and float64 runs begin at the same point.
    """
    dtype = dtype_of(precision)
    return {spec.name: _draw(spec, seed).astype(dtype) for spec in model.plan().parameters}


def _draw(spec: ParameterSpec, seed: int) -> Array:
    generator = stream(seed, "initial", layer=spec.layer)
    match spec.initializer:
        case "zeros":
            return np.zeros(spec.shape)
        case "glorot_uniform":
            limit = math.sqrt(6 / (spec.fan_in + spec.fan_out))
            return generator.uniform(-limit, limit, spec.shape)
        case "glorot_normal":
            return generator.normal(0, math.sqrt(2 / (spec.fan_in + spec.fan_out)), spec.shape)
        case "he_uniform":
            limit = math.sqrt(6 / spec.fan_in)
            return generator.uniform(-limit, limit, spec.shape)
        case "he_normal":
            return generator.normal(0, math.sqrt(2 / spec.fan_in), spec.shape)


def own_parameters(plan: Plan, parameters: Parameters) -> dict[str, Array]:
    """Those of `parameters` that `plan` has: of a whole model's, what one of its prefixes takes."""
    return {spec.name: parameters[spec.name] for spec in plan.parameters if spec.name in parameters}


def check_parameters(plan: Plan, parameters: Parameters) -> None:
    """Raise `DataError` unless `parameters` has exactly the names, shapes and floating dtypes that `plan` asks for."""
    wanted = {spec.name: spec.shape for spec in plan.parameters}
    missing = [name for name in wanted if name not in parameters]
    extra = [name for name in parameters if name not in wanted]
    if missing or extra:
        said = [f"lack {', '.join(missing)}"] * bool(missing) + [f"have {', '.join(extra)} too many"] * bool(extra)
        raise DataError(
            f"parameters {' and '.join(said)}; {plan.model.title} needs {', '.join(wanted) or 'none'}. "
            "Use the parameters that were made for this model."
        )
    for name, shape in wanted.items():
        array: object = parameters[name]
        if not isinstance(array, np.ndarray) or array.shape != shape or array.dtype.kind != "f":
            raise DataError(
                f"parameter {name!r} is {_described(array)}; {plan.model.title} needs "
                f"floating-point numbers of shape {shape}. Use the parameters that were made for this model."
            )


def _described(value: object) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else f"a {type(value).__name__}"
