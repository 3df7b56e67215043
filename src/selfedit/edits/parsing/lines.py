"""The lines of a text self-edit, and the training sequences that they become.

A model wrote the text, so nothing here raises because of it. What can't be trained on is *invalid*, with a reason in plain
words; what is too long is cut.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Literal

from ...errors import SettingsError
from ...templates import LONE_SURROGATE, Templates, fill
from ...thoughts import without_thoughts
from ...types import Task, TrainSequence
from ..base import Tokens
from .notes import has_word, notes_in
from .pairs import paired, says

_CONTROL_BUT_NEWLINE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]")


@dataclass(frozen=True)
class Rules:
    """How an edit's text is split, how much of it is used, and whether the passage is trained on, too.

    ``split``: ``plain`` makes one sequence per line, without list markers, a question and its answer together; ``seal`` is what
    SEAL's public code does (numbers stay, see `edit_lines`). ``distinct`` takes a line once, however often it occurs.
    Lines beyond ``max_lines`` are dropped, and longer ones are cut: ``max_line_tokens`` counts a line's whole sequence (special
    tokens, title, end), ``max_line_chars`` protects the tokenizer from a line without end. An edit whose sequences hold more
    than ``max_tokens`` together is invalid; the passage's own tokens are not counted, as the edit has no say in them.
    """

    split: Literal["plain", "seal"] = "plain"
    max_lines: int = 64
    max_line_tokens: int = 256
    max_tokens: int = 4096
    max_line_chars: int = 4096
    distinct: bool = False
    include_context: bool = False


PLAIN = Rules()
# SEAL (arXiv 2506.10943), single passage: its code keeps 30 items and trains in windows of 2048 tokens. It appends no EOS,
# but fills every sequence up with EOS that stays in the loss; one EOS is what is left of that without the filling (`pad_to`).
SEAL = Rules("seal", 30, 2048, 30 * 2048, 32768, include_context=True)


@dataclass(frozen=True)
class ParsedEdit:
    """An edit's ``lines`` and the ``sequences`` to train on (none where ``reason`` says why the edit is invalid).

    ``held_out`` counts lines that were left out because they say one of the task's own probes.
    """

    lines: tuple[str, ...]
    sequences: tuple[TrainSequence, ...]
    reason: str
    held_out: int


def edit_lines(text: str, rules: Rules = PLAIN) -> list[str]:
    r"""The lines of an edit that are worth training on; never raises, and repeats stay, as the model wrote them.

    Thoughts are left out first (`without_thoughts`).

    ``plain``: what is not a note goes (`notes.notes_in`: fences, JSON's and Markdown's signs, list markers, headings,
    greetings, offers, refusals), lines without a letter or digit go, and a question with its answer becomes one line,
    "Question: ... Answer: ...", also where the question has no label (`pairs.paired`).

    ``seal`` (Continual-Intelligence/SEAL, ``build_train_sequences`` with ``split_newlines``): only what follows
    "\nImplications:" counts where that occurs; "---" separates; every line is an item and keeps its number; a first
    line is dropped as a preamble where the second begins with "1."; numbered questions ("Question 1:") are items of
    several lines.

    Both: control characters become spaces; at most ``max_lines`` lines of at most ``max_line_chars`` characters.
    """
    return [line[: rules.max_line_chars].rstrip() for line in _kept([text], rules)[0]]


def padded(sequences: Iterable[TrainSequence], length: int, eos_id: int) -> tuple[TrainSequence, ...]:
    """Sequences filled up to ``length`` tokens with EOS that counts in the loss and that no token sees.

    So SEAL's public code does it (its ``TTT_server``: ``padding="max_length"``, labels copied from the ids).
    """

    def fill_up(sequence: TrainSequence) -> TrainSequence:
        n = max(0, length - len(sequence.ids))
        return TrainSequence(sequence.ids + (eos_id,) * n, sequence.mask + (True,) * n, sequence.padding + n)

    return tuple(map(fill_up, sequences))


def passage_sequences(task: Task, tokens: Tokens, templates: Templates, *, pad_to: int = 0) -> tuple[TrainSequence, ...]:
    """The raw passage as training sequences, cut into chunks of at most the model's window of tokens.

    Chunks overlap by one token, so that every token but the very first is predicted exactly once. A passage of fewer than two
    tokens gives no sequence. ``pad_to``: as in `sequences_for`.
    """
    window = _window(tokens, pad_to)
    ids = tokens.encode_prompt(fill(templates.line, title=task.title, line=task.text.strip()))
    ids = [*ids] if pad_to else _ended(ids, tokens.eos_id)
    starts = range(0, len(ids) - 1, window - 1)
    chunks = tuple(TrainSequence.whole(ids[start : start + window]) for start in starts)
    return padded(chunks, window, tokens.eos_id) if pad_to else chunks


def sequences_for(
    task: Task,
    texts: str | Sequence[str],
    tokens: Tokens,
    templates: Templates,
    rules: Rules = PLAIN,
    *,
    pad_to: int = 0,
) -> ParsedEdit:
    """Turn an edit for ``task`` into training sequences: its lines, then the passage if the rules say so.

    Every sequence is ``templates.line`` filled with the title and the line, all tokens but the first counting in the
    loss (whole-sequence language modelling, as in SEAL). A line longer than ``max_line_tokens`` or the window is cut, and then
    has no EOS: its end is not where the model wanted to stop. A line that says a question of ``task.held_out`` word for word
    is left out, before lines are counted.

    Args:
        task: gives title, passage and what is held out.
        texts: what the policy wrote (or a gold edit); each is split by itself.
        tokens: the model that learns; special tokens spelled out in a text must be plain text to it.
        templates: only ``line`` is used here.
        rules: how a text is split, how much of it is used, and what is trained on beside its lines.
        pad_to: instead of one EOS, `padded` to this many tokens (at most the window), and cut there; 0: not.

    Raises:
        SettingsError: the window is below 2, or the line template can't be filled. Never because of a text.
    """
    window = _window(tokens, pad_to)
    texts = [texts] if isinstance(texts, str) else texts
    found, held_out = _kept(texts, rules, task.held_out)
    lines = tuple(line[: rules.max_line_chars].rstrip() for line in found)
    if reason := _unusable(texts, lines, held_out):
        return ParsedEdit(lines, (), reason, held_out)
    most = min(rules.max_line_tokens, window)
    encoded = []
    for line, uncut in zip(lines, found, strict=True):
        ids = tokens.encode_prompt(fill(templates.line, title=task.title, line=line))
        encoded.append([*ids] if pad_to or len(uncut) > rules.max_line_chars else _ended(ids, tokens.eos_id))
    sequences = tuple(TrainSequence.whole(ids[:most]) for ids in encoded if len(ids) >= 2)
    n_tokens = sum(len(sequence.ids) for sequence in sequences)
    if not sequences:
        return ParsedEdit(lines, (), "no line has the two tokens that a training sequence needs", held_out)
    if n_tokens > rules.max_tokens:
        reason = f"the edit is {n_tokens} tokens long, over the limit of {rules.max_tokens}"
        return ParsedEdit(lines, (), reason, held_out)
    if pad_to:
        sequences = padded(sequences, window, tokens.eos_id)
    if rules.include_context:
        sequences += passage_sequences(task, tokens, templates, pad_to=pad_to)
    return ParsedEdit(lines, sequences, "", held_out)


def _kept(texts: Sequence[str], rules: Rules, questions: Sequence[str] = ()) -> tuple[list[str], int]:
    """The lines of the texts that are used, not cut yet, and how many more were held out as they say a question."""
    clean = (LONE_SURROGATE.sub("\ufffd", without_thoughts(text)) for text in texts)
    items = (_seal_items(t) if rules.split == "seal" else paired(notes_in(t), rules.max_line_chars) for t in clean)
    lines: list[str] = []
    seen: set[str] = set()
    held_out = 0
    for line in chain.from_iterable(items):
        cut = line[: rules.max_line_chars].rstrip()
        if any(says(line, question) for question in questions):
            held_out += 1
        elif len(lines) < rules.max_lines and not (rules.distinct and cut in seen):
            lines.append(line)
            seen.add(cut)
    return lines, held_out


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


def _unusable(texts: Sequence[str], lines: Sequence[str], held_out: int) -> str:
    if not "".join(texts).strip():
        return "the edit is empty"
    if not "".join(map(without_thoughts, texts)).strip():
        return "the edit is a thought and nothing else: raise edits.max_new_tokens, or see model.template_arguments"
    if held_out and not lines:
        return "every line of the edit says one of the task's own probes"
    if not any(has_word(line) for line in lines):
        talk = "only talk around notes, such as a greeting, an offer or a refusal"
        return f"the edit has {talk if has_word(''.join(texts)) else 'no letter or digit'}"
    return ""


def _ended(ids: Sequence[int], eos_id: int) -> list[int]:
    return [*ids] if ids and ids[-1] == eos_id else [*ids, eos_id]


def _window(tokens: Tokens, pad_to: int) -> int:
    """Tokens of the longest sequence."""
    window = min(tokens.window, pad_to) if pad_to else tokens.window
    if window < 2:
        raise SettingsError(f"the window is {window} tokens; a training sequence needs at least 2")
    return window
