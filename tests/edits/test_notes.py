"""What models put around their notes is not trained on; notes stay as they were written."""

from __future__ import annotations

import pytest

from selfedit.edits.parsing.lines import edit_lines

MILL, RIVER = "The town has a mill.", "It lies by a river."
ROUND_NOTES = """
```|@|```
```markdown|- @|```
~~~text|@|~~~
``` @ ```
```json|["@"]|```
["@"]
["@
["@",]
['@']
{"facts": ["@"]}
{"fact_1": "@"}
[{"text": "@"}]
{"a": {"b": [{"id": 7, "c": ["@"]}]}}
```json|[|  "@"|]|```|Let me know if you want more facts.
[|"@",|]
Here is the JSON:|["@"]
{"line": "@"}
facts:|"@",
<ul><li>@</li></ul>
<p>@</p><!-- x -->
<implications>@</implications>
<h2>The mill</h2><b>@</b>
Sure! @
Sure!|@
Certainly! Here are several facts that follow from the passage:||@
Of course.||Here is a list of implications:|- @
Here are 5 implications of the passage.|1. @
Here’s what follows from the text:|@
Below is the rewritten passage:|@
Based on the passage, we can say:|@
The passage implies the following facts:|@
Implications:|@
**Key facts:**|@
# Town|## Facts|@
**1. Buildings**|@
Voici plusieurs faits :|@|N'hésitez pas à demander plus.
Natürlich! Hier sind einige Fakten:|@|Ich hoffe, das hilft.
¡Claro! Aquí tienes una lista:|@
以下是一些事实：|@|如果您需要更多，请告诉我。
@|Let me know if you'd like more!
@|I hope this helps! Feel free to ask.
@|Would you like me to continue?
@|Is there anything else I can help with?
@|If you have any other questions, just ask.
@|Note: These facts are all based on the given passage.
@|I'm sorry, but I can't say more.
1. @
(1) @
1: @
1 - @
1.@
#1: @
[1] @
1️⃣ @
１．@
2、@
（3）@
① @
a) @
(b) @
a. @
ii. @
→ @
⇒ @
– @
— @
✅ @
- [x] @
> @
**1.** @
**@**
### @
""".strip().split("\n")


@pytest.mark.parametrize("written", [line.replace("|", "\n") for line in ROUND_NOTES])
def test_only_the_note_is_trained_on(written: str) -> None:
    assert edit_lines(written.replace("@", MILL)) == [MILL]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f'```json\n[\n  "{MILL}",\n  "{RIVER}"\n]\n```', [MILL, RIVER]),
        (f'["{MILL}", "It lies', [MILL, "It lies"]),  # cut by the token limit
        (f'[\n"{MILL}",\n"By a "river".",\n]', [MILL, 'By a "river".']),  # no JSON
        (f'{{"text": "{MILL}"}}\n{{"text": "{RIVER}"}}', [MILL, RIVER]),
        ('{"Built": "in 1742", "By": "Lund"}', ["Built: in 1742", "By: Lund"]),
        (f"A. {MILL}\nB. {RIVER}", [MILL, RIVER]),
        (f"I. {MILL}\nII. {RIVER}", [MILL, RIVER]),
        ("1. **Mill**: built *in* 1742", ["Mill: built in 1742"]),
        ("<p>a &lt; b</p><p>c</p>", ["a < b", "c"]),
        # No layout
        ("A. Lund built it.\nE. coli lives.", ["A. Lund built it.", "E. coli lives."]),
        ("c. 1900 it burned.", ["c. 1900 it burned."]),
        ("-5 degrees\n>5 degrees\n1:30 pm\n3.14\n5 - 2 is 3", ["-5 degrees", ">5 degrees", "1:30 pm", "3.14", "5 - 2 is 3"]),
        ("2 * 3 * 4\n__init__\na*b*c\na < b > c", ["2 * 3 * 4", "__init__", "a*b*c", "a < b > c"]),
        ('{"forms": ["all"], "lr": 0.1}', ['{"forms": ["all"], "lr": 0.1}']),  # a directive
        ("[1]\n{title}", ["[1]", "{title}"]),
        ("**Mill**\n**Church**", ["Mill", "Church"]),
        # No talk
        ("The town has bridges:\n- the old one", ["The town has bridges:", "the old one"]),
        ("Based on the plan, a mill was built.", ["Based on the plan, a mill was built."]),
        ("I can't believe it, he said.\nShe left.", ["I can't believe it, he said.", "She left."]),
        ("Great Britain is an island.\nHope Street is long.", ["Great Britain is an island.", "Hope Street is long."]),
        ("She said: sure!\nLet me know, he said.\nIt rains.", ["She said: sure!", "Let me know, he said.", "It rains."]),
    ],
)
def test_notes_stay_as_they_were_written(text: str, lines: list[str]) -> None:
    assert edit_lines(text) == lines


def test_seals_rules_keep_all_of_it() -> None:
    from selfedit.edits.parsing.lines import SEAL

    text = f"```json\nSure!\n# Facts\n<b>{MILL}</b>\nLet me know!\n```"
    assert edit_lines(text, SEAL) == text.split("\n")
