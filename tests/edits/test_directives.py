"""Directives: read strictly, clamped to the run's limits, and chosen at exactly the probabilities of the model's own."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as budget
from hypothesis import strategies as st

from selfedit.config import make_settings
from selfedit.edits.directives import MAX_CHARS, Directive, Directives
from selfedit.engine.inference.choices import Guide
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError, SettingsError
from selfedit.evaluation.machine import load_engine
from selfedit.inner import InnerLoop
from selfedit.run import open_run
from selfedit.tasks.sources.base import open_source
from selfedit.types import Completion, Edit, Probe, Task, TrainSequence
from selfedit.writer import Writer

TASK = Task("t", "Ann", ("Ann lives in Rome.",), (Probe("Where does Ann live?", "Rome"),))
GOOD: dict[str, Any] = {"forms": ["self_qa"], "samples": 2, "lr": 0.01, "steps": 6, "rank": 16, "layers": "upper"}


class Bytes:
    """As much of a model as a kind of edits needs: a token a byte."""

    window, eos_id = 512, 0

    def encode_prompt(self, text: str) -> list[int]:
        return [1, *(byte + 2 for byte in text.encode(errors="replace"))]


def kind(**own: Any) -> Directives:
    fields = {"edits": {"kind": "directives", "directives": own}, "inner": {"lr": 0.02, "rank": 16, "alpha": 32.0}}
    return Directives(make_settings(fields), Bytes())


def said(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes})


def written(text: str, *texts: str) -> Edit:
    first, *further = (Completion((), (), (), part, True) for part in (text, *texts))
    return Edit("t", 0, "", "", first, 1.0, 1.0, 0, "base", further=tuple(further), kind="directives")


# Reading


def test_a_directive_is_read_as_it_was_written() -> None:
    directive, note, problem = kind().read(said())
    assert directive == Directive(("self_qa",), 2, 0.01, 6, 16, "upper")
    assert (note, problem) == ("", "")
    assert kind().read(directive.text) == (directive, "", "")
    around = kind().read(f"Directive: {said()}\nAnd more.")
    assert around == (directive, "", "")


@pytest.mark.parametrize(
    ("changes", "note", "value"),
    [
        ({"steps": 999}, "steps 999 clamped to 24", 24),
        ({"steps": -1}, "steps -1 clamped to 3", 3),
        ({"rank": 10**9}, "rank 1000000000 clamped to 32", 32),
        ({"samples": 0}, "samples 0 clamped to 1", 1),
        ({"lr": 5.0}, "lr 5.0 clamped to 0.04", 0.04),
        ({"lr": 0}, "lr 0 clamped to 0.005", 0.005),
        ({"lr": -1e300}, "lr -1e+300 clamped to 0.005", 0.005),
        ({"steps": 7}, "", 7),  # between two options
    ],
)
def test_numbers_are_clamped_to_the_runs_limits_and_it_is_noted(changes: dict[str, Any], note: str, value: float) -> None:
    directive, found, problem = kind().read(said(**changes))
    assert directive is not None
    assert (found, problem) == (note, "")
    assert getattr(directive, next(iter(changes))) == value


def test_every_clamped_number_is_noted() -> None:
    assert kind().read(said(steps=999, rank=1))[1] == "steps 999 clamped to 24; rank 1 clamped to 4"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "not a JSON object"),
        ("no brace", "not a JSON object"),
        ("} {", "not a JSON object"),
        ("{" + " " * MAX_CHARS + "}", f"at most {MAX_CHARS} characters"),
        ("{'forms': 1}", "not JSON"),
        ("{" * 300 + "}", "not JSON"),
        (said().replace("2,", "NaN,"), "samples is nan, not a whole number"),
        (said().replace("0.01", "Infinity"), "lr is inf, not a number"),
        (said().replace("}", ', "steps": 3}'), "a field comes twice"),
        (said(epochs=3), "has the fields"),
        (said(model="other"), "has the fields"),
        (json.dumps({k: v for k, v in GOOD.items() if k != "rank"}), "has the fields"),
        ("{}", "has the fields"),
        (said(forms=[]), "forms are not a list of names"),
        (said(forms="self_qa"), "forms are not a list of names"),
        (said(forms=[1]), "forms are not a list of names"),
        (said(forms=["rm -rf"]), "asks for the form 'rm -rf'; there are implications, self_qa"),
        (said(layers="lower"), "layers are 'lower'; there are upper, all"),
        (said(layers=["all"]), r"layers are \['all'\]"),
        (said(steps=2.5), "steps is 2.5, not a whole number"),
        (said(steps=True), "steps is True, not a whole number"),
        (said(steps="6"), "steps is '6', not a whole number"),
        (said(lr="fast"), "lr is 'fast', not a number"),
        (said(lr=None), "lr is None, not a number"),
        (said(rank=[4]), r"rank is \[4\], not a whole number"),
    ],
)
def test_what_is_not_a_directive_is_invalid_with_the_reason(text: str, problem: str) -> None:
    directive, note, found = kind().read(text)
    assert directive is None
    assert note == ""
    assert len(found) <= 300
    assert re.search(problem, found), found
    change = kind().change(written(text, "Ann is here."), TASK)
    assert (change.what, change.invalid) == (None, found)


def test_an_edit_that_could_not_be_written_is_invalid_with_its_reason() -> None:
    edit = Edit("t", 0, "", "", Completion((), (), (), "", False), 1.0, 1.0, 0, "base", problem="too long")
    assert kind().change(edit, TASK).invalid == "too long"


def test_a_directive_without_a_usable_text_is_invalid_as_a_text_would_be() -> None:
    assert "no letter or digit" in kind().change(written(said(), "---"), TASK).invalid
    assert "empty" in kind().change(written(said()), TASK).invalid


PIECES = '"samples": 2, |"lr": 0.01, |"lr": 1e999, |"steps": -0, |"rank": 16, |"layers": "all"}|{|}|"|\\|\x00|\'|é'.split("|")
PARTS = st.sampled_from([*PIECES, '{"forms": ["self_qa"], ', '"forms": [null], ', "[" * 50, "1" * 5000, "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
FIELDS = st.fixed_dictionaries({name: st.just(value) | VALUES for name, value in GOOD.items()})
TEXTS = st.text(st.characters(), max_size=450) | st.lists(PARTS, max_size=12).map("".join) | FIELDS.map(json.dumps)
KIND = kind()


@budget(max_examples=300, deadline=None)
@given(TEXTS, st.lists(st.text(st.characters(), max_size=40), max_size=3))
def test_any_text_is_read_without_an_error_and_within_the_limits(text: str, texts: list[str]) -> None:
    directive, _, problem = KIND.read(text)
    assert (directive is None) == bool(problem)
    change = KIND.change(written(text, *texts), TASK)
    assert (change.what is None) == bool(change.invalid)
    if directive is not None:
        options = KIND.options
        assert set(directive.forms) <= {form for some in options.forms for form in some}
        assert min(options.samples) <= directive.samples <= max(options.samples)
        assert min(options.steps) <= directive.steps <= max(options.steps)
        assert min(options.rank) <= directive.rank <= max(options.rank)
        assert 0.005 <= directive.lr <= 0.04
        assert directive.layers in options.layers
    if change.update is not None:
        largest, _ = KIND.largest(KIND.settings)
        assert change.update.steps <= largest.steps
        assert change.update.rank <= largest.rank


# What it does


def test_a_directive_decides_how_its_texts_are_trained_on_and_the_run_the_rest() -> None:
    change = kind().change(written(said(), "Ann is here.", "Bo is not."), TASK)
    update = change.update
    assert update is not None
    assert (update.steps, update.lr, update.rank, update.alpha) == (6, 0.01, 16, 32.0)
    assert update.targets == "gate_proj,up_proj,down_proj@50%:"
    assert change.lines == ("Ann is here.", "Bo is not.")
    assert len(change.sequences) == 3  # and the passage
    low = kind().change(written(said(rank=4, layers="all"), "Ann is here."), TASK).update
    assert low is not None
    assert (low.rank, low.alpha, low.targets) == (4, 8.0, "gate_proj,up_proj,down_proj")
    assert low.batch_size == kind().settings.inner.batch_size


@pytest.mark.parametrize(("edits", "policy"), [("directives", "language_model"), ("text", "directive_writer")])
def test_a_policy_that_does_not_write_this_kind_is_refused(edits: str, policy: str) -> None:
    with pytest.raises(SettingsError, match=f"'{policy}' does not write edits of the kind '{edits}'"):
        make_settings({"edits": {"kind": edits, "policy": policy}})


def test_every_choice_is_a_directive_and_no_option_begins_with_another() -> None:
    choices = kind(samples=[1, 12, 2, 2], steps=[1, 10, 100]).choices()
    texts = ["".join(some) for some in itertools.product(*choices)]
    assert len(texts) == len(set(texts)) == 3 * 3 * 4 * 3 * 3 * 2
    for text in texts:
        directive, note, problem = kind(samples=[1, 12, 2], steps=[1, 10, 100]).read(text)
        assert (note, problem) == ("", "")
        assert directive is not None
        assert directive.text == text
    for some in choices:
        assert not any(a != b and b.startswith(a) for a in some for b in some)


def test_the_prompt_says_what_there_is_to_choose_from() -> None:
    settings = make_settings({"model": {"path": "some/model"}, "edits": {"kind": "directives"}})
    asked = Directives(settings, Bytes()).prompt(TASK)
    for part in ("Ann lives in Rome.", '"steps": 3 or 6 or 12 or 24', '"lr": 0.005 or 0.01 or 0.02 or 0.04', '"upper"'):
        assert part in asked


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": []},
        {"steps": [0]},
        {"lr_factors": [float("inf")]},
        {"rank": [-4]},
        {"layers": ["lower"]},
        {"forms": [[]]},
        {"forms": [["no_such_form"]]},
        {"written": "sung"},
        {"nonsense": 1},
    ],
)
def test_options_that_cannot_be_chosen_from_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match=rf"directives\.{next(iter(wrong))}"):
        kind(**wrong)


# The constrained choice

CHOICES = (("{",), ("one", "two", "town one", "town of one"), ("12,", "1,", "2,"), ("}",))


@pytest.fixture(scope="module")
def engine(tiny_world_model: str) -> TorchEngine:
    torch.set_num_threads(1)
    made = load_engine(make_settings({"model": {"path": tiny_world_model, "dtype": "fp32", "device": "cpu"}}))
    assert isinstance(made, TorchEngine)
    return made


def brute_force(
    engine: TorchEngine, prompt: Sequence[int], choices: Sequence[Sequence[str]], temperature: float
) -> dict[str, float]:
    """The log-probability of each text: token by token, over those with which some option goes on (all by plain forwards)."""
    options = [[tuple(engine.encode(text)) for text in choice] for choice in choices]
    found: dict[str, float] = {}
    for picks in itertools.product(*(range(len(choice)) for choice in choices)):
        ids, total = list(prompt), 0.0
        for choice, pick in zip(options, picks, strict=True):
            for at, token in enumerate(choice[pick]):
                going = {option[at] for option in choice if option[:at] == choice[pick][:at]}
                with torch.no_grad():
                    logits = engine.model(torch.tensor([ids])).logits[0, -1].double() / temperature
                total += float(logits[token] - torch.logsumexp(logits[sorted(going)], 0))
                ids.append(token)
        found["".join(choice[pick] for choice, pick in zip(choices, picks, strict=True))] = total
    return found


@pytest.mark.parametrize("temperature", [0.6, 1.0])
def test_a_choice_has_exactly_the_log_probability_of_its_enumeration(engine: TorchEngine, temperature: float) -> None:
    prompt = engine.encode_prompt("Passage: one town.")
    expected = brute_force(engine, prompt, CHOICES, temperature)
    assert sum(map(math.exp, expected.values())) == pytest.approx(1.0, abs=1e-9)
    n = 200
    drawn = engine.choose([prompt] * n, range(n), CHOICES, on=None, temperature=temperature)
    for completion in drawn:
        assert sum(completion.logprobs) == pytest.approx(expected[completion.text], abs=1e-4)
    counts = Counter(completion.text for completion in drawn)
    for text, logprob in expected.items():
        p = math.exp(logprob)
        assert abs(counts[text] / n - p) < 5 * math.sqrt(p * (1 - p) / n) + 1e-3


def test_of_single_tokens_the_choice_is_the_models_score_over_the_options(engine: TorchEngine) -> None:
    prompt, options = engine.encode_prompt("Passage: one town."), ["a", "1", "2"]
    ids = [engine.encode(text) for text in options]
    assert all(len(some) == 1 for some in ids)
    (scored,) = engine.score([[(prompt, some) for some in ids]], on=None)
    whole = torch.tensor([one.logprobs[0] for one in scored], dtype=torch.float64)
    expected = dict(zip(options, (whole - torch.logsumexp(whole, 0)).tolist(), strict=True))
    for completion in engine.choose([prompt] * 20, range(20), [options], on=None, temperature=1.0):
        assert completion.logprobs == pytest.approx((expected[completion.text],), abs=1e-4)


def test_a_policy_gradient_sees_the_log_probabilities_that_were_sampled_with(engine: TorchEngine) -> None:
    prompt = engine.encode_prompt("Passage: one town.")
    (completion,) = engine.choose([prompt], [3], CHOICES, on=None, temperature=0.8)
    assert completion.finished
    assert len(completion.allowed) == len(completion.token_ids)
    assert all(token in some for token, some in zip(completion.token_ids, completion.allowed, strict=True))
    forced = [p for p, chosen in zip(completion.logprobs, completion.chosen, strict=True) if not chosen]
    assert forced
    assert set(forced) == {0.0}
    sequence = TrainSequence(
        completion.prompt_ids + completion.token_ids,
        (False,) * len(completion.prompt_ids) + completion.chosen,
        allowed=((),) * len(completion.prompt_ids) + completion.allowed,
    )
    states = engine.states([[sequence]], on=None)
    seen = [p for p, chosen in zip(completion.logprobs, completion.chosen, strict=True) if chosen]
    assert states.logprobs(0.8).tolist() == pytest.approx(seen, abs=1e-4)


@pytest.mark.parametrize("options", [[], [""], ["one", "one two"]])
def test_options_that_cannot_be_told_apart_are_refused(options: list[str], engine: TorchEngine) -> None:
    with pytest.raises(SettingsError, match="can't be constrained"):
        engine.choose([engine.encode_prompt("one")], [0], [options], on=None, temperature=1.0)


def test_a_choice_that_does_not_fit_the_window_is_refused(engine: TorchEngine) -> None:
    prompt = engine.encode_prompt("one " * 2000)[: engine.window - 2]
    with pytest.raises(ModelError, match="leaves no room for"):
        engine.choose([prompt], [0], CHOICES, on=None, temperature=1.0)


@given(st.lists(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), min_size=1, max_size=4), max_size=4))
def test_every_guided_text_is_complete_and_nothing_else_is_allowed(options: list[list[list[int]]]) -> None:
    try:
        guide = Guide.of(options)
    except SettingsError:
        return
    texts: list[tuple[int, ...]] = []
    pending: list[tuple[int, ...]] = [()]
    while pending:
        text = pending.pop()
        following = guide.allowed(text)
        assert list(following) == sorted(set(following))
        if not following:
            texts.append(text)
        pending += [(*text, token) for token in following]
    whole = {sum((tuple(part) for part in some), ()) for some in itertools.product(*options)}
    assert set(texts) == whole
    assert all(len(text) <= guide.longest for text in texts)
    for text in texts:
        picked = guide.chosen(text)
        assert sum((tuple(c[i]) for c, i in zip(options, picked, strict=True)), ()) == text


# In a run


def test_what_was_clamped_and_why_an_edit_is_invalid_is_in_the_journal(
    fields: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = iter([said(steps=999, forms=["implications"]), "no directive"])
    sample = TorchEngine.sample

    def says(self: TorchEngine, prompts: Any, seeds: Any, **how: Any) -> list[Completion]:
        made = sample(self, prompts, seeds, **how)
        return [Completion(c.prompt_ids, c.token_ids, c.logprobs, next(texts, "Ann is here."), True) for c in made]

    monkeypatch.setattr(TorchEngine, "sample", says)
    edits = fields["edits"] | {"kind": "directives", "directives": {"written": "text"}}
    with open_run(tmp_path / "run", make_settings(fields | {"edits": edits})) as run:
        engine, tasks = load_engine(run.settings), open_source(run.settings).draw(1)
        first, second = Writer(run, engine).write("round-1", None, tasks[:2], 1)
        rows = run.done("round-1/propose/0")["edits"]  # type: ignore[index]
        assert rows[0]["note"] == first.note
        assert "steps 999 clamped to 24" in first.note
        assert len(first.further) == 2
        assert "not a JSON object" in rows[1]["problem"]
        tried = InnerLoop(run, engine).try_edits("round-1", [first, second], tasks[:2], on=None)
    assert [outcome.status for outcome in tried.outcomes[:2]] == ["ok", "invalid"]
    assert "not a JSON object" in tried.outcomes[1].reason
