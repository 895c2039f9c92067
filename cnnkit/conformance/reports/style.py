"""How the page looks: on a screen, light or dark, on a telephone, on paper."""

from __future__ import annotations

from typing import Final

# Every colour of text has a contrast of at least 4.5 with `paper` and with `shade`; a test works it out.
LIGHT: Final = {
    "paper": "#ffffff",
    "shade": "#f4f4f1",
    "rule": "#d8d8d2",
    "ink": "#1b1c1e",
    "soft": "#585b60",
    "link": "#1a4f9c",
    "passed": "#1c6b38",
    "planned": "#2a5794",
    "failed": "#b3261e",
    "deviates": "#7d5200",
    "partly": "#7d5200",
    "refused": "#45597a",
    "not-run": "#5b5e63",
    "none": "#5b5e63",
}

DARK: Final = {
    "paper": "#16181b",
    "shade": "#1f2226",
    "rule": "#3a3e44",
    "ink": "#e8e8e4",
    "soft": "#a9aeb5",
    "link": "#8fb8f5",
    "passed": "#74cc91",
    "planned": "#8fb8f5",
    "failed": "#ff8a7d",
    "deviates": "#e3b65c",
    "partly": "#e3b65c",
    "refused": "#a3bbdd",
    "not-run": "#a9aeb5",
    "none": "#a9aeb5",
}

STATES: Final = ("passed", "planned", "failed", "deviates", "partly", "refused", "not-run", "none")

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
h1, h2, .verdict { font-family: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "Liberation Serif", serif; }
h1 { margin: 0; font-size: 1.05rem; font-weight: 400; color: var(--soft); }
h2 { margin: 0 0 .75rem; font-size: 1.45rem; line-height: 1.2; font-weight: 600; }
h3 { margin: 0; font-size: 1rem; line-height: 1.4; }
p, ul, dl, pre, table, figure { margin: 0 0 1rem; }
section { margin-top: 2.75rem; padding-top: 1.25rem; border-top: 1px solid var(--rule); }
.soft, caption, figcaption { color: var(--soft); }
.verdict { margin: .25rem 0 1rem; font-size: clamp(1.5rem, 4.5vw, 2.1rem); line-height: 1.2; }
.verdict strong { font-weight: 600; }
.reasons { padding-left: 1.2rem; max-width: 46rem; }
nav { margin-top: 1.5rem; font-size: .9rem; }
nav a { display: inline-block; margin-right: 1.1rem; padding: .2rem 0; }

.facts { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: .15rem 2rem; }
.facts div { display: flex; gap: .75rem; padding: .2rem 0; }
.facts dt { flex: 0 0 7rem; color: var(--soft); }
.facts dd { margin: 0; min-width: 0; overflow-wrap: anywhere; }

.counts { display: flex; flex-wrap: wrap; gap: .25rem 1.5rem; padding: 0; list-style: none; }
svg { display: block; width: 100%; }
svg text { font-size: 11px; fill: var(--soft); }

table { width: 100%; border-collapse: collapse; font-size: .925rem; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .5rem; text-align: left; font-size: .9rem; }
th, td { padding: .35rem .75rem .35rem 0; border-top: 1px solid var(--rule); text-align: left; vertical-align: top; }
th { font-weight: 400; }
thead th { border-top: 0; color: var(--soft); font-size: .85rem; vertical-align: bottom; }
th:last-child, td:last-child { padding-right: 0; }
.number { text-align: right; white-space: nowrap; }
td small, th small { display: block; color: var(--soft); font-size: .85em; }
.whole { white-space: nowrap; }
.matrix code { overflow-wrap: break-word; }
.all tbody th { width: 60%; }
.exceptions tbody th { width: 50%; }
.exceptions ul { margin: .25rem 0 0; padding: 0; list-style: none; }
.exceptions details { margin: 0; }
.exceptions summary { padding: 0; }

.bars { padding: 0; list-style: none; font-size: .925rem; }
.bars li { display: grid; grid-template-columns: 9rem minmax(0, 1fr) 8rem; gap: 0 1rem; align-items: center; }
.bars li > :last-child { text-align: right; font-variant-numeric: tabular-nums; }
.track { fill: var(--shade); }
.bar { opacity: .22; }
.tick { opacity: .6; }
.time { fill: var(--soft); opacity: .7; }
.limit { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 2; }

.failure { margin: 0 0 1.5rem; padding-left: .9rem; border-left: 3px solid var(--failed); }
.failure p { margin: .15rem 0 .4rem; }
pre {
  margin: .4rem 0; padding: .6rem .75rem; background: var(--shade); border-radius: 3px;
  white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.4;
}
details { margin: .4rem 0 1rem; }
summary { cursor: pointer; color: var(--link); padding: .15rem 0; }
.failure details { margin: .2rem 0; }

@media (max-width: 40rem) {
  body { padding: 1.25rem 1rem 3rem; }
  th, td { padding-right: .5rem; }
  .matrix .whole { white-space: normal; }
  .bars li { grid-template-columns: minmax(0, 1fr) auto; padding-top: .4rem; }
  .bars li svg { grid-row: 2; grid-column: 1 / -1; }
  .all tbody th { width: 55%; }
  .exceptions tbody th { width: 38%; }
}
@media print {
  body { max-width: none; padding: 0; font-size: 10pt; }
  nav { display: none; }
  section { margin-top: 1.5rem; }
  h2, h3, summary { break-after: avoid; }
  tr, li, .failure > pre { break-inside: avoid; }
  a { color: inherit; }
}
"""


def _variables(colours: dict[str, str]) -> str:
    return " ".join(f"--{name}: {colour};" for name, colour in colours.items())


STYLE: Final = (
    f":root {{ color-scheme: light dark; {_variables(LIGHT)} }}\n"
    f"@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(DARK)} }} }}\n"
    + "\n".join(f".{state} {{ color: var(--{state}); fill: var(--{state}); }}" for state in STATES)
    + _RULES
)
"""One style sheet. Nothing in it is fetched from anywhere."""
