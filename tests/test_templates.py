"""Prompts: the forms there are, a user's own, mixtures of them, and turns in a chat template."""

import json
import shutil
import sqlite3

import pytest
from transformers import AutoTokenizer

from selfedit.algorithms.common.training import cloning_sequence
from selfedit.config import load_settings, make_settings
from selfedit.engine.torch_engine import TorchEngine
from selfedit.errors import SettingsError
from selfedit.evaluation.experiment import run_experiment
from selfedit.evaluation.machine import load_engine
from selfedit.guards.budget import retention
from selfedit.policies.language_model import LanguageModel
from selfedit.rewards.examiner import Examiner
from selfedit.tasks.sources.base import open_source
from selfedit.templates import answer_in, built_in_templates, prompt_for
from selfedit.types import Probe, Task

TASK = Task("t", "Ann", ("Ann lives in Rome.",), (Probe("Where does Ann live?", "Rome"),))
OTHER = {"model": {"path": "some/model"}}
OWN = {"terse": "Say it in few words, as {brief: true}.\n{title}: {context}\nShort:"}


@pytest.mark.parametrize("templates", ["general", "chat"])
@pytest.mark.parametrize("form", ["implications", "long", "very_long", "rewrite", "self_qa", "none"])
def test_general_models_have_every_form_with_title_and_passage(templates, form):
    settings = make_settings({"model": {**OTHER["model"], "templates": templates}, "edits": {"form": form}})
    prompt = prompt_for(TASK, form, settings.templates)
    assert prompt.count("Ann\nAnn lives in Rome.") == 1
    others = [prompt_for(TASK, name, settings.templates) for name in settings.templates.prompts if name != form]
    assert prompt not in others
    assert (prompt.strip() == "Ann\nAnn lives in Rome.") == (form == "none")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"edits": {"form": "long"}}, "no 'long' in the world templates, which the embedded base was pretrained on"),
        ({"edits": {"form": "none"}}, "take one of implications, rewrite, self_qa"),
        ({"edits": {"form": ["implications", "very_long"]}}, "no 'very_long'"),
        ({**OTHER, "edits": {"form": "answer"}}, "no 'answer' in the general templates"),
        ({"edits": {"form": []}}, "edits.form"),
        ({"edits": {"templates": {"mine": "Tell of {context} and {topic}"}}}, "mine asks for {topic}"),
        ({"edits": {"templates": {"mine": "Tell."}}}, "mine lacks {context}"),
        ({"edits": {"templates": {"mine": "{context} {question}"}}}, "mine asks for {question}"),
        ({"edits": {"templates": {"answer": "{context} {question}"}}}, "answer asks for {context}"),
        ({"edits": {"templates": {"open_book": "{context}"}}}, "open_book lacks {question}"),
        ({"edits": {"templates": {"line": "{title}"}}}, "line lacks {line}"),
        ({"edits": {"templates": {"a+b": "{context}"}}}, "'a+b' is no name"),
        ({"edits": {"templates": {"mine": 3}}}, "edits.templates.mine"),
    ],
)
def test_a_form_that_is_not_there_and_a_text_that_cannot_be_filled_are_refused(fields, named):
    with pytest.raises(SettingsError) as error:
        make_settings(fields)
    assert named in str(error.value)


def test_own_texts_are_used_and_hashed(tmp_path):
    file = tmp_path / "own.toml"
    file.write_text('[edits]\nform = "terse"\n[edits.templates]\nterse = """' + OWN["terse"] + '"""\nline = "> {line}"\n')
    settings = load_settings(file)
    assert prompt_for(TASK, "terse", settings.templates) == (
        "Say it in few words, as {brief: true}.\nAnn: Ann lives in Rome.\nShort:"
    )
    assert settings.templates.line == "> {line}"
    assert settings.templates.answer == built_in_templates()["world"].answer
    shorter = make_settings({"edits": {"form": "terse", "templates": OWN}})
    assert len({settings.sha256(), shorter.sha256(), make_settings({}).sha256()}) == 3
    assert make_settings(settings.fields()) == settings
    assert settings.model_copy(update={"learner": settings.model}).of_learner().templates == settings.templates


