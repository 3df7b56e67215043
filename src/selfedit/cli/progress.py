"""How a run's events are shown: a live view for a person, or one JSON object per line for a program.

Both are called with ``(kind, data)``. Neither relies on the order or the completeness of events: a view must never be the
reason why a run ends.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column, Table
from rich.text import Text

from ..report.arms import arms_table, streams_headline
from ..report.table import LadderTable, mark, paired_table, verdict_text
from ..report.words import (
    count,
    decimal,
    duration,
    headline,
    interval,
    number,
    percent,
    plain,
    reliability_line,
    right_of,
    rung_label,
)

if TYPE_CHECKING:  # importing pydantic would slow the command's help down
    from ..rows import ExampleAnswer
    from ..summary import AnySummary, PooledSummary, Summary

Event = Mapping[str, Any]
_MOST_PROBES = 12  # of the example passage; more would push the rest off the screen
_QUARTERS = 4


def print_json(kind: str, data: Event, stream: TextIO | None = None) -> None:
    """Print an event as one line of strict JSON, ``{"event": kind, "data": {...}}``: ASCII, null for what is not finite."""
    print(json.dumps(_strict({"event": kind, "data": data}), default=str), file=stream or sys.stdout, flush=True)


def _strict(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value


class ConsoleView:
    """A run for a person: what happens in plain words, a bar for the running stage, one passage as an example, the ladder.

    Where the output is no terminal, plain lines are printed: a stage's start, each quarter of it, and its end.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.console = console
        self._live = console.is_interactive and not console.is_dumb_terminal
        self._ascii = console.options.ascii_only
        self._example_shown = False  # an edit of the example passage
        self._context: object = None  # the example passage that was shown last
        # It has at most one task, the running stage, and counts it also where no bar is shown.
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False, table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
            expand=True,
            disable=not self._live,
            get_time=clock,
        )

    def __enter__(self) -> ConsoleView:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._finish()
        self._progress.stop()

    def __call__(self, kind: str, data: Event) -> None:
        """Show one event; an unknown kind is skipped."""
        handler = getattr(self, f"_on_{kind}", None)
        if handler is not None:
            handler(data)

    def _say(self, text: str, style: str = "") -> None:
        self.console.print(Text(text, style=style))

    def _indented(self, *texts: Text) -> None:
        for text in texts:
            self.console.print(Padding(text, (0, 0, 0, 2), expand=False))

    @property
    def _stage(self) -> Task | None:
        """The stage that is running."""
        return next(iter(self._progress.tasks), None)

    def _on_plan(self, data: Event) -> None:
        grid = Table.grid(padding=(0, 2))  # "name   text": the lines of a long text start below each other
        for line in data.get("lines") or []:
            name, _, text = plain(line).partition("  ")
            if text:
                grid.add_row(Text(name), Text(text.strip()))
            else:
                self._say(name)
        if grid.row_count:
            self.console.print(grid)
        loops, seconds = number(data.get("inner_loops")), number(data.get("estimated_seconds"))
        total = [f"{count(loops)} inner loops"] if loops is not None else []
        total += [f"about {duration(seconds)}"] if seconds is not None else []
        if total:
            self._say(f"Total: {', '.join(total)}.", "bold")

    def _on_stage(self, data: Event) -> None:
        self._finish()
        name = plain(data.get("name", ""))
        text = plain(data.get("text") or name)
        self._progress.start()
        self._progress.add_task(text, total=number(data.get("total")) or None, stage=name)
        if not self._live:
            self._say(f"{text} ...")

    def _on_progress(self, data: Event) -> None:
        stage = self._stage
        # The names of a stage's parts begin with its own ("ladder/passage-lr-0.01"); others belong to an earlier stage.
        if stage is None or not plain(data.get("name", stage.fields["stage"])).startswith(stage.fields["stage"]):
            return
        before, total = stage.completed, stage.total
        done = before + (number(data.get("done")) or 0.0)
        self._progress.update(stage.id, completed=min(done, total or done))
        if total and not self._live and int(_QUARTERS * before / total) < int(_QUARTERS * done / total) < _QUARTERS:
            self._say(f"  {count(done)} of {count(total)}")

    def _finish(self) -> None:
        """Replace the bar of the running stage by a line that stays."""
        stage = self._stage
        if stage is None:
            return
        took = duration(stage.elapsed)
        self._progress.remove_task(stage.id)
        if self._live:
            self.console.print(Text.assemble(mark(True, self._ascii), " ", stage.description, (f"  {took}", "dim")))
        else:
            self._say(f"  done in {took}")

    def _on_passage(self, data: Event) -> None:
        context = self._context = data.get("context") or ""
        parts = [context] if isinstance(context, str) else context
        self._say("\nAn example, one passage of the run:", "bold")
        self._indented(*(Text(plain(part), style="italic") for part in parts))
        if number(data.get("question_count")) is not None:
            self._say(f"It is tested with {count(data['question_count'])} questions, asked without the passage.\n")

    def _on_edit(self, data: Event) -> None:
        from ..rows import ExampleAnswer
        from ..summary import row_of

        when = {"before": "before RL", "after": "after RL"}.get(str(data.get("when")), plain(data.get("when", "")))
        found = [row_of(ExampleAnswer, answer) for answer in data.get("answers") or []]
        self._show_edit(when, data.get("lines") or [], [answer for answer in found if answer is not None])

    def _show_edit(self, when: str, lines: Sequence[object], answers: Sequence[ExampleAnswer]) -> None:
        self._example_shown = True
        title = "The model's self-edit about that passage" if lines else "Without a self-edit"
        self._say(f"\n{title} ({when}):", "bold")
        self._indented(*(Text("- " + plain(line)) for line in lines))
        if not answers:
            return
        begin = "Trained on this self-edit, the model answers" if lines else "The model answers"
        self._say(f"{begin} without the passage ({right_of(answers)} right):")
        for answer in answers[:_MOST_PROBES]:
            line = Text.assemble(mark(answer.correct, self._ascii), f" {plain(answer.question)} ")
            line.append(plain(answer.text) or "(no answer)", "green" if answer.correct else "red")
            if not answer.correct:
                line.append(f" (right: {plain(answer.gold)})", "dim")
            self._indented(line)
        if len(answers) > _MOST_PROBES:
            self._say(f"  and {len(answers) - _MOST_PROBES} more")
        self._say("")

    def _on_round(self, data: Event) -> None:
        from ..rows import RoundRow
        from ..summary import row_of

        row = row_of(RoundRow, data)
        if row is not None:
            self._say(
                f"Round {row.round}: mean reward {decimal(row.mean_reward)}, {percent(row.valid_share, 0)} of the self-edits "
                f"valid, {percent(row.selected_share, 0)} selected; {verdict_text(row)}",
                "yellow" if row.verdict == "rolled_back" else "bold",
            )

    def _on_rung(self, data: Event) -> None:
        bounds = interval(data.get("low"), data.get("high"))
        likely = f", log p {decimal(data['logprob'], 2)}" if number(data.get("logprob")) is not None else ""
        self._say(f"  {rung_label(str(data.get('rung', '')))}: {percent(data.get('accuracy'))} ({bounds}){likely}")

    def _on_grader(self, data: Event) -> None:
        for line in str(data.get("text", "")).splitlines():
            self._say(plain(line))

    def _on_warning(self, data: Event) -> None:
        self._say(f"Warning: {plain(data.get('text', ''))}", "yellow")

    def _on_done(self, data: Event) -> None:
        from ..summary import Summary

        self._finish()
        self._progress.stop()
        summary = self._read(data.get("summary"))
        if isinstance(summary, Summary):
            if not self._example_shown:
                self._show_example(summary)
            show_result(self.console, summary, data.get("directory"))

    def _on_pooled(self, data: Event) -> None:
        from ..summary import PooledSummary

        pooled = self._read(data)
        if isinstance(pooled, PooledSummary):
            show_pooled(self.console, pooled)

    def _read(self, data: object) -> AnySummary | None:
        """The summary in an event; None, with a warning, where it can't be read."""
        from ..errors import RunError
        from ..summary import read_summary

        try:
            return read_summary(data if isinstance(data, Mapping) else {})
        except RunError as error:
            self._on_warning({"text": error})
            return None

    def _show_example(self, summary: Summary) -> None:
        """The example of a summary: a run that was finished before sends no events about its passages."""
        example = next(iter(summary.examples), None)
        if example is None:
            return
        if self._context != example.context:  # also where the first passage's answers could not be graded
            self._on_passage({"context": example.context})
        for stage in example.stages:
            if stage.lines:
                self._show_edit(rung_label(stage.rung), [line.text for line in stage.lines], stage.answers)


