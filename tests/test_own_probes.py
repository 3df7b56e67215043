"""Probes that the base writes for documents: read strictly, journaled, and held out of what edits teach."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selfedit.config import make_settings
from selfedit.edits.parsing.lines import Rules, edit_lines, sequences_for
from selfedit.edits.parsing.pairs import question_and_answer, says
from selfedit.errors import ModelError, RunError, TaskFileError
from selfedit.evaluation.experiment import run_experiment
from selfedit.evaluation.machine import load_engine
from selfedit.own_probes import answered_in, probes_in, with_probes
from selfedit.parts import Parts
from selfedit.policies.language_model import LanguageModel
from selfedit.run import OnEvent, ignore_event, open_run
from selfedit.tasks.sources.base import open_source
from selfedit.templates import built_in_templates
from selfedit.types import OWN, Completion, Edit, Probe, Task

# Reading


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("Question: Who? Answer: Ann", ("Who?", "Ann")),
        ("1. **Question 3:** Who is it?\n   **Answer:** Ann, of  course.", ("Who is it?", "Ann, of  course.")),
        ("Q: Who?\nA: Ann", ("Who?", "Ann")),
        ("Who is it?\nAnswer: Ann", ("Who is it?", "Ann")),
        ("Question: Who?", None),
        ("Question: Who?\nAnn", None),
        ("Question: Who? Answer:", None),
        ("Question: Who? Answer: ...", None),
        ("Question: ?! Answer: Ann", None),
        ("Answer: Ann", None),
        ("Ann is here.", None),
        ("Who? Answer: Ann", None),  # no label
        ("Question: Who? Answer: Ann Question: Where? Answer: Here", None),  # which is which?
    ],
)
def test_a_pair_is_a_labelled_question_with_one_answer(text: str, pair: tuple[str, str] | None) -> None:
    assert question_and_answer(edit_lines(text)[0]) == pair


@given(st.text(max_size=60), st.text(max_size=60))
def test_what_is_read_is_what_was_written(question: str, answer: str) -> None:
    pair = question_and_answer(f"Question: {question} Answer: {answer}")
    if pair is not None:
        assert pair[0] in question
        assert pair[1] in answer


def test_a_line_says_a_question_whatever_its_case_spaces_and_signs_and_not_a_part_of_a_word() -> None:
    question = "Who founded Acme?"
    for line in ("who FOUNDED\t  acme", "Q: Who founded Acme? A: Ann", "Who founded “Acme”, they ask.", question):
        assert says(line, question)
    for line in ("Who had founded Acme?", "Acme was founded by Ann.", "Who founded Acmeo?", "Pwho founded Acme"):
        assert not says(line, question)
    assert not says("anything", "?!")


def written(*texts: str, prompt: str = "Write:", finished: bool = True) -> Edit:
    first, *further = (Completion((), (), (), text, finished) for text in texts)
    return Edit("t", 0, "self_qa", prompt, first, 1.0, 1.0, 0, "base", further=tuple(further))


def test_probes_are_distinct_few_short_and_whole() -> None:
    pairs = [f"Question: Who is {name}? Answer: {name}, no {n}" for n, name in enumerate("ABCDE")]
    text = "\n".join([pairs[0], "Ann is here.", pairs[0].upper().replace("QUESTION", "Question"), *pairs])
    probes, reason, refused = probes_in(written(text), 3, lambda probe: "odd" * (probe.answer == "B, no 1"))
    assert [probe.question for probe in probes] == ["Who is A?", "Who is C?", "Who is D?"]
    assert refused == {"odd": 1, "asked before": 2, "more than tasks.probes_per_passage": 1}
    assert {probe.kind for probe in probes} == {OWN}
    assert not reason
    assert probes_in(written(pairs[0], pairs[1], finished=False), 3, lambda _: "")[0] == ()  # each is a last line
    cut = written("\n".join(pairs[:2]), pairs[2], finished=False)
    assert [p.answer for p in probes_in(cut, 3, lambda _: "")[0]] == ["A, no 0"]
    unlabelled = written(" Who is A?\nAnswer: A", prompt="...\nQuestion:")
    assert probes_in(unlabelled, 3, lambda _: "")[0] == (Probe("Who is A?", "A", OWN),)
    twice = written(" **Question 1:** Who is A?\nAnswer: A", prompt="...\nQuestion:")
    assert probes_in(twice, 3, lambda _: "")[0] == (Probe("Who is A?", "A", OWN),)


def test_why_there_is_no_probe_is_said() -> None:
    assert probes_in(written("Nothing."), 3, lambda _: "") == ((), "no line is a question with its answer", {})
    assert probes_in(written("Question: Who? Answer: A"), 3, lambda _: "too long").reason == "too long"


PASSAGE = "The mill of Harrowby was built in 1742 by Tobias Lund, a carpenter. It ground rye for nine villages."


@pytest.mark.parametrize(
    ("question", "answer", "passage", "stands"),
    [
        ("Who built it?", "Tobias Lund", PASSAGE, True),
        ("Who built it?", "the Carpenters", PASSAGE, True),
        ("Who built the mill?", "It was Lund, Tobias, who built the mill.", PASSAGE, True),
        ("When?", "in １７４２", PASSAGE, True),
        ("Who?", "Queen Victoria", PASSAGE, False),
        ("Who built it?", "Tobias Victoria", PASSAGE, False),
        ("How many moons has the mill?", "412", PASSAGE, False),
        ("When?", "174", PASSAGE, False),
        ("What?", "ill", PASSAGE, False),
        ("What is the capital of the mill?", "The capital of the mill is Atlantis", PASSAGE, False),
        ("Is it the mill of Harrowby?", "The mill of Harrowby", PASSAGE, False),  # the question says it
        ("Is it a mill?", "Yes", PASSAGE, False),
        ("谁建的？", "托比亚斯", "磨坊由托比亚斯建于1742年。", True),
        ("谁建的？", "维多利亚", "磨坊由托比亚斯建于1742年。", False),
        ("Кто?", "Тобиас", "Мельницу построил Тобиас.", True),
        ("Who?", "", PASSAGE, False),
    ],
)
def test_an_answer_stands_in_the_passage_word_by_word(question: str, answer: str, passage: str, stands: bool) -> None:
    assert answered_in(passage, Probe(question, answer)) == stands


# Held out


def test_lines_that_say_an_own_probe_are_not_trained_on_and_counted() -> None:
    lines = ["Ann founded Acme.", "Question: WHO founded  acme? Answer: Ann", "Question: Where is it? Answer: Here"]

    def parsed(kind: str, text: str, most: int = 9) -> Any:
        task = Task("t", "", ("Passage.",), (Probe("Who founded Acme?", "Ann", kind),))
        tokens: Any = SimpleNamespace(encode_prompt=lambda text: [*text.encode()], eos_id=0, window=99)
        return sequences_for(task, [text], tokens, built_in_templates()["world"], Rules(max_lines=most))

    own = parsed(OWN, "\n".join(lines))
    assert (own.lines, own.held_out, len(own.sequences)) == ((lines[0], lines[2]), 1, 2)
    assert not any(b"founded  acme" in bytes(sequence.ids) for sequence in own.sequences)
    assert len(parsed(OWN, "\n".join(lines), 2).lines) == 2  # what is held out takes no other line's place
    assert (len(parsed("", "\n".join(lines)).lines), parsed("", "\n".join(lines)).held_out) == (3, 0)
    nothing = parsed(OWN, lines[1])
    assert (nothing.held_out, nothing.sequences) == (1, ())
    assert "every line of the edit says one of the task's own probes" in nothing.reason


# A run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Ten documents of two passages, long enough to be passages of their own."""
    (tmp_path / "docs").mkdir()
    for n in range(10):
        text = "".join(f"## Section {i}\nPassage {n}-{i} says something.\n\n" for i in range(2))
        (tmp_path / "docs" / f"doc{n}.md").write_text(text)
    return tmp_path / "docs"


