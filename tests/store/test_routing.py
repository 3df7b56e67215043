"""Routing: a question finds its document by a name, and one that is about none of them finds none."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.store.routing import Router
from selfedit.tasks.files import read_tasks
from selfedit.tasks.sources.world import draw_tasks, known_probes
from selfedit.types import Task


def document(number: int, text: str) -> Task:
    return Task(str(number), "", (text,), ())


def test_world_questions_find_their_passage_and_what_is_known_by_heart_finds_none():
    tasks = draw_tasks("dev", ("e1",), 60, 5, 8)
    background = [task.text for task in draw_tasks("train", ("e1",), 100, 6)]
    router = Router(tasks, background)
    right = [router.route(probe.question) == i for i, task in enumerate(tasks) for probe in task.probes]
    assert sum(right) / len(right) > 0.95
    known = [router.route(probe.question) is None for probe in known_probes(100, 7)]
    assert sum(known) / len(known) > 0.9


def test_squad_questions_find_their_passage(shared_data):
    tasks = [task for i, task in enumerate(read_tasks(shared_data("squad/squad_val.json"))) if i % 20 == 0]
    router = Router(tasks)
    right = [router.route(probe.question) == i for i, task in enumerate(tasks) for probe in task.probes]
    assert sum(right) / len(right) > 0.6


def test_a_common_pair_routes_nothing_and_more_shared_words_win():
    same = [document(i, f"The old town of Name{i} Hill has a mill.") for i in range(8)]
    router = Router([*same, document(8, "Ada Gray met Ben Holt in Rome."), document(9, "Ada Gray met Cal Moor.")])
    assert router.route("Is there a mill in the old town of?") is None
    assert router.route("Whom did Ada Gray know?") is None  # two documents have the name: more than one in a hundred
    assert router.route("Where did Ben Holt meet her?") == 8
    assert router.route("Does Name3 Hill have a mill?") == 3


@given(st.text(max_size=60))
def test_any_question_is_answered(question):
    router = Router([document(0, "Ada Gray met Ben Holt."), document(1, 'quotes " and * AND OR NEAR(x) \x00 words')])
    assert router.route(question) in (None, 0, 1)


@pytest.mark.parametrize("documents", [[], [document(0, "")]])
def test_no_document_is_ever_right(documents):
    assert Router(documents).route("Ada Gray?") is None
