"""Chat templates as instruct models bring them: thoughts, dates, system messages, where an answer begins, where a turn ends."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from tokenizer_zoo import EOS, TURN_END, byte_level, prepended
from transformers.utils import chat_template_utils

from selfedit.engine.model.texts import Texts
from selfedit.errors import ModelError

_TURNS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
_ASK = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}THOUGHT{% endif %}"
# What these makers' templates write behind the user's turn (the part that matters, in our own words).
QWEN3 = _TURNS + _ASK.replace("THOUGHT", "{% if enable_thinking is false %}{{ '<think>\n\n</think>\n\n' }}{% endif %}")
GRANITE = _TURNS + _ASK.replace("THOUGHT", "{% if thinking is not defined or thinking %}{{ '<think>\n' }}{% endif %}")
R1 = _TURNS + _ASK.replace("THOUGHT", "{{ '<think>\n' }}")
LLAMA2 = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + ' [/INST]' }}"
    "{% else %}{{ ' ' + m.content + ' </s>' }}{% endif %}{% endfor %}"
)
VICUNA = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + m.content + '</s>' }}{% endif %}{% endfor %}{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '</s>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
CHANNELS = (
    "{% for m in messages %}{% if m.role == 'user' %}{{ '<|im_start|>user<|message|>' + m.content + '<|im_end|>' }}{% else %}"
    "{{ '<|im_start|>assistant<|channel|>final<|message|>' + m.content + '</s>' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant' }}{% endif %}"
)
DATED = (
    "{% set day = strftime_now('%d %b %Y') %}{{ 'Today: ' + day + strftime_now(\"/%-d %B\") + '\n' }}"
    + _TURNS
    + _ASK.replace("THOUGHT", "")
)


def texts(template: str, made: Any = byte_level, **arguments: Any) -> Texts:
    tokenizer = made()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|channel|>", "<|message|>"]})
    tokenizer.add_tokens(["~over~"])
    tokenizer.chat_template = template.replace("THOUGHT", "")
    return Texts(tokenizer, arguments)


def seen(texts: Texts, ids: list[int]) -> str:
    return texts.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


@pytest.mark.parametrize("template", [QWEN3, GRANITE])
def test_a_model_does_not_think_where_its_template_has_a_switch(template: str) -> None:
    tokenizer = byte_level()
    tokenizer.chat_template = template
    off = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who?"}],
        tokenize=False,
        add_generation_prompt=True,
        **{"enable_thinking" if template == QWEN3 else "thinking": False},
    )
    assert seen(texts(template), texts(template).encode_chat("Who?")) == off
    assert not texts(template).opens_thought


def test_an_argument_of_the_template_reaches_it() -> None:
    thinks = texts(QWEN3, enable_thinking=True)
    assert "<think>" not in seen(thinks, thinks.encode_chat("Who?"))
    assert texts(GRANITE, thinking=True).opens_thought == "<think>"


@pytest.mark.parametrize(("template", "arguments"), [(R1, {}), (GRANITE, {"thinking": True})])
def test_an_answer_follows_a_closed_thought_also_where_the_prompt_opens_one(template: str, arguments: dict[str, bool]) -> None:
    thinks = texts(template, **arguments)
    assert seen(thinks, thinks.encode_chat("Who?")).endswith("<think>\n")
    pair = thinks.encode_pair("Who?", "Paris", chat=True)
    assert seen(thinks, pair.prompt).endswith("assistant\n<think>\n\n</think>\n\n")
    assert seen(thinks, pair.answer) == "Paris<|im_end|>"
    assert thinks.encode_chat("Who?", answering=True) == pair.prompt


def test_an_answer_is_given_in_the_channel_of_answers() -> None:
    channels = texts(CHANNELS)
    pair = channels.encode_pair("Who?", "Paris", chat=True)
    assert seen(channels, pair.prompt).endswith("<|im_start|>assistant<|channel|>final<|message|>")
    assert seen(channels, pair.answer) == "Paris</s>"
    assert channels.turn_end == (EOS, "")


def test_special_tokens_that_mark_a_thought_stay_visible() -> None:
    channels = texts(CHANNELS)
    said = "<|channel|>analysis<|message|>Hm.<|im_end|><|im_start|>assistant<|channel|>final<|message|>Paris"
    ids = channels.tokenizer(said, add_special_tokens=False)["input_ids"]
    assert channels.decode(ids) == "<|channel|>analysis<|message|>Hm.assistant<|channel|>final<|message|>Paris"


@pytest.mark.parametrize("made", [byte_level, prepended])
@pytest.mark.parametrize(
    ("template", "ended"), [(LLAMA2, "{} </s>"), (VICUNA, "{}</s>"), (ZEPHYR, "{}</s>\n")], ids=["llama2", "vicuna", "zephyr"]
)
def test_a_turn_is_the_templates_own_with_one_bos_and_its_answer_begins_as_there(template: str, ended: str, made: Any) -> None:
    chat = texts(template, made)
    asked = [{"role": "user", "content": "Who has Paris?"}]
    shown = chat.tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
    assert chat.encode_chat("Who has Paris?") == chat.tokenizer(shown, add_special_tokens=False)["input_ids"]
    pair = chat.encode_pair("Who has Paris?", "Paris", chat=True)
    told = chat.tokenizer.apply_chat_template([*asked, {"role": "assistant", "content": "Paris"}], tokenize=False)
    answered = told.removesuffix(ended.format("")) if ended.format("") else told
    assert pair.prompt + pair.answer[:-1] == chat.tokenizer(answered, add_special_tokens=False)["input_ids"]
    assert pair.prompt.count(chat.tokenizer.bos_token_id) <= 1
    assert pair.answer[-1] == EOS


def test_a_template_sees_one_date_on_every_day(monkeypatch: pytest.MonkeyPatch) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Later:
            return cls(2031, 7, 30)

    today = texts(DATED).encode_chat("Who?")
    monkeypatch.setattr(chat_template_utils, "datetime", Later)
    assert texts(DATED).encode_chat("Who?") == today
    named = texts(DATED, today="2027-03-04")
    assert seen(named, named.encode_chat("Who?")).startswith("Today: 04 Mar 2027/4 March\n<|im_start|>user\nWho?")


def test_a_system_message_has_its_role_or_stands_before_the_users_text() -> None:
    shows, refuses = texts(QWEN3), texts("{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + QWEN3)
    assert seen(shows, shows.encode_chat("Who?", system="Be brief.")).startswith("<|im_start|>system\nBe brief.<|im_end|>\n")
    assert seen(refuses, refuses.encode_chat("Who?", system="Be brief.")).startswith(
        "<|im_start|>user\nBe brief.\n\nWho?<|im_end|>"
    )
    pair = shows.encode_pair("Who?", "Paris", chat=True, system="Be brief.")
    assert pair.prompt == shows.encode_chat("Who?", system="Be brief.", answering=True)


def test_white_space_goes_where_the_template_strips_it() -> None:
    strips = texts(QWEN3.replace("m.content", "(m.content | trim)"))
    assert strips.encode_chat(" Who?\n") == strips.encode_chat("Who?")


@pytest.mark.parametrize(
    ("template", "end"),
    [
        (QWEN3, (TURN_END, "")),
        (LLAMA2, (EOS, "")),
        (QWEN3.replace("<|im_end|>", "<|eom|>"), (None, "<|eom|>")),  # a text that the tokenizer has no token for
        ("{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}", (None, "")),
        (_TURNS.replace("<|im_end|>", "[END]"), (None, "[END]")),
        (_TURNS.replace("<|im_end|>", "."), (None, "")),
        ("{{ '<|im_start|>' + messages[0].content }}", (None, "")),  # it shows no answers
    ],
)
def test_a_turn_ends_where_the_template_ends_an_answer(template: str, end: tuple[int | None, str]) -> None:
    assert texts(template).turn_end == end


def test_a_turn_may_end_with_an_added_token_of_whatever_form() -> None:
    chat = texts(_TURNS.replace("<|im_end|>", "~over~"))
    assert chat.turn_end == (chat.tokenizer.convert_tokens_to_ids("~over~"), "")


def test_a_template_that_can_show_no_turn_is_told_with_its_reason() -> None:
    with pytest.raises(ModelError, match=r"can't show a user's turn \(only tools\); set model.template_arguments"):
        texts("{{ raise_exception('only tools') }}").encode_chat("Who?")
