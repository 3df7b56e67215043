"""The diagram of docs/architecture.md, drawn from a list of boxes that name real modules, and the order of the rooms.

    python -m tools.architecture_diagram            # writes docs/architecture.svg
    python -m tools.architecture_diagram --check    # writes nothing; exits with 1 if the file is not up to date

A box whose module does not exist is an error, so the diagram cannot describe code that is gone.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "selfedit"
FILE = ROOT / "docs" / "architecture.svg"

# The rooms of the package, lowest first: a module imports only from its own room and from rooms before it.
ROOMS = (
    "errors disk types stats characters plugins templates thoughts config",
    "tasks edits engine models run policies writer rewards",
    "inner parts algorithms guards own_probes store loop",
    "rows summary report evaluation cli",
)

_WIDTH, _HEIGHT = 180, 66  # of a box
_STEP_X, _STEP_Y = 210, 124  # from one box to the next
_LEFT, _TOP = 30, 76
_FILLS = {"plug-in": "#dbeafe", "fixed": "#f3f4f6", "disk": "#fef3c7"}
_LEGEND = (("plug-in", "plug-ins: chosen by name in a settings file"), ("fixed", "fixed"), ("disk", "on disk"))
_INK, _FAINT = "#1f2937", "#6b7280"


@dataclass(frozen=True)
class Box:
    """One box. ``modules``: files (``inner.py``) or folders (``edits/``) of the package; ``at``: its column and row."""

    name: str
    title: str
    modules: tuple[str, ...]
    at: tuple[int, int]
    kind: str = "fixed"

    @property
    def left(self) -> int:
        """Its left edge."""
        return _LEFT + self.at[0] * _STEP_X

    @property
    def top(self) -> int:
        """Its upper edge."""
        return _TOP + self.at[1] * _STEP_Y


BOXES = (
    Box("tasks", "tasks: contexts, probes", ("tasks/sources/",), (0, 0), "plug-in"),
    Box("policy", "policy writes self-edits", ("writer.py", "policies/"), (1, 0), "plug-in"),
    Box("try", "edits are tried", ("inner.py",), (2, 0)),
    Box("improve", "policy learns", ("algorithms/",), (3, 0), "plug-in"),
    Box("settle", "accept or roll back", ("guards/",), (4, 0), "plug-in"),
    Box("change", "edit becomes change", ("edits/",), (1, 1), "plug-in"),
    Box("apply", "adapters are trained", ("engine/training/",), (2, 1)),
    Box("ask", "probes are answered", ("engine/inference/",), (3, 1)),
    Box("worth", "answers become outcome", ("rewards/",), (4, 1), "plug-in"),
    Box("ladder", "ladder of rungs", ("evaluation/ladder.py", "evaluation/rungs/"), (0, 2), "plug-in"),
    Box("streams", "many passages, streams", ("evaluation/protocols.py", "store/"), (1, 2)),
    Box("results", "summary, tables, report", ("summary.py", "report/"), (2, 2)),
    Box("journal", "journal, checkpoints", ("run.py",), (3, 2), "disk"),
    Box("base", "frozen base, adapters", ("engine/model/", "engine/adapters/"), (4, 2)),
)

# From, to, and a label. Boxes of one row are joined at their sides, others at the lower and upper edge.
ARROWS = (
    ("tasks", "policy", ""),
    ("policy", "try", ""),
    ("try", "improve", ""),
    ("improve", "settle", ""),
    ("try", "change", ""),
    ("change", "apply", ""),
    ("apply", "ask", ""),
    ("ask", "worth", ""),
    ("ladder", "streams", ""),
    ("streams", "results", ""),
)


def check() -> None:
    """Raise ValueError where a box names a module that does not exist, or an arrow a box."""
    names = {box.name for box in BOXES}
    gone = [module for box in BOXES for module in box.modules if not (PACKAGE / module).exists()]
    gone += [name for start, end, _ in ARROWS for name in (start, end) if name not in names]
    if gone:
        raise ValueError(f"the diagram names what does not exist: {', '.join(gone)}; mend tools/architecture_diagram.py")


def svg() -> str:
    """The picture."""
    check()
    by_name = {box.name: box for box in BOXES}
    width, height = _LEFT * 2 + 4 * _STEP_X + _WIDTH, _TOP + 2 * _STEP_Y + _HEIGHT + 56
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="system-ui, sans-serif">',
        f'<defs><marker id="tip" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        f'<path d="M0,0 L8,4 L0,8 z" fill="{_FAINT}"/></marker></defs>',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        _frame(0, 4, 0, "outer loop: loop.py", "#93c5fd"),
        _frame(1, 4, 1, "inner loop: inner.py, for each edit", "#fca5a5"),
        _frame(0, 2, 2, "afterwards: evaluation/experiment.py", "#d1d5db"),
        _frame(3, 4, 2, "used by all of them", "#d1d5db"),
        *(_arrow(by_name[start], by_name[end], label) for start, end, label in ARROWS),
        _back(by_name["settle"], by_name["policy"], "next round"),
        _up(by_name["worth"], by_name["improve"], "outcomes"),
        *(_box(box) for box in BOXES),
        _legend(height - 22),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _text(x: float, y: float, text: str, size: int = 12, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{_INK}" {more}>{escape(text)}</text>'


def _box(box: Box) -> str:
    middle = box.left + _WIDTH / 2
    rect = (
        f'<rect x="{box.left}" y="{box.top}" width="{_WIDTH}" height="{_HEIGHT}" rx="8" fill="{_FILLS[box.kind]}" '
        'stroke="#9ca3af"/>'
    )
    title = _text(middle, box.top + 22, box.title, 13, 'text-anchor="middle" font-weight="600"')
    below = [
        f'<text x="{middle:g}" y="{box.top + 40 + 15 * i}" font-size="11" fill="{_FAINT}" text-anchor="middle" '
        f'font-family="ui-monospace, monospace">{escape(module)}</text>'
        for i, module in enumerate(box.modules)
    ]
    return "".join([rect, title, *below])


def _frame(first: int, last: int, row: int, title: str, colour: str) -> str:
    left, top = _LEFT + first * _STEP_X - 13, _TOP + row * _STEP_Y - 27
    width = (last - first) * _STEP_X + _WIDTH + 26
    rect = (
        f'<rect x="{left}" y="{top}" width="{width}" height="{_HEIGHT + 38}" rx="12" fill="none" stroke="{colour}" '
        'stroke-width="1.5"/>'
    )
    return rect + _text(left + 14 + _WIDTH * (row == 1), top + 18, title, 12, 'font-style="italic"')


def _line(path: str) -> str:
    return f'<path d="{path}" fill="none" stroke="{_FAINT}" stroke-width="1.5" marker-end="url(#tip)"/>'


def _arrow(start: Box, end: Box, label: str) -> str:
    if start.at[1] == end.at[1]:
        y = start.top + _HEIGHT / 2
        drawn = _line(f"M{start.left + _WIDTH},{y:g} L{end.left - 2},{y:g}")
        return drawn + _text((start.left + _WIDTH + end.left) / 2, y - 6, label, 11, 'text-anchor="middle"')
    x, y = start.left + _WIDTH / 4, (start.top + _HEIGHT + end.top) / 2 - 5
    return _line(f"M{x:g},{start.top + _HEIGHT} V{y:g} H{end.left + _WIDTH / 2:g} V{end.top - 2}")


def _back(start: Box, end: Box, label: str) -> str:
    """From one box of the upper row back to an earlier one, above the row."""
    x, to, y = start.left + _WIDTH / 2, end.left + _WIDTH / 2, start.top - 50
    return _line(f"M{x:g},{start.top} V{y} H{to:g} V{end.top - 2}") + _text(
        (x + to) / 2, y - 6, label, 11, 'text-anchor="middle"'
    )


def _up(start: Box, end: Box, label: str) -> str:
    """From a box up to one of the row above."""
    x, y = end.left + 3 * _WIDTH / 4, (end.top + _HEIGHT + start.top) / 2 - 5
    drawn = _line(f"M{start.left + _WIDTH / 2:g},{start.top} V{y:g} H{x:g} V{end.top + _HEIGHT + 2}")
    return drawn + _text(start.left + _WIDTH / 2 + 8, start.top - 11, label, 11)


def _legend(y: int) -> str:
    parts, x = [], _LEFT
    for kind, text in _LEGEND:
        parts.append(f'<rect x="{x}" y="{y - 11}" width="14" height="14" rx="3" fill="{_FILLS[kind]}" stroke="#9ca3af"/>')
        parts.append(_text(x + 20, y, text))
        x += 44 + 6 * len(text)
    return "".join(parts)


def main() -> int:
    """Write the picture, or check it."""
    text = svg()
    if "--check" in sys.argv:
        return int(FILE.read_text(encoding="utf-8") != text)
    FILE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