def show_result(console: Console, summary: Summary, directory: object = None) -> None:
    """The end of a run: the ladder, the result in a sentence, the caveats, and where the report is."""
    _show(console, LadderTable(summary))
    if summary.arms:
        _show(console, arms_table(summary))
    measured = summary.reliability
    signal = reliability_line(measured.reliability, measured.seeds_for_80, measured.of)
    _show_words(console, streams_headline(summary) or headline(summary), summary.notes, signal)
    if directory is not None:
        # One unbroken line: a wrapped path can't be clicked or copied.
        console.print(Text(f"Report: {plain(Path(str(directory)) / 'report.html')}"), soft_wrap=True)


def show_pooled(console: Console, pooled: PooledSummary) -> None:
    """Several seeds' runs as one: the ladder, the differences, and the share of the possible gain that RL reached."""
    seeds = ", ".join(str(row.seed) for row in pooled.seeds)
    _show(console, Text(f"Seeds {seeds} together; intervals are over seeds and tasks:", style="bold"))
    _show(console, paired_table(pooled))
    _show(console, LadderTable(pooled))
    _show_words(console, headline(pooled), pooled.notes)
    share = pooled.share_of_possible
    if share is not None:
        reached = f"{percent(share.mean)} (95 % interval {interval(share.low, share.high)})"
        console.print(Text(f"RL reached {reached} of the gain that perfect edits have over the base's own edits."))


def _show(console: Console, what: RenderableType) -> None:
    console.print()
    console.print(what)


def _show_words(console: Console, result: str, notes: Sequence[str], signal: str = "") -> None:
    if result:
        _show(console, Text(result, style="bold"))
    if signal:
        console.print(Text(signal))
    for note in notes:
        console.print(Text(f"Note: {plain(note)}", style="yellow"))
