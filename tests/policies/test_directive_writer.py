"""The policy that writes directives: what it writes depends on task, number and seed alone, and REINFORCE learns from it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from selfedit.algorithms.base import RatedEdit, State
from selfedit.algorithms.common.training import cloning_sequence, per_token
from selfedit.config import Settings, make_settings
from selfedit.engine.torch_engine import TorchEngine
from selfedit.evaluation.machine import load_engine
from selfedit.plugins import find
from selfedit.policies.directive_writer import DirectiveWriter
from selfedit.templates import prompt_for
from selfedit.types import Completion, Edit, Probe, Task

TASKS = [Task(f"t{n}", "", (f"The town {n} is old.",), (Probe("Is it?", "yes"),)) for n in range(2)]


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def settings_for(fields: dict[str, Any], **directives: Any) -> Settings:
    edits = {"kind": "directives", "max_new_tokens": 2, "directives": directives}
    return make_settings(fields | {"edits": fields["edits"] | edits})


@pytest.fixture(scope="module")
def engine(fields: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> TorchEngine:
    """The tiny random model with larger embeddings: as it is no change of its layers can make it sure of a token."""
    directory, path = tmp_path_factory.mktemp("sure"), fields["model"]["path"]
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    with torch.no_grad():
        model.get_output_embeddings().weight *= 10
    model.save_pretrained(directory)
    AutoTokenizer.from_pretrained(path).save_pretrained(directory)
    found = load_engine(make_settings(fields | {"model": fields["model"] | {"path": str(directory)}}))
    assert isinstance(found, TorchEngine)
    return found


def test_every_edit_is_a_directive_with_the_texts_that_it_asks_for(fields: dict[str, Any], engine: TorchEngine) -> None:
    settings = settings_for(fields)
    writer = DirectiveWriter(engine, None, settings)
    edits = writer.propose(TASKS, 3, 5)
    assert [edit.id for edit in edits] == [f"t{n}#{i}" for n in range(2) for i in range(3)]
    for edit in edits:
        directive, note, problem = writer.kind.read(edit.completion.text)
        assert (note, problem, edit.problem, edit.kind) == ("", "", "", "directives")
        assert directive is not None
        assert edit.form == "+".join(directive.forms)
        task = next(task for task in TASKS if task.id == edit.task_id)
        asked = [engine.encode_prompt(prompt_for(task, form, settings.templates)) for form in directive.asked]
        assert [list(text.prompt_ids) for text in edit.further] == asked
        assert json.loads(edit.completion.text)["steps"] == directive.steps
    assert writer.propose(TASKS, 3, 5) == edits
    assert len({edit.completion.text for edit in edits}) > 1


def test_a_passage_that_leaves_no_room_for_a_directive_gives_an_edit_without_one(
    fields: dict[str, Any], engine: TorchEngine
) -> None:
    writer = DirectiveWriter(engine, None, settings_for(fields))
    word, task = " old", TASKS[0]
    while len(writer.encode(writer.kind.prompt(task))) < engine.window - 20:
        task = replace(task, context=(task.text + word,))
    assert not writer.problem(writer.encode(writer.kind.prompt(task)))  # a token fits
    (edit,) = writer.propose([task], 1, 5)
    assert "more, over the model's window" in edit.problem
    assert not edit.further


def test_an_edit_depends_on_its_task_its_number_and_the_seed_alone(fields: dict[str, Any], engine: TorchEngine) -> None:
    writer = DirectiveWriter(engine, None, settings_for(fields))

    def said(edits: Sequence[Edit]) -> dict[str, list[str]]:
        return {edit.id: [completion.text for completion in edit.completions] for edit in edits}

    all_of_them = said(writer.propose(TASKS, 3, 5))
    assert said(writer.propose(TASKS[1:], 2, 5)) == {i: all_of_them[i] for i in ("t1#0", "t1#1")}
    assert said(writer.propose(TASKS, 3, 6)) != all_of_them


def test_a_choice_has_a_temperature_of_its_own(fields: dict[str, Any], engine: TorchEngine) -> None:
    settings = settings_for(fields, temperature=0.2)
    edit = DirectiveWriter(engine, None, settings).propose(TASKS[:1], 1, 5)[0]
    assert edit.temperature == 0.2

    def logprobs(completion: Completion, temperature: float) -> list[float]:
        sequence = cloning_sequence(completion)
        return per_token(engine, None, [sequence], lambda states: states.logprobs(temperature), 1)[0].tolist()

    def sampled(completion: Completion) -> list[float]:
        return [p for p, chosen in zip(completion.logprobs, completion.chosen, strict=True) if chosen]

    assert sampled(edit.completion) == pytest.approx(logprobs(edit.completion, 0.2), abs=1e-3)
    assert sampled(edit.completion) != pytest.approx(logprobs(edit.completion, 1.0), abs=1e-3)


def test_a_rung_may_ask_for_text_edits_in_place_of_directives(fields: dict[str, Any], engine: TorchEngine) -> None:
    (edit,) = DirectiveWriter(engine, None, settings_for(fields)).propose(TASKS[:1], 1, 5, "self_qa")
    assert (edit.kind, edit.form, edit.further) == ("text", "self_qa", ())


def test_a_passage_too_long_for_the_window_has_an_edit_that_says_so(fields: dict[str, Any], engine: TorchEngine) -> None:
    long = replace(TASKS[0], id="long", context=("old " * 2000,))
    found, other = DirectiveWriter(engine, None, settings_for(fields)).propose([long, TASKS[1]], 1, 5)
    assert "window" in found.problem
    assert found.completion.token_ids == ()
    assert other.problem == ""


def test_only_what_was_chosen_is_learned_from(fields: dict[str, Any], engine: TorchEngine) -> None:
    (edit,) = DirectiveWriter(engine, None, settings_for(fields)).propose(TASKS[:1], 1, 5)
    sequence = cloning_sequence(edit.completion)
    n = len(edit.completion.prompt_ids)
    assert not any(sequence.mask[:n])
    assert sequence.mask[n:] == edit.completion.chosen
    assert 0 < sequence.n_targets < len(edit.completion.token_ids)


def test_reinforce_learns_which_directive_is_worth_more(fields: dict[str, Any], engine: TorchEngine) -> None:
    """Two directives that differ in one token: a bandit with two arms, on a model with all of its weights."""
    own = {"forms": [["implications"]], "samples": [1], "lr_factors": [1.0], "rank": [4], "layers": ["all"]}
    settings = settings_for(fields, **own, steps=[3, 12])
    gradient = {
        "name": "reinforce",
        "rank_by": ["reward"],
        "lr": 0.02,
        "rank": 4,
        "alpha": 8.0,
        "reinforce": {"kl": 0.0},
    }
    how = make_settings({"algorithm": gradient}).algorithm
    algorithm, policy, state = find("algorithms", "reinforce")(engine, how), None, State()

    def worth(edit: Edit) -> float:
        return float(json.loads(edit.completion.text)["steps"] == 12)

    def probability(edit: Edit) -> float:
        """Of the better arm under the policy that wrote the edit: it says how likely it was itself."""
        itself = math.exp(sum(edit.completion.logprobs))
        return itself if worth(edit) else 1 - itself

    seen = []
    for round in range(1, 11):
        edits = DirectiveWriter(engine, policy, settings).propose(TASKS, 6, round)
        seen.append(probability(edits[0]))
        rated = [RatedEdit(edit, worth(edit), worth(edit), worth(edit)) for edit in edits]
        made = algorithm.improve(policy, rated, state, round)
        policy, state = made.policy, made.state
    assert seen[0] < 0.8
    assert seen[-1] > 0.9
