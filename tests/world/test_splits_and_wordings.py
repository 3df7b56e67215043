"""Nothing crosses: names between splits, evaluation wordings into anything that teaches edit writing."""

import random
import re
from hashlib import sha256

import pytest

from selfedit.tasks.sources.world import draw_tasks
from selfedit.tasks.world.lexicon import IDENTIFYING, SPLITS, categories, draw_name, split_of, words
from selfedit.tasks.world.relations import relations_of
from selfedit.tasks.world.story import FAMILIES, PROBE_KINDS, all_probes, closed_book_stories, draw_story
from selfedit.tasks.world.writing import perfect_edit, style_of
from tools.base.documents import document
from tools.base.edits import edit_lines, implications, self_qa

NAME = re.compile(r"[A-Z][a-z]+ [A-Z][a-z]+")


def all_names() -> set[str]:
    return {f"{a} {b}" for kind in IDENTIFYING for firsts, seconds in [words(kind)] for a in firsts for b in seconds}


@pytest.mark.parametrize("kind", IDENTIFYING)
def test_at_least_20_000_names_of_every_identifying_kind(kind):
    first, second = words(kind)
    assert len(set(first)) == len(first)
    assert len(set(second)) == len(second)
    assert len(first) * len(second) >= 20_000


def test_every_word_belongs_to_one_kind():
    lists = [part for kind in IDENTIFYING for part in words(kind)]
    everything = [word for part in lists for word in part]
    assert len(everything) == len(set(everything))


def test_categories_are_distinct_words_that_take_the_article_a():
    for category in categories().values():
        assert len(set(category)) == len(category)
        assert not [word for word in category if word[0] in "aeiou"]


@pytest.mark.parametrize("split", SPLITS)
def test_subjects_and_values_of_a_task_all_belong_to_its_split(split):
    known = all_names()
    for task in draw_tasks(split, tuple(FAMILIES), 60, seed=5):
        told = " ".join([task.text, task.gold_edit, *(p.question + " " + p.answer for p in task.probes)])
        names = {name for name in NAME.findall(told) if name in known}
        assert len(names) >= 2
        assert {split_of(name) for name in names} == {split}


def test_every_document_of_the_pretraining_uses_pretraining_names_alone():
    rng, known, names = random.Random(3), closed_book_stories(), all_names()
    for stage in ("bind", "grow", "full"):
        for _ in range(300):
            drawn = document(rng, stage, known)
            told = drawn.prefix + " ".join(text for branch in drawn.branches for text, _ in branch)
            assert {split_of(name) for name in NAME.findall(told) if name in names} <= {"pretrain"}


def test_the_splits_share_out_all_names():
    counts = dict.fromkeys(SPLITS, 0)
    rng = random.Random(0)
    first, second = words("person")
    for _ in range(4000):
        counts[split_of(f"{rng.choice(first)} {rng.choice(second)}")] += 1
    assert all(counts[split] > 300 for split in SPLITS)
    assert all(split_of(draw_name(rng, kind, split)) == split for kind in IDENTIFYING for split in SPLITS)


def patterns() -> list[re.Pattern[str]]:
    """Every evaluation wording, its slots open."""
    texts = [t for kind in IDENTIFYING for r in relations_of(kind) for t in (*r.ask, *r.reword, *r.reverse)]
    return [re.compile(re.sub(r"\\\{[ev]\\\}", "[A-Za-z ]+?", re.escape(text))) for text in texts]


def test_no_evaluation_wording_occurs_in_anything_that_teaches_edit_writing():
    rng, wordings = random.Random(9), patterns()
    for _ in range(250):
        story = draw_story(rng, "train", rng.choice(list(FAMILIES)))
        told = ["He came here."]
        texts = [implications(rng, story, told), self_qa(rng, story, told), perfect_edit(rng, story)]
        for text in texts:
            assert not [w.pattern for w in wordings if w.search(text)]


def test_the_evaluation_patterns_do_find_evaluation_questions():
    rng, wordings = random.Random(9), patterns()
    story = draw_story(rng, "train", "e2")
    for probe in all_probes(rng, story):
        assert any(w.search(probe.question) for w in wordings), probe


def test_a_task_has_probes_of_every_kind_and_their_answers_are_told():
    for task in draw_tasks("dev", ("e1", "e2", "e3"), 60, seed=1):
        assert {probe.kind for probe in task.probes} == set(PROBE_KINDS)
        assert all(probe.answer in task.text for probe in task.probes)
        assert len({(p.question, p.kind) for p in task.probes}) == len(task.probes)


def test_tasks_depend_on_split_seed_and_number_alone():
    assert draw_tasks("dev", ("e1", "e2"), 6, seed=1)[:4] == draw_tasks("dev", ("e1", "e2"), 4, seed=1)
    assert draw_tasks("dev", ("e1",), 3, seed=1) != draw_tasks("dev", ("e1",), 3, seed=2)


def test_a_seed_draws_the_passages_that_it_always_drew():
    """The base was trained on them and every published figure was measured on them: no word may move in the assets."""
    drawn = [
        (task.title, task.text, task.gold_edit, [(probe.question, probe.answer, probe.kind) for probe in task.probes])
        for split in SPLITS
        for task in draw_tasks(split, tuple(FAMILIES), 60, seed=1)
    ]
    digest = sha256(repr(drawn).encode()).hexdigest()
    assert digest == "61ec79bbb70c89af2734d401f03236eef69fa5687b72bd0b6a9bb1aece4402da"


def test_styles_are_recognised_from_the_lines_themselves():
    rng = random.Random(2)
    story = draw_story(rng, "train", "e2")
    for style in ("qa", "qa_reversed", "qa_vague", "forward", "reversed", "vague", "qa_derived", "derived"):
        lines = edit_lines(rng, story, ["Told."], {style: 1.0}, longest=40)
        assert {style_of(line) for line in lines} <= {style, "qa", "forward"}
        assert style in {style_of(line) for line in lines}
