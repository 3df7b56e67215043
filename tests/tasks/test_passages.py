"""What the README of the passages that ship with the package promises."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from selfedit.config import make_settings
from selfedit.rewards.string_rules import normalise
from selfedit.tasks.files import read_tasks
from selfedit.tasks.sources.base import TaskSource, open_source
from selfedit.tasks.sources.passages import PASSAGES
from selfedit.types import Task

KINDS = {"who", "where", "when", "how many", "what", "why"}
# Words of a title that any passage could have.
SMALL_WORDS = {"a", "and", "at", "in", "of", "on", "the", "v"}


@pytest.fixture(scope="module")
def passages() -> list[Task]:
    return list(read_tasks(PASSAGES))


def words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def runs(text: str, n: int) -> set[tuple[str, ...]]:
    """Every ``n`` words in a row."""
    found = words(text)
    return {tuple(found[i : i + n]) for i in range(len(found) - n + 1)}


def holds(text: str, part: str) -> bool:
    return f" {' '.join(words(part))} " in f" {' '.join(words(text))} "


def test_there_are_72_passages_of_80_to_130_words_with_6_questions_each(passages: list[Task]) -> None:
    assert len(passages) == 72
    assert {len(task.probes) for task in passages} == {6}
    odd = {task.id: len(task.text.split()) for task in passages if not 80 <= len(task.text.split()) <= 130}
    assert not odd


def test_a_gold_answer_stands_in_its_passage_and_in_no_question_about_it(passages: list[Task]) -> None:
    for task in passages:
        for probe in task.probes:
            assert re.search(rf"(?<!\w){re.escape(probe.answer)}(?!\w)", task.text), probe
            assert 1 <= len(probe.answer.split()) <= 5, probe
            assert not any(holds(other.question, probe.answer) for other in task.probes), probe
            assert not any(holds(probe.question, gold) for gold in probe.golds), probe
            normalised = [normalise(gold) for gold in probe.golds]
            assert all(normalised), probe
            assert probe.kind in KINDS, probe


def test_a_question_names_its_subject_and_is_asked_once(passages: list[Task]) -> None:
    asked = Counter(" ".join(words(probe.question)) for task in passages for probe in task.probes)
    assert max(asked.values()) == 1
    for task in passages:
        subject = {word[:5] for word in words(task.title) if word not in SMALL_WORDS}
        for probe in task.probes:
            assert subject & {word[:5] for word in words(probe.question)}, (task.title, probe.question)


def test_no_two_passages_share_five_words_in_a_row_or_a_person(passages: list[Task]) -> None:
    # Some words of a passage may be another's: five in a row are its wording, and two capitals in a row a name.
    shared = Counter(run for task in passages for run in runs(task.text, 5))
    assert [run for run, n in shared.items() if n > 1] == []
    people = Counter(p.answer for task in passages for p in task.probes if p.kind == "who" and p.answer.istitle())
    assert [name for name, n in people.items() if n > 1] == []


def test_every_kind_of_question_is_asked_often(passages: list[Task]) -> None:
    kinds = Counter(probe.kind for task in passages for probe in task.probes)
    assert set(kinds) == KINDS
    assert min(kinds.values()) >= 12


def test_no_year_of_the_present_or_the_past_is_an_answer(passages: list[Task]) -> None:
    years = [int(year) for task in passages for p in task.probes for year in re.findall(r"\b[12]\d{3}\b", p.answer)]
    assert len(years) > 20
    assert min(years) > 2025


def test_passages_are_a_source_by_name_with_splits_that_never_meet() -> None:
    def source(split: str) -> TaskSource:
        tasks = {"source": "passages", "evaluation": 8, "dev": 8, "per_round": 48, "split": split}
        return open_source(make_settings({"tasks": tasks}))

    dev, test = source("dev"), source("test")
    parts = [dev.evaluation(), test.evaluation(), dev.dev(), dev.draw(1)]
    assert [len(part) for part in parts] == [8, 8, 8, 48]
    assert len({task.id for part in parts for task in part}) == 72