def written(fields, form, k=4, **edits):
    settings = make_settings(fields | {"edits": fields["edits"] | {"form": form, **edits}})
    engine, tasks = load_engine(settings), open_source(settings).draw(1)
    policy = LanguageModel(engine, None, settings)
    return policy.propose(tasks, k, 5), policy, tasks


def texts(edits):
    """All of an edit but its log-probabilities, which round differently in another batch."""
    return [(e.id, e.form, e.prompt, e.seed, e.completion.prompt_ids, e.completion.token_ids) for e in edits]


def test_a_tasks_edits_take_the_forms_in_turn(fields):
    edits, policy, tasks = written(fields, ["implications", "self_qa", "terse"], templates=OWN)
    assert [edit.form for edit in edits] == ["implications", "self_qa", "terse", "implications"] * len(tasks)
    for edit in edits:
        task = next(task for task in tasks if task.id == edit.task_id)
        assert edit.prompt == prompt_for(task, edit.form, policy.settings.templates)
        assert list(edit.completion.prompt_ids) == policy.engine.encode_prompt(edit.prompt)
    alone = {form: written(fields, form)[0] for form in ("implications", "self_qa")}
    for form, numbers in (("implications", (0, 3)), ("self_qa", (1,))):
        assert texts(edit for edit in edits if edit.form == form) == texts(e for e in alone[form] if e.index in numbers)
    asked = policy.propose(tasks, 2, 5, "self_qa")  # a rung of the ladder asks for one form
    assert texts(asked) == texts(e for e in alone["self_qa"] if e.index < 2)


def test_one_form_is_the_same_as_a_list_of_one(fields):
    assert written(fields, ["rewrite"])[0] == written(fields, "rewrite")[0]


def test_the_samples_of_an_edit_take_the_forms_in_turn(fields):
    edits, policy, tasks = written(fields, ["implications", "self_qa"], k=2, samples=3)
    assert {edit.form for edit in edits} == {"implications+self_qa"}
    for edit in edits:
        task = next(task for task in tasks if task.id == edit.task_id)
        asked = [prompt_for(task, form, policy.settings.templates) for form in ("implications", "self_qa", "implications")]
        assert [list(c.prompt_ids) for c in edit.completions] == [policy.engine.encode_prompt(p) for p in asked]
        assert edit.prompt == asked[0]
        cloned = [cloning_sequence(c).ids for c in edit.completions]  # each sample is learned after the prompt it answered
        assert all(ids[: len(c.prompt_ids)] == c.prompt_ids for ids, c in zip(cloned, edit.completions, strict=True))
    two = written(fields, ["implications", "self_qa", "rewrite"], k=1, samples=2)[0]
    assert {edit.form for edit in two} == {"implications+self_qa"}


def test_a_form_too_long_for_the_window_spoils_only_its_own_edits(fields):
    wordy = {"wordy": "Ann " * 5000 + "{context}"}
    edits = written(fields, ["implications", "wordy"], templates=wordy)[0]
    assert [bool(edit.problem) for edit in edits[:4]] == [False, True, False, True]
    assert all(edit.completion.token_ids for edit in edits if not edit.problem)
    assert "window" in edits[1].problem
    both = written(fields, ["implications", "wordy"], k=1, samples=2, templates=wordy)[0]
    assert all(edit.problem for edit in both)


def test_a_run_of_a_mixture_names_every_edits_form(fields, tmp_path):
    mixed = fields | {"edits": fields["edits"] | {"form": ["implications", "self_qa"]}}
    summary = run_experiment(make_settings(mixed), tmp_path / "run")
    assert {"base_edits", "base_self_qa", "round_1", "best_of_k"} <= {row["rung"] for row in summary["ladder"]}
    with sqlite3.connect(tmp_path / "run" / "journal.db") as db:
        row = json.loads(db.execute("select data from chunks where key = 'round-1/propose/0'").fetchone()[0])
        shown = {form for (form,) in db.execute("select distinct form from edits")}
    assert [(edit["index"], edit["form"]) for edit in row["edits"]] == [(0, "implications"), (1, "self_qa")] * 2
    assert shown == {"implications", "self_qa"}
    assert (tmp_path / "run" / "report.html").exists()
    assert load_settings(tmp_path / "run" / "config.toml").edits.forms == ("implications", "self_qa")


# Chat


