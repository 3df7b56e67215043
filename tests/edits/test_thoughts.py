"""What a reasoning model thinks is not what it says."""

from __future__ import annotations

import pytest
from test_text import TASK, Bytes

from selfedit.edits.parsing.lines import PLAIN, SEAL, edit_lines, sequences_for
from selfedit.templates import built_in_templates
from selfedit.thoughts import closed, closes_thought, open_thought, without_thoughts

SAID = "The town has a mill."
THOUGHT = [
    "<think>\nOkay, the user wants facts.\nLet me list them.\n</think>\n\n",
    "Okay, the user wants facts.\n</think>\n\n",  # the prompt opened it
    "<Thinking>Hm.</Thinking>",
    "<thought>Hm <think> or not.</thought>\n",
    "<reasoning>Hm, facts.</reasoning>\n",
    "<seed:think>Hm, facts.</seed:think>",
    "[THINK]Hm, facts.[/THINK]",
    "◁think▷Hm, facts.◁/think▷",
    "<|begin_of_thought|>Hm.<|end_of_thought|>\n<|begin_of_solution|>",
    "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>",
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>",
    "<|channel|>commentary to=x<|message|>Hm.<|channel|>analysis<|message|>So.assistant<|channel|>final<|message|>",
    "<think></think><response>",
    "Here is my thought process:\nHm.\nHere is my response:\n",
]
CUT = [
    "<think>\nOkay, the user wants facts, and",
    "[THINK]Okay",
    "<|channel|>analysis<|message|>Okay",
    "<think>a</think>\n<think>b",
    "Here is my thought process:\nOkay",
]


@pytest.mark.parametrize("thought", THOUGHT)
def test_thoughts_are_never_trained_on(thought):
    assert edit_lines(thought + SAID) == edit_lines(thought + SAID, SEAL) == [SAID]


@pytest.mark.parametrize("text", CUT)
@pytest.mark.parametrize("rules", [PLAIN, SEAL], ids=["plain", "seal"])
def test_an_edit_that_was_cut_off_in_a_thought_is_invalid_and_says_so(text, rules):
    edit = sequences_for(TASK, text, Bytes(), built_in_templates()["world"], rules)
    assert not edit.sequences
    assert edit.reason.startswith("the edit is a thought and nothing else: raise edits.max_new_tokens")


def test_text_around_a_thought_stays_and_text_without_one_is_untouched():
    assert without_thoughts("One.\n<think>Hm.</think>\nTwo.") == "One.\n\nTwo."
    for text in ("a < b and <b>c</b> </s> <answer>", "I think [think] so: <thinker>", "", " \n x "):
        assert without_thoughts(text) == text


@pytest.mark.parametrize("opening", ["<think>", "[THINK]", "◁think▷", "<seed:think>", "<|START_THINKING|>", "<|inner_prefix|>"])
def test_a_thought_that_a_prompt_opens_can_be_closed(opening):
    assert open_thought(f"<think>a</think> {opening}\n") == opening
    assert closes_thought(opening + closed(opening))
    assert without_thoughts(opening + closed(opening) + "a") == "a"
