"""Text self-edits: any text is taken, what is trained on is what was written, within the limits."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from selfedit.edits.parsing.lines import (
    PLAIN,
    ParsedEdit,
    Rules,
    edit_lines,
    passage_sequences,
    sequences_for,
)
from selfedit.edits.parsing.lines import SEAL as SEAL_RULES
from selfedit.errors import SettingsError
from selfedit.templates import Templates, answer_prompt, built_in_templates, gold_text, prompt_for
from selfedit.types import Probe, Task

BOS, EOS = 1, 2
TASK = Task("t", "Super Bowl", ("The {title} was played.", "It ended {line}."), (Probe("Who won?", "Denver"),))
WORLD = built_in_templates()["world"]
SEAL = Templates(
    prompts={
        "implications": "List implications.\n\nPassage:\n{title}\n{context}\n\nImplications:\n",
        "rewrite": "Rewrite.\n\nPassage:\n{title}\n{context}\n\nRewrite:\n",
        "self_qa": "Ask.\n\nPassage:\n{title}\n{context}\n\nQuestion 1: ",
    },
    answer="Question: Topic: {title}\n{question}\nAnswer:\n",
    open_book="Passage:\n{title}\n{context}\nQuestion: {question}\nAnswer:\n",
    line="{title}\n{line}",
    directives="{context}",
)
LINE = SEAL.model_copy(update={"line": "{line}"})


def encode(text: str) -> list[int]:
    """One token per byte after BOS. Like real tokenizers it refuses lone surrogates."""
    return [BOS, *(byte + 3 for byte in text.encode())]


def decode(ids: tuple[int, ...]) -> str:
    return bytes(i - 3 for i in ids if i > EOS).decode(errors="replace")


@dataclass(frozen=True)
class Bytes:
    """A model that reads bytes."""

    window: int = 64
    eos_id: int = EOS
    encode_prompt: Callable[[str], list[int]] = encode


def parse(text: str, templates: Templates = LINE, window: int = 64, rules: Rules = PLAIN, task: Task = TASK) -> ParsedEdit:
    return sequences_for(task, [text], Bytes(window), templates, rules)


# Prompts


def test_a_context_with_braces_is_left_alone() -> None:
    assert prompt_for(TASK, "implications", SEAL) == (
        "List implications.\n\nPassage:\nSuper Bowl\nThe {title} was played.\n\nIt ended {line}.\n\nImplications:\n"
    )
    odd = replace(TASK, context=("{context} {0} {} {{question}} %s {",))
    assert prompt_for(odd, "rewrite", WORLD) == "Passage: {context} {0} {} {{question}} %s {\nRewrite:"


def test_other_braces_of_a_template_are_plain_text() -> None:
    json_form = SEAL.with_own({"implications": 'Write {"lines": []} for {context}'})
    assert prompt_for(replace(TASK, context=("x",)), "implications", json_form) == 'Write {"lines": []} for x'


def test_an_empty_title_takes_its_line_with_it() -> None:
    untitled = replace(TASK, title="", context=("x",))
    assert prompt_for(untitled, "implications", SEAL) == "List implications.\n\nPassage:\nx\n\nImplications:\n"
    assert decode(parse("a fact", SEAL, task=replace(TASK, title="")).sequences[0].ids) == "a fact"


def test_probes_are_asked_without_the_passage_unless_open_book() -> None:
    probe = TASK.probes[0]
    assert answer_prompt(TASK, probe, WORLD) == " Question: Who won? Answer:"
    assert "was played" in answer_prompt(TASK, probe, WORLD, open_book=True)
    assert gold_text(probe, WORLD) == " Denver"
    assert gold_text(probe, SEAL) == "Denver"  # its prompt ends with a newline


def test_an_unknown_form_is_refused_with_the_choices() -> None:
    with pytest.raises(SettingsError, match="implications, rewrite, self_qa"):
        prompt_for(TASK, "open_book", WORLD)


# Lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (" first\n- second\n-  third", ["first", "second", "third"]),
        ("1. one\n2) two\n(3) three\n* four\n• five\n•six", ["one", "two", "three", "four", "five", "six"]),
        ("-5 degrees\n3.14 is pi\n1945. The war ended", ["-5 degrees", "3.14 is pi", "1945. The war ended"]),
        ("-\n1.\n---\n***\n\n \t\nreal", ["real"]),
        ("same\nsame", ["same", "same"]),
        ("Question: Who?\nAnswer: Ann", ["Question: Who? Answer: Ann"]),
        (
            "Question 1: Who?\n\nAnswer: Ann\nQuestion 2: Why?\nAnswer: So",
            ["Question: Who? Answer: Ann", "Question: Why? Answer: So"],
        ),
        ("Q: Who?\nA: Ann", ["Question: Who? Answer: Ann"]),
        (" Who?\nAnswer: Ann\nWhy?\nBecause.", ["Question: Who? Answer: Ann", "Why?", "Because."]),
        ("**Question:** Who?\n**Answer:** Ann", ["Question: Who? Answer: Ann"]),
        ("- Question: Who? Answer: Ann\n- Answer: me", ["Question: Who? Answer: Ann", "Answer: me"]),
        ("Question: Who?\nQuestion: Why?\nAnswer: So", ["Question: Who?", "Question: Why? Answer: So"]),
        ("Question: Who? Answer: me?\nAnswer: you", ["Question: Who? Answer: me?", "Answer: you"]),
        ("Question: Who?\na fact\nAnswer: Ann", ["Question: Who?", "a fact", "Answer: Ann"]),
        ("last Question: Who?\nQuestion: Who?", ["last Question: Who?", "Question: Who?"]),
        ("nul\x00 and\x1b[0m bell\x07\r\nnext", ["nul  and [0m bell", "next"]),
        ("half \ud800 pair", ["half \ufffd pair"]),
        ("北京是首都。\nمدينة", ["北京是首都。", "مدينة"]),
    ],
)
def test_lines_are_what_was_written_without_its_layout(text: str, lines: list[str]) -> None:
    assert edit_lines(text) == lines


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("1. one\n\n2. two\n- three", ["1. one", "2. two", "- three"]),
        ("Sure, here they are:\n1. one\n2. two", ["1. one", "2. two"]),
        ("Let me think.\nImplications:\n1. one", ["1. one"]),
        ("one\n---\ntwo --- three", ["one", "two", "three"]),
        (
            "Who?\nAnswer: Ann\n\nQuestion 2: Why?\nAnswer: So",
            ["Question 1: Who?\nAnswer: Ann", "Question 2: Why?\nAnswer: So"],
        ),
        ("Question 1: Who?\nAnswer: Ann", ["Question 1: Who?\nAnswer: Ann"]),
    ],
)
def test_the_papers_rules_split_as_seal_does(text: str, lines: list[str]) -> None:
    assert edit_lines(text, SEAL_RULES) == lines


ODD_TEXTS = st.one_of(
    st.text(st.characters()),  # any code point, lone surrogates and controls included
    st.lists(
        st.sampled_from(
            [
                "- ",
                "1. ",
                "Question 1:",
                "Answer:",
                "Q:",
                "**",
                "\n",
                "\nImplications:",
                "---",
                "{",
                '"lines": [',
                "\x00",
                "\u2028",
                "\ud800",
                "{title}",
                "a fact",
                "  ",
                "<|endoftext|>",
                "•",
                "\r\n",
                "100) ",
            ]
        ),
        max_size=40,
    ).map("".join),
    st.builds(lambda unit, n: unit * n, st.text(min_size=1, max_size=4), st.integers(1, 3000)),
    st.recursive(
        st.none() | st.text() | st.floats(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    ).map(json.dumps),
)
RULES = st.builds(
    Rules,
    st.sampled_from(["plain", "seal"]),
    st.integers(1, 8),
    st.integers(2, 80),
    st.integers(2, 400),
    st.integers(1, 100),
    st.booleans(),
    st.booleans(),
)


@settings(max_examples=1600, deadline=None)
@given(ODD_TEXTS, RULES, st.integers(2, 100), st.sampled_from([WORLD, SEAL]))
@example("\ud800", PLAIN, 2, WORLD)
def test_any_completion_is_taken_within_the_limits(text: str, rules: Rules, window: int, templates: Templates) -> None:
    edit = parse(text, templates, window, rules)
    assert bool(edit.reason) != bool(edit.sequences)
    assert edit.lines == tuple(edit_lines(text, rules))
    assert len(edit.lines) <= rules.max_lines
    assert all(0 < len(line) <= rules.max_line_chars for line in edit.lines)
    for sequence in edit.sequences:
        assert 2 <= len(sequence.ids) <= window
        assert sequence.mask == (False,) + (True,) * (len(sequence.ids) - 1)
    if not edit.reason:
        own = edit.sequences[: len(edit.lines)] if rules.include_context else edit.sequences
        assert all(len(sequence.ids) <= rules.max_line_tokens for sequence in own)
        assert sum(len(sequence.ids) for sequence in own) <= rules.max_tokens
    if rules.split == "plain":
        assert not any(line != line.strip() or "\n" in line for line in edit.lines)


UNITS = [
    "[",
    "[\n",
    '{"a":',
    "```\n",
    "**",
    "**a",
    "<p>",
    "<!--",
    '"',
    "a)\n",
    "Sure!\n",
    "Q.1",
    "| a | ",
    "'a',",
    "> ",
    "Questions\n",
    "1. a?\n",
]


@pytest.mark.parametrize("rules", [PLAIN, SEAL_RULES])
@pytest.mark.parametrize(
    "unit", ["Question ", "-\t", "*", "q ", "Answer 1", "1", " ", "\n", "- \n", "Question 1:\n", "•", "---", *UNITS]
)
def test_a_completion_without_end_takes_no_time(unit: str, rules: Rules) -> None:
    began = time.process_time()
    parse(unit * (100_000 // len(unit)), rules=rules)
    parse("Question" + unit * (100_000 // len(unit)) + "x", rules=rules)
    assert time.process_time() - began < 2


# Sequences


def test_every_line_is_a_sequence_that_ends_with_eos() -> None:
    edit = parse("- one\n- two", SEAL)
    assert [decode(s.ids) for s in edit.sequences] == ["Super Bowl\none", "Super Bowl\ntwo"]
    assert all(s.ids[0] == BOS and s.ids[-1] == EOS for s in edit.sequences)


def test_a_long_line_is_cut_and_not_ended() -> None:
    edit = parse("short\n" + "x" * 100, window=32)
    assert [len(s.ids) for s in edit.sequences] == [7, 32]
    assert edit.sequences[1].ids == tuple(encode("x" * 31))
    assert len(parse("x" * 100, rules=Rules(max_line_tokens=10)).sequences[0].ids) == 10
    assert parse("x" * 100, rules=Rules(max_line_chars=10)).sequences[0].ids == tuple(encode("x" * 10))


def test_lines_beyond_the_limit_are_dropped() -> None:
    edit = parse("\n".join(f"line {n}" for n in range(10)), rules=Rules(max_lines=3))
    assert edit.lines == ("line 0", "line 1", "line 2")


def test_the_passage_comes_last_in_chunks_that_predict_every_token_once() -> None:
    edit = parse("one", SEAL, window=20, rules=Rules(include_context=True))
    whole = [*encode(f"Super Bowl\n{TASK.text}"), EOS]
    chunks = edit.sequences[1:]
    assert chunks == passage_sequences(TASK, Bytes(20), SEAL)
    assert [token for chunk in chunks for token in chunk.ids[1:]] == whole[1:]
    assert all(before.ids[-1] == after.ids[0] for before, after in pairwise(chunks))
    assert max(len(chunk.ids) for chunk in chunks) == 20


@settings(max_examples=200, deadline=None)
@given(st.integers(2, 40), st.text(min_size=0, max_size=120))
def test_chunks_of_any_passage_cover_it_exactly(window: int, text: str) -> None:
    task = replace(TASK, title="", context=(text,))
    chunks = passage_sequences(task, Bytes(window), LINE)
    assert [token for chunk in chunks for token in chunk.ids[1:]] == [*encode(text.strip()), EOS][1:]
    assert all(2 <= len(chunk.ids) <= window for chunk in chunks)


@pytest.mark.parametrize(
    ("text", "options", "reason"),
    [
        ("", {}, "empty"),
        (" \n\t", {}, "empty"),
        ("---\n***", {}, "no letter or digit"),
        ("... !?", {"rules": SEAL_RULES}, "no letter or digit"),
        ("- ", {}, "no letter or digit"),
        ("I'm sorry, but I can't help with that.", {}, "only talk around notes"),
        ("Sure!\n\nWould you like more?", {}, "only talk around notes"),
        ("a fact\n" * 20, {"rules": Rules(max_tokens=100)}, "160 tokens long, over the limit of 100"),
    ],
)
def test_an_unusable_edit_is_invalid_with_its_reason(text: str, options: dict[str, Any], reason: str) -> None:
    edit = parse(text, **options)
    assert edit.sequences == ()
    assert reason in edit.reason


def test_a_line_of_one_token_teaches_nothing() -> None:
    edit = sequences_for(TASK, ["x"], Bytes(encode_prompt=lambda text: [EOS]), LINE)
    assert edit.sequences == ()
    assert "two tokens" in edit.reason


def test_a_window_of_one_token_is_refused() -> None:
    with pytest.raises(SettingsError, match="window"):
        parse("x", window=1)
