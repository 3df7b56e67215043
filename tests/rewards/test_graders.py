"""Exact match and token F1: SQuAD's own rules on ASCII, sane ones beyond it."""

from __future__ import annotations

import re
import string
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.rewards.string_rules import exact_match, normalise, token_f1

QUICK = settings(max_examples=200, deadline=None)
WORDS = st.lists(
    st.sampled_from(["the", "a", "an", "Broncos", "denver", "24-10", "1,000", "L.", "(gold)", "new york"]), max_size=6
).map(" ".join)
PRINTABLE = st.text(st.sampled_from(string.digits + string.ascii_letters + string.punctuation + " \t\n"))


def squad_normalise(text: str) -> str:
    """The rule as Rajpurkar et al. describe it: drop ASCII punctuation and articles, then squeeze white space."""
    text = "".join(char for char in text.lower() if char not in set(string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


@QUICK
@given(PRINTABLE | WORDS)
def test_on_ascii_it_is_squads_normalisation(text: str) -> None:
    assert normalise(text) == squad_normalise(text)


@QUICK
@given(st.text() | WORDS, st.text() | WORDS)
def test_scores_stay_in_range_agree_with_each_other_and_do_not_depend_on_the_order(one: str, other: str) -> None:
    f1 = token_f1(one, [other])
    assert 0 <= f1 <= 1
    assert f1 == token_f1(other, [one]) or not (normalise(one) and normalise(other))
    assert exact_match(one, [other]) == exact_match(other, [one])
    if exact_match(one, [other]):
        assert f1 == 1
    assert exact_match(one, [one])
    assert token_f1(one, [one]) == 1


@QUICK
@given(st.text() | WORDS, st.lists(st.text() | WORDS, min_size=1, max_size=4))
def test_the_best_of_several_golds_counts_in_any_order(prediction: str, golds: list[str]) -> None:
    assert token_f1(prediction, golds) == max(token_f1(prediction, [gold]) for gold in golds)
    assert token_f1(prediction, golds) == token_f1(prediction, golds[::-1])
    assert exact_match(prediction, golds) == any(exact_match(prediction, [gold]) for gold in golds)


@QUICK
@given(st.text(st.characters(categories=["L", "Nd"]), min_size=2))
def test_letters_and_digits_of_any_script_never_vanish(text: str) -> None:
    assert normalise(text) or text.casefold() in ("a", "an", "the")


@QUICK
@given(st.text(st.characters(categories=["P", "Z"])), st.text())
def test_a_gold_without_words_is_matched_by_the_same_text_alone(gold: str, prediction: str) -> None:
    assert exact_match(prediction, [gold]) == (prediction.strip() == gold.strip())
    assert exact_match(f" {gold}\n", [gold])
    assert token_f1(prediction, [gold]) == float(prediction.strip() == gold.strip())


@pytest.mark.parametrize(
    ("prediction", "gold", "expected"),
    [
        ("the Denver Broncos.", "Denver Broncos", True),
        ("“Denver” Broncos", "denver broncos", True),
        ("北京市", "上海市", False),
        ("北京市。", "北京市", True),
        ("", "北京市", False),
        ("Москва", "москва", True),
        ("STRASSE", "Straße", True),
        (unicodedata.normalize("NFD", "Orléans"), "Orléans", True),
        ("", "The", False),
        ("?", "!", False),
        ("the", "The", False),
        ("24-10", "24–10", True),
        ("$5", "5", True),
        ("\u200fירושלים", "ירושלים", True),
        ("Paris\u200b", "Paris", True),
        ("\ufeffParis", "Paris", True),
        ("data\u00adbase", "database", True),
        ("New\u2060York", "NewYork", True),
        ("می\u200cخواهم", "میخواهم", True),
        ("❤\ufe0f", "❤", True),
        ("１９６７", "1967", True),
        ("١٩٦٧", "1967", True),
        ("ＵＳＡ", "usa", True),
        ("ﬁnance", "finance", True),
        ("oﬃce", "office", True),
        ("ｶﾅ", "カナ", True),
        ("m²", "m2", True),
        ("½", "1/2", True),
        ("−5 °C", "-5 °C", True),
        ("－５", "-5", True),
        ("10\u202f000", "10,000", True),
        ("5\u2009kg", "5 kg", True),
        ("twenty\u2011one", "twenty-one", True),
        ("\u200b", "Paris", False),
        ("１９６８", "1967", False),
    ],
)
def test_answers_are_judged_as_a_reader_would(prediction: str, gold: str, expected: bool) -> None:
    assert exact_match(prediction, [gold]) is expected


def test_f1_counts_shared_words_with_repetition() -> None:
    assert token_f1("x x y", ["x y y"]) == pytest.approx(2 / 3)
    assert token_f1("Santa Clara, California", ["Santa Clara"]) == pytest.approx(0.8)
    assert token_f1("Paris", ["Rome", "in Paris"]) == pytest.approx(2 / 3)
    assert token_f1("", ["Paris"]) == 0


def test_no_gold_is_a_failure_and_not_a_wrong_answer() -> None:
    for score in (exact_match, token_f1):
        with pytest.raises(ValueError, match="no gold answer"):
            score("x", [])
        with pytest.raises(TypeError, match="one text"):
            score("x", "x")