@pytest.fixture
def own_fields(tiny_qwen2: str, folder: Path) -> dict[str, Any]:
    return {
        "rounds": 1,
        "model": {"path": tiny_qwen2, "members_at_once": 4, "dtype": "fp32", "memory_gib": 1.0},
        "tasks": {"source": str(folder), "per_round": 2, "dev": 2, "evaluation": 3, "probes_per_passage": 2},
        "edits": {"per_task": 2, "max_new_tokens": 12},
        "inner": {"steps": 2, "batch_size": 2, "rank": 4, "alpha": 8.0},
        "reward": {"metric": "exact_match", "max_answer_tokens": 12},
        "algorithm": {"epochs": 1, "rank": 4, "alpha": 8.0, "rest_em": {"positive_only": False}},
        "ladder": {"rungs": ["no_edit", "base_self_qa", "rounds", "in_context"]},
        "guards": {"max_norm_ratio": 100.0, "max_kl": 100.0},
    }


PAIRS = " What says something?\nAnswer: passage {n}\nQuestion: What is {n}?\nAnswer: a passage"
NONSENSE = "Question: Who wrote {n}?\nAnswer: Queen Victoria\nQuestion: How many moons has {n}?\nAnswer: 412"


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A base that answers the prompt for pairs with ``PAIRS``, or what is put here by passage; ``asked``: the passages."""
    said: dict[str, Any] = {"asked": []}
    propose = LanguageModel.propose

    def write(self: LanguageModel, tasks: Sequence[Task], k: int, seed: int, form: str = "") -> list[Edit]:
        edits = propose(self, tasks, k, seed, form)
        if form != "self_qa":
            return edits
        assert self.adapter is None
        passages = [re.search(r"\d-\d", task.text)[0] for task in tasks]  # type: ignore[index]
        said["asked"] += passages
        return [
            replace(e, completion=replace(e.completion, text=said.get(n, PAIRS).replace("{n}", n), finished=True))
            for e, n in zip(edits, passages, strict=True)
        ]

    monkeypatch.setattr(LanguageModel, "propose", write)
    return said


def chunks(run: Path) -> list[Any]:
    with sqlite3.connect(run / "journal.db") as db:
        return db.execute("select key, data from chunks order by key").fetchall()


def test_a_folder_runs_through_every_stage_on_the_bases_own_probes(
    own_fields: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    summary = run_experiment(make_settings(own_fields), tmp_path / "run")
    rungs = {row["rung"]: row for row in summary["ladder"]}
    assert {row["n_tasks"] for row in rungs.values()} == {3}
    assert {row["n_probes"] for row in rungs.values()} == {6}
    # The base's pairs are the probes themselves: nothing of them is left to train on.
    assert (rungs["base_self_qa"]["lines_held_out"], rungs["base_self_qa"]["failed_edits"]) == (6, 3)
    assert any("base_self_qa: trained without 6 lines of its edits" in note for note in summary["notes"])
    assert rungs["round_1"]["lines_held_out"] == summary["rounds"][1]["lines_held_out"] == 0
    assert {row["kind"] for row in summary["by_kind"]} == {OWN}
    with sqlite3.connect(tmp_path / "run" / "journal.db") as db:
        answered = db.execute("select question, gold from answers").fetchall()
    assert answered
    assert all(
        re.fullmatch(r"What (says something|is \d-\d)\?", q) and re.fullmatch(r"a passage|passage \d-\d", g) for q, g in answered
    )


def asked(fields: dict[str, Any], directory: Path, on_event: OnEvent = ignore_event) -> list[list[Task]]:
    """What a run's beginning, and three rounds of it, ask for."""
    with open_run(directory, make_settings(fields), on_event) as run:
        engine = load_engine(run.settings)
        source = with_probes(open_source(run.settings), Parts.of(run, engine, engine, str))
        return [source.evaluation(), source.dev(), *(source.draw(round) for round in (1, 2, 3))]


