"""Text self-edits: the prompt they are asked with, and the training sequences they become.

An edit is data that a model wrote (DESIGN, promise 6): nothing here raises on any text. What can't be trained on is
*invalid*, with a reason in plain words; what is too long is cut and counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import chain
from typing import Literal

from ..errors import SettingsError
from ..templates import Templates
from ..types import Probe, Task, TrainSequence
from .pairs import says

Encode = Callable[[str], Sequence[int]]

_FIELD = re.compile(r"\{(context|title|question|line|answer)\}")
_TITLE_LINE = re.compile(r"^\{title\}\n", re.MULTILINE)
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")
# Possessive quantifiers (*+, ++): no text, however odd, makes these backtrack. "-" needs a space: "-5 degrees" stays.
_MARKER = re.compile(r"(?:(?:[-*+](?:\s++|$)|[•‣◦▪●·]\s*+)++|\(?\d{1,3}[.)](?:\s++|$))")
_QUESTION = re.compile(r"\**+(?:question\s*+\d*+|q)\s*+\**+:\s*+\**+\s*+", re.IGNORECASE)
_ANSWER = re.compile(r"\**+(?:answer\s*+\d*+|a)\s*+\**+:\s*+\**+\s*+", re.IGNORECASE)
_ANSWERED = re.compile(r"\banswer\s*+\d*+\s*+\**+:", re.IGNORECASE)


@dataclass(frozen=True)
class EditLimits:
    """How much of an edit is used. Lines beyond ``max_lines`` are dropped and longer ones cut, both counted.

    ``max_line_tokens`` counts a line's whole sequence (special tokens, title, end); ``max_line_chars`` protects the
    tokenizer from a line without end. An edit whose sequences hold more than ``max_tokens`` together is invalid; the
    passage's own tokens are not counted, as the edit has no say in them.

    Raises:
        SettingsError: a limit is too small to train on anything.
    """

    max_lines: int = 64
    max_line_tokens: int = 256
    max_tokens: int = 4096
    max_line_chars: int = 4096

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 2 if "tokens" in field.name else 1
            if (value := getattr(self, field.name)) < least:
                raise SettingsError(f"{field.name} is {value}; set it to {least} or more")


@dataclass(frozen=True)
class EditRules:
    """How an edit's text is split and what is trained on beside its lines.

    ``split``: ``plain`` makes one sequence a line, without list markers, a question and its answer together; ``seal``
    is what SEAL's public code does (numbers stay, see :func:`edit_lines`). ``include_context`` appends the raw passage
    as the last sequence. ``append_eos`` ends every whole sequence with EOS. ``require_finished`` refuses an edit that
    the token limit cut off. ``distinct`` takes a line once, however often it is said.
    """

    split: Literal["plain", "seal"] = "plain"
    include_context: bool = False
    append_eos: bool = True
    require_finished: bool = False
    distinct: bool = False


PLAIN_RULES = EditRules()
PLAIN_LIMITS = EditLimits()
# SEAL (arXiv 2506.10943), single passage: its code keeps 30 items and trains in windows of 2048 tokens. It appends no EOS,
# but fills every sequence up with EOS that stays in the loss; one EOS is what is left of that without the filling (`pad_to`).
PAPER_RULES = EditRules(split="seal", include_context=True)
PAPER_LIMITS = EditLimits(max_lines=30, max_line_tokens=2048, max_tokens=30 * 2048, max_line_chars=32768)


@dataclass(frozen=True)
class ParsedEdit:
    """An edit's ``lines`` and the ``sequences`` to train on (none where ``reason`` says why the edit is invalid).

    ``truncated`` counts lines that were cut short, ``dropped`` lines beyond the limit or of fewer than two tokens,
    ``held_out`` lines that say one of the task's own probes.
    """

    lines: tuple[str, ...]
    sequences: tuple[TrainSequence, ...] = ()
    truncated: int = 0
    dropped: int = 0
    reason: str = ""
    held_out: int = 0

    @property
    def usable(self) -> bool:
        """Whether there is something to train on."""
        return not self.reason

    @property
    def n_targets(self) -> int:
        """Tokens that count in the loss, in one epoch over the sequences."""
        return sum(sequence.n_targets for sequence in self.sequences)


def fill(template: str, **values: str) -> str:
    """``template`` with its known fields replaced in one pass, so that braces in a value stay what they are.

    Known are ``{context}``, ``{title}``, ``{question}``, ``{line}`` and ``{answer}``; other braces are plain text. An
    empty title takes its line with it, where it has one to itself. Lone surrogates, which tokenizers refuse, become
    U+FFFD.

    Raises:
        SettingsError: the template asks for a known field that has no value here.
    """
    if not values.get("title", "").strip():
        template = _TITLE_LINE.sub("", template)

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise SettingsError(f"the template {template!r} asks for {match[0]}, which has no value here; use {known}")
        return values[match[1]]

    return _SURROGATE.sub("\ufffd", _FIELD.sub(value, template))


def prompt_for(task: Task, form: str, templates: Templates) -> str:
    """The prompt that asks a policy for an edit of the ``form`` named, such as ``implications``.

    Raises:
        SettingsError: there is no such form, or its template asks for a field that a task does not have.
    """
    if form not in templates.prompts:
        raise SettingsError(f"there is no edit form {form!r}; choose one of {', '.join(templates.prompts)}")
    return fill(templates.prompts[form], title=task.title, context=task.text)


def answer_prompt(task: Task, probe: Probe, templates: Templates, open_book: bool = False) -> str:
    """The prompt that asks a probe: without the passage, or with it in view (``open_book``)."""
    if open_book:
        return fill(templates.open_book, title=task.title, context=task.text, question=probe.question)
    return fill(templates.answer, title=task.title, question=probe.question)


def gold_text(probe: Probe, templates: Templates) -> str:
    """The gold answer as it follows the answer prompt: after a space, unless white space or a turn begins it anyway."""
    gap = "" if templates.chat or templates.answer[-1:].isspace() else " "
    return gap + _SURROGATE.sub("\ufffd", probe.answer)


def edit_lines(text: str, limits: EditLimits = PLAIN_LIMITS, rules: EditRules = PLAIN_RULES) -> list[str]:
    r"""The lines of an edit that are worth training on; never raises, and repeats stay, as the model wrote them.

    ``plain``: list markers go ("- ", "1. ", "2) ", bullets), lines without a letter or digit go, and a question with
    its answer on the next line becomes one line, "Question: ... Answer: ...", also where the question has no label.

    ``seal`` (Continual-Intelligence/SEAL, ``build_train_sequences`` with ``split_newlines``): only what follows
    "\nImplications:" counts where that occurs; "---" separates; every line is an item and keeps its number; a first
    line is dropped as a preamble where the second begins with "1."; numbered questions ("Question 1:") are items of
    several lines.

    Both: control characters become spaces; at most ``max_lines`` lines of at most ``max_line_chars`` characters.
    """
    return list(_split((text,), limits, rules).lines)


def padded(sequences: Iterable[TrainSequence], length: int, eos_id: int) -> tuple[TrainSequence, ...]:
    """Sequences filled up to ``length`` tokens with EOS that counts in the loss and that no token sees.

    So SEAL's public code does it (its ``TTT_server``: ``padding="max_length"``, labels copied from the ids).
    """

    def fill_up(sequence: TrainSequence) -> TrainSequence:
        n = max(0, length - len(sequence.ids))
        return TrainSequence(sequence.ids + (eos_id,) * n, sequence.mask + (True,) * n, sequence.padding + n)

    return tuple(map(fill_up, sequences))


def passage_sequences(
    task: Task, *, encode_prompt: Encode, eos_id: int | None, window: int, templates: Templates, pad_to: int = 0
) -> tuple[TrainSequence, ...]:
    """The raw passage as training sequences, cut into chunks of at most ``window`` tokens.

    Chunks overlap by one token, so that every token but the very first is predicted exactly once. Without an ``eos_id``
    no end is taught. A passage of fewer than two tokens gives no sequence. ``pad_to``: as in `sequences_for`.
    """
    pad = eos_id if pad_to else None
    window = window if pad is None else min(window, pad_to)
    _check_window(window)
    text = encode_prompt(fill(templates.line, title=task.title, line=task.text.strip()))
    ids = _ended(text, None if pad_to else eos_id)
    starts = range(0, len(ids) - 1, window - 1)
    chunks = tuple(TrainSequence.whole(ids[start : start + window]) for start in starts)
    return chunks if pad is None else padded(chunks, window, pad)


def sequences_for(
    task: Task,
    text: str | Sequence[str],
    *,
    encode_prompt: Encode,
    eos_id: int | None,
    window: int,
    templates: Templates,
    limits: EditLimits = PLAIN_LIMITS,
    rules: EditRules = PLAIN_RULES,
    finished: bool = True,
    pad_to: int = 0,
) -> ParsedEdit:
    """Turn the edit ``text`` for ``task`` into training sequences: its lines, then the passage if the rules say so.

    Every sequence is ``templates.line`` filled with the title and the line, all tokens but the first counting in the
    loss (whole-sequence language modelling, as in SEAL). A line longer than ``max_line_tokens`` or ``window`` tokens is
    cut, and then has no EOS: its end is not where the model wanted to stop.

    A line that says a question of ``task.held_out`` word for word is left out, before lines are counted.

    Args:
        task: gives title, passage and what is held out.
        text: what the policy wrote (or a gold edit); of several texts each is split by itself.
        encode_prompt: text that starts a document -> token ids, the tokenizer's own special tokens included; special
            tokens spelled out in the text must be plain text to it (``Engine.encode_prompt``).
        eos_id: the EOS token's id, None for a tokenizer without one.
        window: tokens in the longest sequence that the model can take, at least 2.
        templates: only ``line`` is used here.
        limits: how much of the edit is used.
        rules: how it is split, and what is trained on beside its lines.
        finished: False where sampling stopped at the token limit.
        pad_to: instead of one EOS, `padded` to this many tokens (at most ``window``), and cut there; 0, or no EOS: not.

    Raises:
        SettingsError: ``window`` is below 2, or the line template can't be filled. Never because of ``text``.
    """
    pad = eos_id if pad_to else None
    window = window if pad is None else min(window, pad_to)
    _check_window(window)
    texts = (text,) if isinstance(text, str) else tuple(text)
    split = _split(texts, limits, rules, task.held_out)
    if reason := _unusable("".join(texts), split, rules, finished):
        return ParsedEdit(split.lines, (), split.truncated, split.dropped, reason, split.held_out)
    most = min(limits.max_line_tokens, window)
    eos = eos_id if rules.append_eos and not pad_to else None
    sequences: list[TrainSequence] = []
    truncated, dropped = 0, split.dropped
    for line, was_cut in zip(split.lines, split.cut, strict=True):
        ids = encode_prompt(fill(templates.line, title=task.title, line=line))
        whole = [*ids] if was_cut else _ended(ids, eos)
        truncated += was_cut or len(whole) > most
        if len(whole) < 2:
            dropped += 1
        else:
            sequences.append(TrainSequence.whole(whole[:most]))
    n_tokens = sum(len(sequence.ids) for sequence in sequences)
    reason = ""
    if not sequences:
        reason = "no line has the two tokens that a training sequence needs"
    elif n_tokens > limits.max_tokens:
        reason = f"the edit is {n_tokens} tokens long, over the limit of {limits.max_tokens}"
    if reason:
        return ParsedEdit(split.lines, (), truncated, dropped, reason, split.held_out)
    if rules.include_context:
        passage = passage_sequences(task, encode_prompt=encode_prompt, eos_id=eos, window=window, templates=templates)
        sequences.extend(passage)
    if pad is not None:
        sequences = list(padded(sequences, window, pad))
    return ParsedEdit(split.lines, tuple(sequences), truncated, dropped, held_out=split.held_out)


@dataclass(frozen=True)
class _Split:
    """Lines, whether each was cut at the character limit, and how many came after the last one allowed, or are held out."""

    lines: tuple[str, ...]
    cut: tuple[bool, ...]
    dropped: int
    held_out: int

    @property
    def truncated(self) -> int:
        return sum(self.cut)


def _split(texts: Sequence[str], limits: EditLimits, rules: EditRules, questions: Sequence[str] = ()) -> _Split:
    clean = (_SURROGATE.sub("\ufffd", text) for text in texts)
    items = (_seal_items(t) if rules.split == "seal" else _plain_lines(t, limits.max_line_chars) for t in clean)
    lines: list[str] = []
    cut: list[bool] = []
    dropped = held_out = 0
    for line in chain.from_iterable(items):
        if any(says(line, question) for question in questions):
            held_out += 1
            continue
        if rules.distinct and line[: limits.max_line_chars].rstrip() in lines:
            continue
        if len(lines) == limits.max_lines:
            dropped += 1
            continue
        lines.append(line[: limits.max_line_chars].rstrip())
        cut.append(len(line) > limits.max_line_chars)
    return _Split(tuple(lines), tuple(cut), dropped, held_out)


def _plain_lines(text: str, max_chars: int) -> Iterator[str]:
    waiting = ""  # a question whose answer may be on the next line
    for raw in text.splitlines():
        line = _CONTROL.sub(" ", raw).strip()
        if marker := _MARKER.match(line):
            line = line[marker.end() :]
        if not _has_word(line):
            continue
        if waiting and (answer := _ANSWER.match(line)):
            yield f"Question: {waiting.removeprefix('Question: ')} Answer: {line[answer.end() :]}".rstrip()
            waiting = ""
            continue
        if waiting:
            yield waiting
            waiting = ""
        asked = _QUESTION.match(line)
        if asked:
            line = f"Question: {line[asked.end() :]}".rstrip()
        # A prompt that ends with "Question:" leaves the first one without its label.
        if (asked or line.endswith("?")) and not _ANSWERED.search(line, 0, max_chars):
            waiting = line
        else:
            yield line
    if waiting:
        yield waiting


def _seal_items(text: str) -> Iterable[str]:
    if marker := re.search(r"\nImplications:\s*+", text):
        text = text[marker.end() :]
    if re.search(r"Question\s++\d++:", text) and re.search(r"Answer\s*+:", text):
        items = re.split(r"\n(?=Question\s++\d++:)", text.strip())
        if not items[0].lstrip().startswith("Question"):
            items[0] = f"Question 1: {items[0].strip()}"
    else:
        items = [line.strip() for part in text.split("---") for line in part.strip().splitlines()]
        items = [item for item in items if item]
        if len(items) > 1 and items[1].startswith("1."):
            items = items[1:]
    cleaned = (_CONTROL_BUT_NEWLINE.sub(" ", item).strip() for item in items)
    return [item for item in cleaned if item]


def _unusable(text: str, split: _Split, rules: EditRules, finished: bool) -> str:
    if not text.strip():
        return "the edit is empty"
    if rules.require_finished and not finished:
        return "the edit was cut off at the token limit before it was finished"
    if split.held_out and not split.lines:
        return "every line of the edit says one of the task's own probes"
    if not any(_has_word(line) for line in split.lines):
        return "the edit has no letter or digit"
    return ""


def _has_word(line: str) -> bool:
    return any(char.isalnum() for char in line)


def _ended(ids: Sequence[int], eos_id: int | None) -> list[int]:
    return [*ids] if eos_id is None or (ids and ids[-1] == eos_id) else [*ids, eos_id]


def _check_window(window: int) -> None:
    if window < 2:
        raise SettingsError(f"the window is {window} tokens; a training sequence needs at least 2")
