"""How the page looks: on a screen, light or dark, on a telephone, on paper. A sister of the conformance report's."""

from __future__ import annotations

from typing import Final

# Text of `ink`, `soft`, `link` and `warning` has a contrast of at least 4.5 with `paper` and `shade`, `ink` with `heat` and
# all that lies between it and `paper`; a test works it out.
LIGHT: Final = {
    "paper": "#ffffff",
    "shade": "#f4f4f1",
    "rule": "#d8d8d2",
    "ink": "#1b1c1e",
    "soft": "#585b60",
    "link": "#1a4f9c",
    "warning": "#7d5200",
    "heat": "#6ea0e6",
}

DARK: Final = {
    "paper": "#16181b",
    "shade": "#1f2226",
    "rule": "#3a3e44",
    "ink": "#e8e8e4",
    "soft": "#a9aeb5",
    "link": "#8fb8f5",
    "warning": "#e3b65c",
    "heat": "#2c5b9c",
}

SHADES: Final = 9
"""Of `heat`, above none."""

_RULES: Final = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2.5rem 1.5rem 4rem; max-width: 62rem;
  background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif;
  overflow-wrap: break-word;
}
code, pre { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .875em; }
code { overflow-wrap: anywhere; }
a { color: var(--link); }
:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
h1, h2, .headline { font-family: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "Liberation Serif", serif; }
h1 { margin: 0; font-size: 1.05rem; font-weight: 400; color: var(--soft); }
h2 { margin: 0 0 .75rem; font-size: 1.45rem; line-height: 1.2; font-weight: 600; }
p, ul, dl, pre, table, figure { margin: 0 0 1rem; }
p { max-width: 46rem; }
section { margin-top: 2.75rem; padding-top: 1.25rem; border-top: 1px solid var(--rule); }
.soft, caption, figcaption { color: var(--soft); }
.headline { margin: .25rem 0 .75rem; max-width: none; font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; }
.warning { padding-left: .9rem; border-left: 3px solid var(--warning); color: var(--warning); }
nav { margin-top: 1.5rem; font-size: .9rem; }
nav ol { display: flex; flex-wrap: wrap; gap: 0 1.1rem; margin: 0; padding: 0; list-style: none; }
nav a { display: inline-block; padding: .2rem 0; }

body.broad { max-width: 82rem; }
.key { display: flex; flex-wrap: wrap; gap: .75rem 1.5rem; margin-top: 1.25rem; }
.key dt { color: var(--soft); font-size: .8rem; overflow-wrap: anywhere; }
.key dd { margin: 0; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: .15rem 2rem; }
.facts div { display: flex; gap: .75rem; padding: .2rem 0; }
.facts dt { flex: 0 0 8rem; color: var(--soft); overflow-wrap: anywhere; }
.facts dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }

.wide { margin: 0 0 1.5rem; overflow-x: auto; }
.wide > table, figure .wide { margin: 0; }
table { width: 100%; border-collapse: collapse; font-size: .925rem; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .5rem; text-align: left; font-size: .9rem; }
caption span, figcaption { display: block; max-width: 46rem; }
caption span { position: sticky; left: 0; }
caption b, figcaption b { color: var(--ink); font-weight: 600; }
th, td { padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { font-weight: 400; }
thead th { border-top: 0; color: var(--soft); font-size: .85rem; vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
thead .number { white-space: normal; }
tbody th { min-width: 6rem; overflow-wrap: anywhere; }
.layers th, .layers td:nth-child(3), .layers td:nth-child(7) { white-space: nowrap; }
.layers thead th { white-space: normal; }

.matrix { width: auto; }
.matrix th, .matrix td, .matrix th:last-child, .matrix td:last-child { padding: .35rem .5rem; }
.matrix th:first-child { padding-left: 0; }
.matrix td { min-width: 2.6rem; border: 1px solid var(--paper); text-align: right; }
.matrix tbody th { position: sticky; left: 0; max-width: 14rem; overflow-wrap: anywhere; background: var(--paper); }
.matrix .upright { vertical-align: bottom; }
.upright span { display: inline-block; max-height: 11rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap;
  writing-mode: vertical-rl; transform: rotate(180deg); }
.matrix .corner { text-align: left; }

figure { margin-bottom: 1.75rem; }
figure img { display: block; max-width: 100%; height: auto; border-radius: 3px; }
figcaption { margin-top: .5rem; font-size: .9rem; }
pre { margin: .4rem 0 1rem; padding: .6rem .75rem; background: var(--shade); border-radius: 3px; line-height: 1.4;
  white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 3rem; padding-top: .75rem; border-top: 1px solid var(--rule); color: var(--soft); font-size: .85rem; }

@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; }
  th, td { padding-right: .5rem; }
  .key { gap: .5rem 1.5rem; }
  .matrix tbody th { max-width: 8rem; }
  .facts div { display: block; }
  caption span { width: calc(100vw - 2rem); }
  figure img { max-width: none; width: auto; height: auto; }
  figure img.broad { width: 40rem; }
  figure img.narrow { max-width: 100%; }
}
@page { margin: 18mm 15mm; @bottom-right { content: counter(page) " / " counter(pages); font: 8pt sans-serif; } }
@media print {
  body { max-width: none; padding: 0; font-size: 9.5pt; }
  section { margin-top: 1.25rem; }
  h2, caption, p:has(+ pre) { break-after: avoid; }
  tr, figure, pre, .facts div { break-inside: avoid; }
  thead { display: table-header-group; }
  .wide { overflow: visible; }
  table { font-size: .85rem; }
  .matrix { font-size: .75rem; }
  .matrix td { min-width: 0; }
  .matrix th, .matrix td, .matrix th:last-child, .matrix td:last-child { padding: .2rem .3rem; }
  td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  a { color: inherit; text-decoration: none; }
}
"""


def shades(colours: dict[str, str]) -> list[str]:
    """The colours of the cells of a matrix, from `paper` (none) to `heat` (all)."""
    ends = [[int(colours[name][at : at + 2], 16) for at in (1, 3, 5)] for name in ("paper", "heat")]
    return [
        "#" + "".join(f"{round(low + (high - low) * step / SHADES):02x}" for low, high in zip(*ends, strict=True))
        for step in range(SHADES + 1)
    ]


def _variables(colours: dict[str, str]) -> str:
    steps = {f"s{step}": colour for step, colour in enumerate(shades(colours))}
    return " ".join(f"--{name}: {colour};" for name, colour in (colours | steps).items())


STYLE: Final = (
    f":root {{ color-scheme: light dark; {_variables(LIGHT)} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}\n"
    + "\n".join(f".s{step} {{ background: var(--s{step}); }}" for step in range(1, SHADES + 1))
    + _RULES
)
"""One style sheet. Nothing in it is fetched from anywhere."""
