"""What users bring with instruct models: turn ends, thoughts, long answers and passages, tokenizers of other makers."""

from __future__ import annotations

import shutil
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from selfedit.config import make_settings
from selfedit.engine.model import loading
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import ModelError, SettingsError, TaskFileError
from selfedit.evaluation.machine import load_engine
from selfedit.evaluation.planning import reading_problems
from selfedit.policies.language_model import LanguageModel
from selfedit.rewards.examiner import Examiner
from selfedit.types import Completion, Probe, Task

TURNS = (
    "{% for m in messages %}{{ '[' + m.role + ']' + m.content + '<pad>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% if thinking %}{{ '<think>\n' }}{% endif %}{% endif %}"
)
TASK = Task("t", "Town", ("The town lies on a hill. " * 60,), (Probe("Who?", "Ann"),))
SHORT = Task("s", "Town", ("A mill.",), TASK.probes)


@pytest.fixture(scope="module")
def chat_model(tiny_qwen2, tmp_path_factory):
    """A tiny random Qwen2 whose turns end with another special token of its tokenizer than the end of a text."""
    directory = shutil.copytree(tiny_qwen2, tmp_path_factory.mktemp("turns") / "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.chat_template = TURNS
    tokenizer.save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return str(directory)


@pytest.fixture
def made(fields, chat_model):
    """Settings for that model as an instruct model, with its arguments."""

    def settings(**arguments):
        model = {**fields["model"], "path": chat_model, "templates": "chat", "template_arguments": arguments}
        return make_settings({**fields, "model": model, "reward": {"max_answer_tokens": 8}})

    return settings


def test_a_turns_end_stops_an_answer_though_it_is_not_the_tokenizers_end(chat_model):
    engine = TorchEngine.load(chat_model, device="cpu")
    assert engine.stops == {0, 1}
    assert engine.encode_pair("Who?", "Ann", chat=True).answer[-1] == 0


def test_a_passage_too_long_for_the_window_loses_its_end_and_the_prompt_keeps_its_head(made):
    engine, pairs = load_engine(made()), []
    engine.score = lambda rows, **how: [pairs.extend(row) or [SimpleNamespace(greedy=True, logprobs=[0.0])] for row in rows]
    Examiner(engine, made()).answers([TASK], on=None, open_book=True)
    ((prompt, _),) = pairs
    text = engine.decode(prompt)
    assert text.startswith("[user]Passage:\nTown\nThe town lies on a hill. The town lies")
    assert text.endswith("Question: Topic: Town\nWho?[assistant]")
    assert engine.window - 8 - 6 < len(prompt) <= engine.window - 8
    assert text.split("\n\nAnswer")[0].split()[-1] in TASK.text.split()  # no word is cut


def test_a_question_that_does_not_fit_is_refused_by_its_task(made):
    task = Task("t9", "Town", ("a",), (Probe("Who? " * 200, "Ann"),))
    with pytest.raises(TaskFileError, match=r"'t9': the question with its answer is \d+ tokens long"):
        Examiner(load_engine(made()), made()).answers([task], on=None)


def test_a_graded_answer_is_what_follows_its_thought(made):
    engine = load_engine(made())
    engine.answer = lambda prompts, **how: [["<think>\nIt says Ann.\n</think>\n\nAnn" for _ in row] for row in prompts]
    ((answer,),) = Examiner(engine, made()).answers([SHORT], on=None)
    assert (answer.text, answer.correct) == ("Ann", True)


@pytest.mark.parametrize(("thinking", "text"), [(True, "<think>\nOkay, facts"), (False, "Okay, facts")])
def test_a_thought_that_the_prompt_opens_begins_the_text_with_its_tag(made, thinking, text):
    settings = made(thinking=thinking)
    engine = load_engine(settings)
    engine.sample = lambda prompts, seeds, **how: [Completion(tuple(p), (5,), (0.0,), "Okay, facts", False) for p in prompts]
    (edit,) = LanguageModel(engine, None, settings).propose([SHORT], 1, 5)
    assert edit.text == text


def test_golds_longer_than_answers_may_be_and_passages_too_long_are_counted(made):
    engine = load_engine(made())
    long = Task("u", "Town", ("A mill.",), (Probe("What?", "the old stone bridge"), Probe("Who?", "Ann")))
    source = SimpleNamespace(evaluation=lambda: [TASK, long], dev=lambda: [long], draw=lambda round: [])
    golds, passages = reading_problems(made(), engine, source)
    assert golds.startswith("1 of 3 gold answers have more than reward.max_answer_tokens = 8 tokens (the longest 20)")
    assert passages.startswith("1 of 2 held-out passages with a question are too long for the model's window of 700 tokens")
    fine = SimpleNamespace(evaluation=lambda: [SHORT], dev=list, draw=lambda round: [])
    assert reading_problems(made(), engine, fine) == []


def test_a_runs_settings_name_the_template_arguments_and_the_date(fields, made):
    arguments = made(enable_thinking=True).fields()["model"]["template_arguments"]
    assert arguments["enable_thinking"] is True
    assert (arguments["thinking"], arguments["today"]) == (False, "2026-01-01")
    assert make_settings(fields).model.template_arguments == {}
    for wrong, why in (({"today": "soon"}, "give a date"), ({"tokenize": True}, "the run itself gives it")):
        with pytest.raises(SettingsError, match=why):
            made(**wrong)
    with pytest.raises(SettingsError, match="template_arguments are for templates = 'chat'"):
        make_settings({"model": {"template_arguments": {"thinking": True}}})
    with pytest.raises(SettingsError, match=r"edits\.templates\.system is for turns"):
        make_settings({"edits": {"templates": {"system": "Be brief."}}})


class _Other:
    """A tokenizer that can't take special tokens as plain text, as mistral-common's."""

    def __call__(self, text, *, split_special_tokens=False, **how):
        if split_special_tokens:
            raise ValueError("not supported")


@pytest.fixture
def other_makers(monkeypatch):
    monkeypatch.setattr(loading.AutoTokenizer, "from_pretrained", lambda source, **how: _Other())


@pytest.mark.usefixtures("other_makers")
def test_a_tokenizer_of_another_maker_gives_way_to_tokenizer_json(chat_model):
    engine = TorchEngine.load(chat_model, device="cpu")
    assert engine.decode(engine.encode("ab </s>")) == "ab </s>"


@pytest.mark.usefixtures("other_makers")
@pytest.mark.parametrize(("kept", "why"), [("tokenizer_config.json", "_Other"), ("tekken.json", "Mistral's own format")])
def test_a_tokenizer_that_is_of_no_use_is_refused_with_what_to_do(chat_model, tmp_path, kept, why):
    directory = shutil.copytree(chat_model, tmp_path / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).unlink()
    (directory / kept).write_text("{}")
    with pytest.raises(ModelError, match=rf"{why}.*put the tokenizer\.json"):
        TorchEngine.load(str(directory), device="cpu")
