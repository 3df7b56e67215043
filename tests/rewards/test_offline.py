"""The shipped offline grader: small, explained, robust, and as good as it says on titles it has not seen."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.rewards.offline import SHIPPED, Grade, load_grader, offline, offline_match
from selfedit.rewards.reading import read
from selfedit.rewards.thesaurus import SYNONYMS, senses, synonyms_sha256

QUICK = settings(max_examples=150, deadline=None)
TEXTS = st.text() | st.text(st.characters(categories=["Cs", "Mn", "Nd", "Zs", "Lo", "So"]))
WORDS = st.lists(
    st.sampled_from("Denver Broncos Paris 1835 commutator steam Röntgen 48.8 percent".split()), min_size=1, max_size=4
)
QUESTION = "In what year did Chopin become a citizen of France?"


@QUICK
@given(TEXTS, TEXTS, TEXTS)
def test_no_text_breaks_it(question: str, gold: str, text: str) -> None:
    assert 0 < offline(question, [gold], text) < 1
    grade = load_grader().grade(question, [gold], text)
    assert math.isfinite(grade.base + sum(reason.weight for reason in grade.reasons))


@pytest.mark.parametrize("piece", ["a ", "Denver", "1 million ", "ﷺ", "x.", "²", "𝟘 ", "\ud800"])
def test_a_text_of_100_kilobytes_is_judged_within_two_seconds(piece: str) -> None:
    long = piece * (100_000 // len(piece))
    started = time.process_time()
    offline(long, [long + "."], long[:-1] + "y")
    assert time.process_time() - started < 2


@QUICK
@given(WORDS.map(" ".join))
def test_an_answer_equal_to_the_gold_is_right_in_any_case_and_punctuation(gold: str) -> None:
    for answer in (gold, gold.upper(), f" “{gold}”.\n", f"The {gold}!"):
        assert offline_match(QUESTION, [gold], answer)
        assert offline(QUESTION, [gold], answer) > 0.9


@QUICK
@given(TEXTS, TEXTS, st.text(st.characters(categories=["P", "Z"])))
def test_an_answer_that_says_nothing_is_wrong(question: str, gold: str, nothing: str) -> None:
    assert not offline_match(question, [gold + "x"], nothing)
    assert offline(question, [gold + "x"], nothing) < 0.1


@QUICK
@given(WORDS.map(" ".join), WORDS.map(" ".join))
def test_case_does_not_matter_to_a_longer_answer_either(gold: str, other: str) -> None:
    answer = f"It is said to be {other}"
    assert offline(QUESTION, [gold], answer) == offline(QUESTION, [gold], answer.lower())


@pytest.mark.parametrize(
    ("question", "gold", "answer", "right"),
    [
        (QUESTION, "1835", "He became a citizen of France in 1835.", True),
        (QUESTION, "1835", "He became a citizen of France in 1838.", False),
        ("What percent lives on the coast?", "Sixty percent", "60% of them live on the coast.", True),
        ("What percent lives on the coast?", "Sixty percent", "16% of them live on the coast.", False),
        ("Who won Super Bowl 50?", "Denver Broncos", "The Denver Broncos won Super Bowl 50.", True),
        ("Who won Super Bowl 50?", "Denver Broncos", "The Carolina Panthers won Super Bowl 50.", False),
        ("What drove Tesla's oscillator?", "steam", "I do not know what drove it.", False),
        ("How did the king die?", "killed in battle", "He was slain in combat.", True),
        ("What did the Somalis live from?", "trade", "They lived from commerce.", True),
        ("What did the Somalis live from?", "trade", "They lived from fishing.", False),
    ],
)
def test_plain_cases_are_judged_as_a_reader_would(question: str, gold: str, answer: str, right: bool) -> None:
    assert offline_match(question, [gold], answer) is right


def test_of_several_golds_the_most_favourable_counts_in_any_order() -> None:
    answer = "He became a citizen of France in 1835."
    alone = [offline(QUESTION, [gold], answer) for gold in ("1838", "1835")]
    assert offline(QUESTION, ["1838", "1835"], answer) == offline(QUESTION, ["1835", "1838"], answer) == max(alone)
    assert load_grader().grade(QUESTION, ["1838", "1835"], answer).gold == "1835"


def test_the_reasons_add_up_to_the_probability_and_the_strongest_come_first() -> None:
    grade: Grade = load_grader().grade(QUESTION, ["1835"], "It was in 1835 or in 1836.")
    odds = grade.base + sum(reason.weight for reason in grade.reasons)
    assert 1 / (1 + math.exp(-odds)) == pytest.approx(grade.probability)
    weights = [abs(reason.weight) for reason in grade.reasons]
    assert weights == sorted(weights, reverse=True)
    assert len(weights) == len(load_grader().names)


def test_no_gold_is_a_failure_and_not_a_wrong_answer() -> None:
    with pytest.raises(ValueError, match="no gold answer"):
        offline("Who?", [], "x")
    with pytest.raises(TypeError, match="one text"):
        offline_match("Who?", "x", "x")


def test_synonyms_are_words_that_share_a_line() -> None:
    lines = [line for line in SYNONYMS.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines)) > 500
    assert all(len(line.split()) > 1 and line == line.lower() for line in lines)
    king, monarch, horse = (senses(read(word)) for word in ("kings", "Monarch", "horse"))
    assert king & monarch
    assert not king & horse
    assert senses(read("1835 xyzzy")) == frozenset()


def test_the_shipped_table_was_calibrated_with_the_shipped_synonyms() -> None:
    assert json.loads(SHIPPED.read_text())["synonyms_sha256"] == synonyms_sha256()
