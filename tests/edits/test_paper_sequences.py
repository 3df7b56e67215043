"""What the presets ``paper`` and ``clean`` train on, against the rules as they are written down about SEAL."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from selfedit.config import make_settings
from selfedit.edits.parsing.lines import sequences_for
from selfedit.edits.text import passage_change, text_change
from selfedit.templates import built_in_templates, prompt_for
from selfedit.types import Probe, Task, TrainSequence

EOS = 0
PASSAGE = "Ann lives in Rome.\n She is old.  "


class Words:
    """As much of an engine as sequences need. A token is a word with the white space before it; no text is lost."""

    eos_id, window = EOS, 4096

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def encode_prompt(self, text: str) -> list[int]:
        return [self.known.setdefault(word, 1 + len(self.known)) for word in re.findall(r"\s*\S+|\s+$", text)]

    def text(self, ids: tuple[int, ...]) -> str:
        words = list(self.known)
        return "".join(words[i - 1] for i in ids)


def trained_on(preset: str, task: Task, text: str, **inner: Any) -> tuple[list[str], list[TrainSequence], Words]:
    """The texts of an edit's sequences, the sequences, and their engine."""
    settings = make_settings({"preset": preset, "model": {"path": "some/model"}, "inner": inner})
    words = Words()
    parsed = text_change(settings, words, task, [text])
    assert not parsed.invalid
    texts = []
    for sequence in parsed.sequences:
        n = next((i for i, token in enumerate(sequence.ids) if token == EOS), len(sequence.ids))
        texts.append(words.text(sequence.ids[:n]))
    return texts, list(parsed.sequences), words


def task_of(title: str, context: str) -> Task:
    return Task(title, title, (context,), (Probe("Who?", "Ann"),))


def by_the_rules(title: str, context: str, text: str) -> list[str]:
    """The sequences of a listed edit, told without regular expressions: the list's lines under the title, then the passage."""
    _, heading, rest = text.partition("\nImplications:")
    lines = []
    for line in (rest if heading else text).split("\n"):
        for part in line.split("---"):
            if part.strip():
                lines.append(part.strip())
    if lines[1:] and lines[1][:2] == "1.":
        del lines[0]
    return [f"{title}\n{line}" for line in lines[:30]] + [f"{title}\n{context.strip()}"]


@pytest.mark.parametrize("preset", ["paper", "clean"])
def test_all_logged_completions_become_what_seal_trains_on(preset: str, shared_data: Callable[[str], Path]) -> None:
    articles = json.loads(shared_data("seal/rank_iter0.json").read_text(encoding="utf-8"))["articles"]
    completions = [(article, completion["text"]) for article in articles for completion in article["completions"]]
    assert len(completions) == 250
    for article, text in completions:
        texts, sequences, words = trained_on(preset, task_of(article["title"], article["context"]), text)
        assert texts == by_the_rules(article["title"], article["context"], text)
        for sequence, told in zip(sequences, texts, strict=True):
            ids = words.encode_prompt(told)
            filled = 2048 - len(ids) if preset == "paper" else 1
            assert sequence.ids == (*ids, *[EOS] * filled)
            assert sequence.mask == (False, *[True] * (len(ids) + filled - 1))
            assert sequence.padding == (filled if preset == "paper" else 0)


def test_the_prompts_passage_is_laid_out_as_in_the_logged_round(shared_data: Callable[[str], Path]) -> None:
    for article in json.loads(shared_data("seal/rank_iter0.json").read_text(encoding="utf-8"))["articles"]:
        ours = prompt_for(task_of(article["title"], article["context"]), "implications", built_in_templates()["general"])
        assert ours.partition("Passage:")[2] == article["prompt"].partition("Passage:")[2]


def test_plain_rules_take_every_logged_completion(shared_data: Callable[[str], Path]) -> None:
    words = Words()
    for article in json.loads(shared_data("seal/rank_iter0.json").read_text(encoding="utf-8"))["articles"]:
        task = task_of(article["title"], article["context"])
        for completion in article["completions"]:
            plain = sequences_for(task, [completion["text"]], words, built_in_templates()["general"])
            assert not plain.reason
            assert not any(line.startswith(("- ", "1. ", "2. ")) for line in plain.lines)


@pytest.mark.parametrize(
    ("text", "items"),
    [
        ("1. Rome has Ann.\n2. Ann is old.", ["1. Rome has Ann.", "2. Ann is old."]),
        ("Here is a list:\n\n1. Rome has Ann.\n2. Ann is old.", ["1. Rome has Ann.", "2. Ann is old."]),
        (
            "Here is a list:\nRome has Ann.",
            ["Here is a list:", "Rome has Ann."],
        ),  # no number: nothing tells it is a preamble
        ("Ann is old.\n---\nRome has Ann.\n---", ["Ann is old.", "Rome has Ann."]),
        ("Ann is old. --- Rome has Ann.", ["Ann is old.", "Rome has Ann."]),
        ("Thinking.\nImplications:\nAnn is old.", ["Ann is old."]),
        (
            " Who is old?\nAnswer: Ann\n\nQuestion 2: Where is Ann?\nAnswer: In Rome,\nin Italy\n",
            ["Question 1: Who is old?\nAnswer: Ann", "Question 2: Where is Ann?\nAnswer: In Rome,\nin Italy"],
        ),
        (
            "Question 1: Who --- which one?\nAnswer: Ann\nQuestion 2: How?\nAnswer: So",
            ["Question 1: Who --- which one?\nAnswer: Ann", "Question 2: How?\nAnswer: So"],
        ),
        ("Question: Who?\nAnswer: Ann", ["Question: Who?", "Answer: Ann"]),  # pairs without numbers are lines
        ("\n".join(f"{n}. It is {n}." for n in range(1, 40)), [f"{n}. It is {n}." for n in range(1, 31)]),
    ],
)
@pytest.mark.parametrize("preset", ["paper", "clean"])
def test_an_edits_items_come_under_the_title_and_the_passage_last(preset: str, text: str, items: list[str]) -> None:
    texts, _, _ = trained_on(preset, task_of("Ann", PASSAGE), text)
    assert texts == [*(f"Ann\n{item}" for item in items), f"Ann\n{PASSAGE.strip()}"]


def test_padding_stops_at_the_models_window_and_takes_the_place_of_the_end() -> None:
    task = task_of("Ann", PASSAGE)
    _, sequences, words = trained_on("paper", task, "one\n" + "two " * 20, pad_to=12)
    assert [len(sequence.ids) for sequence in sequences] == [12] * 3
    assert [sequence.padding for sequence in sequences] == [10, 0, 4]  # the long line is cut there, and has no end
    words.window = 10
    settings = make_settings({"preset": "paper", "model": {"path": "some/model"}})
    parsed = text_change(settings, words, task, ["one"])
    assert [(len(sequence.ids), sequence.padding) for sequence in parsed.sequences] == [(10, 8), (10, 2)]


def test_the_bare_passage_is_padded_as_edits_are() -> None:
    task, words = task_of("Ann", PASSAGE), Words()
    lengths = {}
    for preset in ("paper", "clean"):
        settings = make_settings({"preset": preset, "model": {"path": "some/model"}})
        edit = text_change(settings, words, task, ["one"])
        alone = passage_change(settings, words, task)
        assert alone.sequences == edit.sequences[1:]
        lengths[preset] = [len(sequence.ids) for sequence in alone.sequences]
    assert lengths == {"paper": [2048], "clean": [9]}
