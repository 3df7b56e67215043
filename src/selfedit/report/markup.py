"""The few pieces of HTML that a report is built from; `text` is the only way for a value into the page."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from .words import plain

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1d2126; --soft: #5b6470; --line: #d9dde2; --card: #f6f7f9;
  --good: #0b6e4f; --bad: #b3261e; --accent: #2470ad; --warn: #fff4d6; }
@media (prefers-color-scheme: dark) { :root { --page: #14171b; --ink: #e6e8eb; --soft: #a0a8b3; --line: #343a42;
  --card: #1c2026; --good: #5cc9a0; --bad: #ff8a80; --accent: #6db3ea; --warn: #3a3114; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1040px; padding: 1.5rem 1rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 Arial, Helvetica, "Liberation Sans", sans-serif; overflow-wrap: break-word; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .5rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 75ch; }
code, .mono { font: .88em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: 6px; padding: .7rem;
  white-space: pre-wrap; }
.soft { color: var(--soft); } .small { font-size: .88rem; } .good { color: var(--good); } .bad { color: var(--bad); }
.lead { font-size: 1.1rem; } .note { background: var(--warn); border-radius: 6px; padding: .5rem .8rem; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; overflow: visible; } .narrow { display: none; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: .6rem 0; }
th { text-align: left; font-weight: 600; vertical-align: bottom; }
th, td { padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line); }
td { vertical-align: top; } td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td .soft { display: block; } td.n + td:not(.n), th.n + th:not(.n) { padding-left: .8rem; }
td:first-child:has(.soft) { min-width: 9.5rem; }
td .mono, .stack td, .card { overflow-wrap: anywhere; } tr.strong td { font-weight: 600; }
.stages { display: grid; grid-template-columns: repeat(auto-fit, minmax(280px, 1fr)); gap: 1rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: .8rem 1rem; }
.card h3 { margin-top: 0; } .card ul { list-style: none; margin: .4rem 0 0; padding: 0; }
.card li { padding: .3rem 0; border-top: 1px solid var(--line); }
.tag { display: inline-block; font-size: .75rem; color: var(--soft); border: 1px solid var(--line); border-radius: 99px;
  padding: 0 .5rem; margin-left: .3rem; white-space: nowrap; }
blockquote { margin: .6rem 0; padding: .2rem 0 .2rem 1rem; border-left: 3px solid var(--accent); max-width: 75ch; }
details { margin: .6rem 0; } summary { cursor: pointer; color: var(--accent); }
@media (max-width: 720px) { .wide { display: none; } .narrow { display: block; } body { padding-top: 1rem; }
  table.stack thead { display: none; }
  table.stack tr { display: block; padding: .5rem 0; border-bottom: 1px solid var(--line); }
  table.stack td { display: block; border: 0; padding: .1rem 0; } table.stack td:first-child { font-weight: 600; }
  table.stack td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); } }
"""


def text(value: object) -> str:
    """A value as safe HTML text, on one line, for an element or a quoted attribute."""
    return html.escape(plain(value), quote=True)


def paragraph(content: object, style: str = "") -> str:
    """A paragraph of plain text."""
    return f'<p class="{style}">{text(content)}</p>' if style else f"<p>{text(content)}</p>"


def section(title: str, *parts: str) -> str:
    """A titled section; empty where every part is empty."""
    body = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>" if body else ""


def table(
    headers: Sequence[str], body: Iterable[Sequence[str]], numeric: Sequence[int] = (), strong: Sequence[int] = ()
) -> str:
    """A table of cells that are HTML already. ``numeric`` columns are set right; ``strong`` rows stand out."""

    def cells(tag: str, row: Sequence[str]) -> str:
        return "".join(_element(tag, cell, "n" if i in numeric else "") for i, cell in enumerate(row))

    lines = [_element("tr", cells("td", row), "strong" if i in strong else "") for i, row in enumerate(body)]
    head = cells("th", [text(header) for header in headers])
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>\n<tbody>'
        + "\n".join(lines)
        + "</tbody></table></div>"
    )


def figure(wide: str, narrow: str, label: str) -> str:
    """A chart in two forms, of which CSS shows the one that fits the page."""
    return (
        f'<figure role="img" aria-label="{text(label)}"><div class="wide">{wide}</div>'
        f'<div class="narrow">{narrow}</div></figure>'
    )


def _element(tag: str, content: str, style: str) -> str:
    return f'<{tag} class="{style}">{content}</{tag}>' if style else f"<{tag}>{content}</{tag}>"
