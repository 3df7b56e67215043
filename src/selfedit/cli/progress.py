"""What a run's events look like: a live view for a person, one JSON object a line for a program.

Both are callables ``(kind, data) -> None``, and neither trusts the order or the completeness of events: a view that
fails must never be what ends a run.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from rich.console import Console
from rich.padding import Padding
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from ..report.arms import arms_table, streams_headline
from ..report.table import ladder_table, mark, paired_table, verdict_text
from ..report.words import (
    count,
    decimal,
    duration,
    headline,
    interval,
    line_text,
    number,
    percent,
    plain,
    reliability_line,
    right_of,
    rows,
    rung_label,
)

Event = Mapping[str, Any]
_MOST_PROBES = 12  # of the followed passage; more would push the rest off the screen
_QUARTERS = 4


class View(Protocol):
    """A view of a run: called with every event, closed at the end."""

    def __call__(self, kind: str, data: Event) -> None:
        """Show one event."""

    def __enter__(self) -> View:
        """The view itself."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the terminal back as it was."""


class JsonView:
    """Every event as ``{"event": kind, "data": {...}}``, one a line, flushed at once."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self.stream = sys.stdout if stream is None else stream

    def __enter__(self) -> JsonView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, kind: str, data: Event) -> None:
        """Print one event."""
        print(json_line({"event": kind, "data": data}), file=self.stream, flush=True)


def json_line(value: object) -> str:
    """``value`` as one line of strict JSON: ASCII, with null for a number that is not finite."""
    return json.dumps(_strict(value), default=str)


def _strict(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value


@dataclass
class _Stage:
    """A stage that is under way."""

    name: str
    text: str
    total: float | None
    started: float
    done: float = 0.0
    told: int = 0  # quarters already told on a plain output
    bar: TaskID | None = None


class ConsoleView:
    """A run for a person: what happens in plain words, a bar for the stage under way, the followed passage, the ladder.

    Where the output is no terminal it prints plain lines: a stage's start, its quarters and its end.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self.clock = clock
        self._live = console.is_terminal and not console.is_dumb_terminal
        self._ascii = console.options.ascii_only
        self._progress: Progress | None = None
        self._stage: _Stage | None = None
        self._followed: set[str] = set()  # what was shown of the followed passage
        self._context: object = None
        self._handlers: dict[str, Callable[[Event], None]] = {
            "plan": self._plan,
            "stage": self._start,
            "progress": self._advance,
            "passage": self._passage,
            "edit": self._edit,
            "round": self._round,
            "rung": self._rung,
            "grader": self._grader,
            "warning": self._warning,
            "done": self._done,
            "pooled": lambda data: show_pooled(self.console, data),
        }

    def __enter__(self) -> ConsoleView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._finish()
        self._stop()

    def __call__(self, kind: str, data: Event) -> None:
        """Show one event; kinds it doesn't know are left out."""
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(data)

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style))

    def _plan(self, data: Event) -> None:
        grid = Table.grid(padding=(0, 2))  # "name   what": a long second part stays under itself when it wraps
        for line in data.get("lines") or []:
            name, _, told_of_it = plain(line).partition("  ")
            if told_of_it:
                grid.add_row(Text(name), Text(told_of_it.strip()))
            else:
                self._say(name)
        if grid.row_count:
            self.console.print(grid)
        loops, seconds = number(data.get("inner_loops")), number(data.get("estimated_seconds"))
        told = [f"{count(loops)} inner loops"] if loops is not None else []
        told += [f"about {duration(seconds)}"] if seconds is not None else []
        if told:
            self._say("In all " + ", ".join(told) + ".", "bold")

    def _start(self, data: Event) -> None:
        self._finish()
        name = plain(data.get("name", ""))
        total = number(data.get("total")) or None
        stage = _Stage(name, plain(data.get("text") or name), total, self.clock())
        self._stage = stage
        if not self._live:
            self._say(f"{stage.text} ...")
            return
        if self._progress is None:
            self._progress = _bars(self.console)
            self._progress.start()
        stage.bar = self._progress.add_task(stage.text, total=stage.total)

    def _advance(self, data: Event) -> None:
        stage = self._stage
        # A stage's parts carry its name and more ("ladder/passage-lr-0.01"); other names are late news of an old one.
        if stage is None or not plain(data.get("name", stage.name)).startswith(stage.name):
            return
        stage.done += number(data.get("done")) or 0.0
        if stage.total:
            stage.done = min(stage.done, stage.total)
        if stage.bar is not None and self._progress is not None:
            self._progress.update(stage.bar, completed=stage.done)
        elif stage.total:
            quarters = int(_QUARTERS * stage.done / stage.total)
            if stage.told < quarters < _QUARTERS:
                stage.told = quarters
                self._say(f"  {count(stage.done)} of {count(stage.total)}")

    def _finish(self) -> None:
        """Turn the bar of the stage under way into a line that stays."""
        stage, self._stage = self._stage, None
        if stage is None:
            return
        took = duration(max(0.0, self.clock() - stage.started))
        if stage.bar is not None and self._progress is not None:
            self._progress.remove_task(stage.bar)
            self.console.print(Text.assemble(mark(True, self._ascii), " ", stage.text, (f"  {took}", "dim")))
        else:
            self._say(f"  done in {took}")

    def _stop(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None

    def _passage(self, data: Event) -> None:
        self._followed.add("passage")
        context = self._context = data.get("context") or ""
        parts = [context] if isinstance(context, str) else context
        self._say("\nOne passage, followed through:", "bold")
        self._indented(*(Text(plain(part), style="italic") for part in parts))
        if number(data.get("question_count")) is not None:
            self._say(f"It will be tested with {count(data['question_count'])} questions, asked without the passage.\n")

    def _edit(self, data: Event) -> None:
        self._followed.add("edit")
        when = {"before": "before RL", "after": "after RL"}.get(str(data.get("when")), plain(data.get("when", "")))
        lines: Sequence[object] = data.get("lines") or []
        self._say(f"\n{'What it wrote about that passage' if lines else 'Without any notes'} ({when}):", "bold")
        self._indented(*(Text("- " + line_text(line)) for line in lines))
        answers = [answer for answer in data.get("answers") or [] if isinstance(answer, Mapping)]
        if not answers:
            return
        told = "Trained on these notes, it answers" if lines else "It answers"
        self._say(f"{told} without the passage ({right_of(answers)} right):")
        for answer in answers[:_MOST_PROBES]:
            right = bool(answer.get("correct"))
            line = Text.assemble(mark(right, self._ascii), f" {plain(answer.get('question', ''))} ")
            line.append(plain(answer.get("text", "")) or "(nothing)", "green" if right else "red")
            if not right:
                line.append(f" (right: {plain(answer.get('gold', ''))})", "dim")
            self._indented(line)
        if len(answers) > _MOST_PROBES:
            self._say(f"  and {len(answers) - _MOST_PROBES} more")
        self._say("")

    def _indented(self, *texts: Text) -> None:
        for text in texts:
            self.console.print(Padding(text, (0, 0, 0, 2), expand=False))

    def _round(self, data: Event) -> None:
        rolled_back = data.get("verdict") == "rolled_back"
        text = (
            f"Round {plain(data.get('round', '?'))}: mean reward {decimal(data.get('mean_reward'))}, "
            f"{percent(data.get('valid_share'), 0)} of the notes usable, {percent(data.get('selected_share'), 0)} kept"
        )
        verdict = f"; {verdict_text(data)}" if data.get("verdict") else ""
        self._say(text + verdict, "yellow" if rolled_back else "bold")

    def _rung(self, data: Event) -> None:
        rung = str(data.get("rung", ""))
        self._say(f"  {rung_label(rung)}: {percent(data.get('accuracy'))} ({interval(data)})")

    def _grader(self, data: Event) -> None:
        for line in str(data.get("text", "")).splitlines():
            self._say(plain(line))

    def _warning(self, data: Event) -> None:
        self._say(f"Warning: {plain(data.get('text', ''))}", "yellow")

    def _done(self, data: Event) -> None:
        self._finish()
        self._stop()
        summary = data.get("summary") or {}
        if "edit" not in self._followed:
            self._follow(summary)
        show_result(self.console, summary, data.get("directory"))

    def _follow(self, summary: Event) -> None:
        """The followed passage from a summary: a run that was finished before tells nothing on the way."""
        example = next(iter(rows(summary, "examples")), None)
        if example is None:
            return
        if self._context != example.get("context"):  # also where the first passage's answers could not be graded
            self._passage({"context": example.get("context")})
        written = [stage for stage in example.get("stages") or [] if stage.get("lines")]
        for stage in written:
            self._edit({**stage, "when": rung_label(str(stage.get("rung", "")))})


def show_result(console: Console, summary: Mapping[str, Any], directory: object = None) -> None:
    """The end of a run: the ladder, the outcome in a sentence, the caveats, and where the report is."""
    console.print()
    console.print(ladder_table(summary))
    if summary.get("arms"):
        console.print()
        console.print(arms_table(summary))
    outcome = streams_headline(summary) or headline(summary)
    if outcome:
        console.print()
        console.print(Text(outcome, style="bold"))
    signal = reliability_line(summary.get("reliability") or {})
    if signal:
        console.print(Text(signal))
    for note in summary.get("notes") or []:
        console.print(Text(f"Note: {plain(note)}", style="yellow"))
    if directory is not None:
        # One unbroken line: a wrapped path can't be clicked or copied.
        console.print(Text(f"Report: {plain(Path(str(directory)) / 'report.html')}"), soft_wrap=True)


def show_paired(console: Console, summary: Mapping[str, Any]) -> None:
    """The differences between rungs on the same tasks."""
    console.print()
    console.print(paired_table(summary))


def show_pooled(console: Console, pooled: Mapping[str, Any]) -> None:
    """Several seeds' runs as one: the ladder, the differences, and how much of what was possible RL gave."""
    seeds = [plain(row.get("seed", "?")) for row in rows(pooled, "seeds")]
    console.print(Text(f"\nSeeds {', '.join(seeds)} together; intervals over seeds and tasks:", style="bold"))
    show_paired(console, pooled)
    show_result(console, pooled)
    share = pooled.get("share_of_possible") or {}
    if share:
        console.print(
            Text(
                f"Of what perfect notes gain over the base's, RL gave {percent(share.get('mean'))} ({interval(share)})."
            )
        )


def _bars(console: Console) -> Progress:
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        expand=True,
    )