@pytest.fixture(scope="module")
def chat_model(tiny_qwen2, tmp_path_factory):
    """The tiny Qwen2 with a chat template."""
    directory = shutil.copytree(tiny_qwen2, tmp_path_factory.mktemp("chat") / "model")
    tokenizer = AutoTokenizer.from_pretrained(directory)
    turns = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    tokenizer.chat_template = turns + "{% if add_generation_prompt %}[me]{% endif %}"
    tokenizer.save_pretrained(directory)
    return str(directory)


@pytest.fixture
def scored(monkeypatch):
    """The (prompt, gold answer) pairs that engines are asked to score."""
    seen, score = [], TorchEngine.score

    def watched(self, pairs, **how):
        seen.extend(pair for row in pairs for pair in row)
        return score(self, pairs, **how)

    monkeypatch.setattr(TorchEngine, "score", watched)
    return seen


def test_a_chat_model_is_asked_in_turns_and_trained_on_plain_lines(fields, chat_model, scored):
    settings = make_settings(fields | {"model": {**fields["model"], "path": chat_model, "templates": "chat"}})
    engine = load_engine(settings)
    (edit,) = LanguageModel(engine, None, settings).propose([TASK], 1, 5)
    turn = engine.decode(edit.completion.prompt_ids)
    assert turn == f"[user]{prompt_for(TASK, 'implications', built_in_templates()['chat'])}[me]"
    assert engine.eos_id in edit.completion.prompt_ids  # the template's own tokens are tokens
    Examiner(engine, settings).answers([TASK], on=None)
    ((asked, gold),) = scored
    assert engine.decode(asked).endswith("Where does Ann live?[me]")
    assert gold == [*engine.encode("Rome"), engine.eos_id]  # no space: it begins a turn


def test_guards_ask_a_chat_model_in_turns_too(fields, chat_model, scored):
    settings = make_settings(fields | {"model": {**fields["model"], "path": chat_model, "templates": "chat"}})
    engine = load_engine(settings)
    retention(engine, None, TASK.probes, settings.templates)
    assert engine.decode(scored[0][0]).endswith("Where does Ann live?[me]")


def test_turns_on_a_model_without_a_chat_template_are_refused_before_anything_runs(two_sections, tmp_path):
    for name, fields in two_sections.items():
        with pytest.raises(SettingsError, match="no chat template"):
            run_experiment(make_settings(fields), tmp_path / name)
        with sqlite3.connect(tmp_path / name / "journal.db") as db:
            assert json.dumps(db.execute("select key from chunks").fetchall()) == "[]"


@pytest.fixture
def two_sections(fields, tiny_qwen2, chat_model):
    """The model itself, and each of two models in turn, has no chat template."""
    plain, turns = {**fields["model"], "path": tiny_qwen2}, {"templates": "chat"}
    talks = {**plain, "path": chat_model, **turns}
    return {
        "alone": fields | {"model": plain | turns},
        "writer": fields | {"model": plain | turns, "learner": talks},
        "learner": fields | {"model": talks, "learner": plain | turns},
    }


@pytest.mark.parametrize(
    ("kind", "said", "gold", "expected"),
    [
        ("general", " Rome\n\nQuestion: Who", "Rome", "Rome"),
        ("general", "\n Rome \nMore", "Rome", "Rome"),
        ("general", "1 2\n3 4", "1 2\n3 4", "1 2\n3 4"),
        ("chat", "Sure:\nRome", "Rome", "Sure:\nRome"),
        ("general", "", "Rome", ""),
    ],
)
def test_a_base_models_answer_ends_with_its_line_unless_a_gold_answer_has_several(kind, said, gold, expected):
    assert answer_in(said, Probe("Where?", gold), built_in_templates()[kind]) == expected


def test_lines_that_a_base_model_adds_are_not_graded(monkeypatch):
    settings = make_settings({"model": {"templates": "general", "dtype": "fp32"}, "reward": {"metric": "token_f1"}})
    engine = load_engine(settings)
    said = " Rome\n\nQuestion: Who lives there?"
    monkeypatch.setattr(engine, "answer", lambda prompts_K, **how: [[said for _ in row] for row in prompts_K])
    task = Task("t", "Ann", ("Ann lives in Rome.",), (Probe("Where does Ann live?", "Rome"),))
    ((answer,),) = Examiner(engine, settings).answers([task], on=None)
    assert (answer.text, answer.correct) == ("Rome", True)
