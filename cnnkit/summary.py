"""What a model costs: output shapes, parameters, multiply-adds, activation memory and receptive fields, layer by layer."""

from __future__ import annotations

import json
import math
import textwrap
from dataclasses import asdict, dataclass
from typing import Any

from cnnkit.arrays import Shape, times
from cnnkit.model import AvgPool2D, MaxPool2D
from cnnkit.plan import (
    AvgPool2DOp,
    Conv2DOp,
    DenseOp,
    MaxPool2DOp,
    Operation,
    Pair,
    Plan,
)
from cnnkit.tables import html_table, text_table

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class LayerSummary:
    """One row: `multiply_adds` and `activation_bytes` are for one image, the latter in float32."""

    index: int
    kind: str
    settings: str
    output_shape: Shape
    parameters: int
    multiply_adds: int
    activation_bytes: int
    receptive_field: Pair | None
    """The patch of the input (height, width) that one output value looks at; None where there are no pixels."""


@dataclass(frozen=True)
class Summary:
    """The rows and their totals. `print(summary)` gives a table, `_repr_html_` the same for a notebook."""

    name: str | None
    input_shape: Shape
    layers: tuple[LayerSummary, ...]
    parameters: int
    multiply_adds: int
    activation_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def to_json(self) -> str:
        """The same as JSON text."""
        return json.dumps(self.to_dict(), indent=2)

    def _table(self) -> list[tuple[str, ...]]:
        head = ("", "layer", "settings", "output", "parameters", "multiply-adds", "activations", "receptive field")
        body: list[tuple[str, ...]] = [
            (
                str(row.index),
                row.kind,
                row.settings,
                times(row.output_shape),
                f"{row.parameters:,}",
                f"{row.multiply_adds:,}",
                _bytes(row.activation_bytes),
                times(row.receptive_field) if row.receptive_field else "",
            )
            for row in self.layers
        ]
        totals = (f"{self.parameters:,}", f"{self.multiply_adds:,}", _bytes(self.activation_bytes))
        first = ("", "input", "", times(self.input_shape), "", "", "", "")
        return [head, first, *body, ("", "total", "", "", *totals, "")]

    def text(self, width: int | None = None) -> str:
        """The table; where it is wider than `width`, in characters, the settings stand in lines of their own."""
        head, *body = self._table()
        lines = text_table(head, body, left=LEFT_COLUMNS).split("\n")
        if width is not None and max(map(len, lines)) > width:
            lines = _narrow(head, body, width)
        rule = "─" * max(map(len, lines))
        title = f"{self.name or 'model'} (one image, float32)"
        return "\n".join([title, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]])

    def __str__(self) -> str:
        return self.text()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head, *body = self._table()
        title = f"{self.name or 'model'} (one image, float32)"
        return html_table(head, body, caption=title, left=LEFT_COLUMNS, wrapped={SETTINGS_COLUMN})


def _narrow(head: tuple[str, ...], body: list[tuple[str, ...]], width: int) -> list[str]:
    """The lines of the table with the settings of a layer below it, and short names over the last columns."""

    def without(row: tuple[str, ...]) -> tuple[str, ...]:
        return row[:SETTINGS_COLUMN] + row[SETTINGS_COLUMN + 1 :]

    short = (*without(head)[:-1], "field")
    first, *lines = text_table(short, map(without, body), left={1, 2, 6}).split("\n")
    indent = " " * (max(len(row[0]) for row in body) + 4)
    shown = [first]
    for line, row in zip(lines, body, strict=True):
        shown += [line, *textwrap.wrap(row[SETTINGS_COLUMN], width, initial_indent=indent, subsequent_indent=indent)]
    return shown


LEFT_COLUMNS = {1, 2, 3, 7}
"""Of the table: words and shapes; the other columns are numbers."""

SETTINGS_COLUMN = 2
"""Of the table: only settings may grow long."""


def summarize(plan: Plan) -> Summary:
    """The summary of a plan."""
    rows = []
    field: Pair | None = (1, 1) if len(plan.input_shape) == 3 else None
    jump: Pair = (1, 1)
    for index, layer in enumerate(plan.model.layers):
        operations = [operation for operation in plan.operations if operation.layer == index]
        for operation in operations:
            field, jump = _receptive_field(plan, operation, field, jump)
        settings = layer.model_dump(exclude={"kind", "kernel_initializer"}, exclude_defaults=True)
        if isinstance(layer, MaxPool2D | AvgPool2D):
            settings = {"pool_size": layer.pool_size, **settings}  # what everybody looks for, default or not
        rows.append(
            LayerSummary(
                index=index,
                kind=layer.kind,
                settings=" ".join(f"{name}={_setting(value)}" for name, value in settings.items()),
                output_shape=plan.layer_shapes[index],
                parameters=sum(parameter.size for parameter in plan.parameters if parameter.layer == index),
                multiply_adds=sum(map(multiply_adds, operations)),
                activation_bytes=math.prod(plan.layer_shapes[index]) * FLOAT32_BYTES,
                receptive_field=field,
            )
        )
    return Summary(
        name=plan.model.name,
        input_shape=plan.input_shape,
        layers=tuple(rows),
        parameters=sum(row.parameters for row in rows),
        multiply_adds=sum(row.multiply_adds for row in rows),
        activation_bytes=sum(row.activation_bytes for row in rows),
    )


def multiply_adds(operation: Operation) -> int:
    """Multiplications, each with its addition, of one forward pass of one image through a convolution or dense layer."""
    match operation:
        case Conv2DOp(kernel_size=(height, width), input_shape=(*_, channels), output_shape=output):
            return height * width * channels * math.prod(output)
        case DenseOp(input_shape=(features,), units=units):
            return features * units
        case _:
            return 0


def _receptive_field(plan: Plan, operation: Operation, field: Pair | None, jump: Pair) -> tuple[Pair | None, Pair]:
    """Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks" (2019), in one step.

    `jump` is the distance in input pixels between neighbouring values. A field may reach over the image's edge, into
    padding; a dense layer sees the whole image.
    """
    if field is None:
        return None, jump
    match operation:
        case Conv2DOp(kernel_size=size, strides=strides, dilation=dilation):
            pass
        case MaxPool2DOp(pool_size=size, strides=strides) | AvgPool2DOp(pool_size=size, strides=strides):
            dilation = (1, 1)
        case DenseOp():
            return (plan.input_shape[0], plan.input_shape[1]), jump
        case _:
            return field, jump
    grown = (
        field[0] + (size[0] - 1) * dilation[0] * jump[0],
        field[1] + (size[1] - 1) * dilation[1] * jump[1],
    )
    return grown, (jump[0] * strides[0], jump[1] * strides[1])


def _setting(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, tuple):
        return "(" + ",".join(map(_setting, value)) + ")"
    return str(value)


def _bytes(count: int) -> str:
    return f"{count:,} B" if count < 1024 else f"{count / 1024:,.1f} KiB"
