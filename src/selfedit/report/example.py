"""Passages followed through in a report: what the model wrote about each, and which probes turned right."""

from __future__ import annotations

from .markup import paragraph, text
from .words import Row, Summary, line_style, line_text, right_of, rows, rung_label, style_label


def examples_html(summary: Summary) -> str:
    """The first example in full, the others folded."""
    parts = []
    for i, example in enumerate(rows(summary, "examples")):
        name = " ".join(text(example.get(key)) for key in ("task_id", "family") if example.get(key))
        body = _example(example)
        parts.append(body if i == 0 else f"<details><summary>Another passage: {name}</summary>{body}</details>")
    if not parts:
        return ""
    return "<h3>One passage, followed through</h3>\n" + "\n".join(parts)


def _example(example: Row) -> str:
    stages: list[Row] = [stage for stage in example.get("stages") or [] if isinstance(stage, dict)]
    context = example.get("context") or ""
    context = context if isinstance(context, str) else "\n\n".join(map(str, context))
    quoted = "".join(paragraph(part) for part in context.split("\n\n"))
    return f"<blockquote>{quoted}</blockquote>\n{_edits(stages)}\n{_answers(stages)}"


def _edits(stages: list[Row]) -> str:
    """The notes of each stage side by side, every line tagged with its style."""
    cards = []
    for stage in stages:
        lines = stage.get("lines") or str(stage.get("edit") or "").splitlines()
        items = []
        for line in lines:
            style = line_style(line)
            tag = f'<span class="tag">{text(style_label(style))}</span>' if style else ""
            items.append(f"<li>{text(line_text(line))}{tag}</li>")
        if items:
            title = rung_label(str(stage.get("rung", "")))
            cards.append(
                f'<div class="card"><h3>{text(title[:1].upper() + title[1:])}</h3><ul>{"".join(items)}</ul></div>'
            )
    return f'<div class="stages">{"".join(cards)}</div>' if cards else ""


def _answers(stages: list[Row]) -> str:
    """A row for each probe, a column for each stage: its answer without the passage, and whether it is right."""
    stages = [stage for stage in stages if stage.get("answers")]
    if not stages:
        return ""
    names = [rung_label(str(stage.get("rung", ""))) for stage in stages]
    by_stage = [{str(a.get("question")): a for a in stage["answers"]} for stage in stages]
    asked: dict[str, Row] = {}
    for answers in by_stage:
        for question, answer in answers.items():
            asked.setdefault(question, answer)
    lines = []
    for question, sample in asked.items():
        cells = [f'<td>{text(question)}</td><td data-label="right answer">{text(sample.get("gold", ""))}</td>']
        for name, answers in zip(names, by_stage, strict=True):
            cells.append(f'<td data-label="{text(name)}">{_answer(answers.get(question))}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    counts = "".join(
        f"<th>{text(name)}: {right_of(stage['answers'])}</th>" for name, stage in zip(names, stages, strict=True)
    )
    tally = "; ".join(f"{name}: {right_of(stage['answers'])}" for name, stage in zip(names, stages, strict=True))
    return (
        paragraph("The same probes at each stage, asked without the passage.", "small soft")
        + paragraph(f"Right: {tally}.", "narrow small")
        + f'<table class="stack"><thead><tr><th>Probe</th><th>Right answer</th>{counts}</tr></thead>'
        + f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _answer(answer: Row | None) -> str:
    if answer is None:
        return "–"
    said = text(answer.get("text", "")) or "(nothing)"
    if answer.get("correct"):
        return f'<span class="good" title="right">✓ {said}</span>'
    return f'<span class="bad" title="wrong">✗ {said}</span>'
