"""Any text round-trips; a name is two tokens wherever it stands."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from selfedit.tasks.world.lexicon import IDENTIFYING, categories, words
from tools.base.tokenizer import build_tokenizer


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
@settings(max_examples=300, deadline=None)
def test_any_utf8_text_round_trips(tokenizer, text):
    ids = tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.backend_tokenizer.decode(ids, skip_special_tokens=False) == text


def test_every_word_of_a_name_or_category_is_one_token(tokenizer):
    every = [w for kind in IDENTIFYING for part in words(kind) for w in part] + [w for c in categories().values() for w in c]
    assert [w for w in every if len(tokenizer(f" {w}", add_special_tokens=False).input_ids) != 1] == []


def test_a_name_has_the_same_tokens_in_passage_question_answer_and_bullet(tokenizer):
    rng = random.Random(1)
    first, second = words("town")
    name = f"{rng.choice(first)} {rng.choice(second)}"
    wanted = tokenizer(f" {name}", add_special_tokens=False).input_ids
    for text in (
        f"Passage: {name} is next",
        f"? Answer: {name}",
        f"\n- {name} is",
        f"of {name}?",
        f"in {name}.",
        f"; {name},",
    ):
        ids = tokenizer(text).input_ids
        assert any(ids[i : i + 2] == wanted for i in range(len(ids)))


def test_it_is_the_same_every_time(tokenizer):
    assert build_tokenizer().backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