def test_a_run_that_goes_on_asks_what_it_asked_and_has_no_probe_written_twice(
    own_fields: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    fields = own_fields | {"tasks": own_fields["tasks"] | {"per_round": 5}}
    whole = asked(fields, tmp_path / "whole")
    assert [len(tasks) for tasks in whole] == [3, 2, 5, 5, 5]
    assert {task.id for task in whole[4]} <= {task.id for task in whole[2] + whole[3]}  # ten are there for training
    assert all(len(task.probes) == 2 and task.held_out for tasks in whole for task in tasks)
    once = sorted(base["asked"])
    assert len(once) == len(set(once)) == 3 + 2 + 10
    base["asked"].clear()
    for key in ("probes/evaluation", "probes/dev", "probes/round-2"):

        def stop(kind: str, data: dict[str, Any], key: str = key) -> None:
            if kind == "progress" and data["name"] == key:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            asked(fields, tmp_path / "stopped", stop)
    assert asked(fields, tmp_path / "stopped") == whole
    assert sorted(base["asked"]) == once
    assert chunks(tmp_path / "stopped") == chunks(tmp_path / "whole")


def test_passages_without_a_probe_are_left_out_with_a_warning(
    own_fields: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    told: list[tuple[str, dict[str, Any]]] = []
    whole = asked(own_fields, tmp_path / "whole", lambda kind, data: told.append((kind, data)))
    assert "warning" not in [kind for kind, _ in told]
    first, second, _ = base["asked"][:3]
    base[first], base[second] = "No pairs at all.", f"Question: Who? Answer: {'Passage ' * 20}"
    fewer = asked(own_fields, tmp_path / "fewer", lambda kind, data: told.append((kind, data)))
    share, warning = [data for kind, data in told if kind == "warning"]
    assert share["text"] == (
        "evaluation: The base wrote 3 question(s) with answers about 3 passage(s). The answers to 3 (100%) stand in the passage, "
        "and 2 are asked (not asked: its questions or answers are too long: 1)."
    )
    assert "2 of 3 passages (evaluation) got no usable probe" in warning["text"]
    assert "no line is a question with its answer: 1" in warning["text"]
    assert "too long: 1" in warning["text"]
    assert warning["tasks"] == [task.id for task in whole[0][:2]]
    assert fewer == [whole[0][2:], *whole[1:]]


def test_pairs_about_what_the_passage_does_not_say_are_refused_and_their_share_is_told(
    own_fields: dict[str, Any], base: dict[str, Any], tmp_path: Path
) -> None:
    told: list[str] = []

    def listen(kind: str, data: dict[str, Any]) -> None:
        told.extend([data["text"]] if kind == "warning" else [])

    for n in ("0-0", "0-1", "1-0", "1-1"):
        base[n] = NONSENSE + "\nQuestion:" + PAIRS
    with open_run(tmp_path / "run", make_settings(own_fields), listen) as run:
        engine = load_engine(run.settings)
        source = with_probes(open_source(run.settings), Parts.of(run, engine, engine, str))
        tasks = [*source.evaluation(), *source.dev(), *(task for round in range(1, 9) for task in source.draw(round))]
        (note,) = getattr(source, "notes", ())
    assert {probe.question for task in tasks for probe in task.probes} == {"What says something?"} | {
        f"What is {task.text[8:11]}?" for task in tasks
    }
    assert re.search(
        r"wrote (\d+) question.* The answers to (\d+) \(\d+%\) stand in the passage, and \2 are asked \(not asked: "
        r"its answers do not stand in the passage: \d\)",
        note,
    )
    n = int(re.search(r"wrote (\d+)", note)[1])  # type: ignore[index]
    assert n == 2 * len({task.id for task in tasks}) + int(note.rstrip(").")[-1])
    base |= {f"{i}-{j}": NONSENSE for i in range(10) for j in range(2)}
    with pytest.raises(
        ModelError, match=r"3 of 3 passages \(evaluation\) got no usable probe \(its answers do not stand in the pa"
    ):
        asked(own_fields, tmp_path / "nonsense")


def test_a_base_that_writes_no_pair_is_named_with_what_to_do(own_fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"3 of 3 passages \(evaluation\) got no usable probe \(no line.*: 3\); take"):
        run_experiment(make_settings(own_fields), tmp_path / "run")


def test_a_passage_longer_than_the_window_has_no_probe_and_says_why(
    own_fields: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    for path in folder.iterdir():
        path.write_text(f"{path.stem} is " + "long " * 400)
    settings = make_settings(own_fields | {"tasks": own_fields["tasks"] | {"passage_chars": 9000}})
    with pytest.raises(ModelError, match=r"over the model's window of 700: 3\); take"):
        run_experiment(settings, tmp_path / "run")


def test_documents_that_changed_since_a_run_began_are_refused(
    own_fields: dict[str, Any], base: dict[str, Any], folder: Path, tmp_path: Path
) -> None:
    asked(own_fields, tmp_path / "run")
    for path in folder.iterdir():
        path.write_text(path.read_text().replace("something", "another thing"))
    with pytest.raises(RunError, match="the documents are not those that it began with"):
        asked(own_fields, tmp_path / "run")


def test_an_answer_longer_than_the_window_is_named(own_fields: dict[str, Any], tmp_path: Path) -> None:
    rows = [{"id": f"t{n}", "context": f"C {n}.", "probes": [{"question": "Who?", "answer": "x" * 800}]} for n in range(12)]
    source = tmp_path / "tasks.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)))
    settings = make_settings(own_fields | {"tasks": own_fields["tasks"] | {"source": str(source)}})
    with pytest.raises(TaskFileError, match=r"the task 't\d+': the answer is 80\d tokens long.* of 700 .*'Who\?'\); shorten"):
        run_experiment(settings, tmp_path / "run")
