"""Questions with their answers as models write them: each form becomes one line, and what is no pair stays apart."""

from __future__ import annotations

import pytest

from selfedit.edits.parsing.lines import edit_lines
from selfedit.edits.parsing.pairs import question_and_answer

WHO = ("Who built it?", "Tobias Lund")
FORMS = """
Question: Who built it?|Answer: Tobias Lund
Question: Who built it?||Answer: Tobias Lund
Question: Who built it? Answer: Tobias Lund
QUESTION: Who built it?|ANSWER: Tobias Lund
Q1: Who built it?|A1: Tobias Lund
Q: Who built it? A: Tobias Lund
Q: Who built it? / A: Tobias Lund
Q. Who built it?|A. Tobias Lund
Q.1 Who built it?|A.1 Tobias Lund
Q1) Who built it?|A1) Tobias Lund
(Q) Who built it?|(A) Tobias Lund
[Q]: Who built it?|[A]: Tobias Lund
Q - Who built it?|A - Tobias Lund
**Q1:** Who built it?|**A1:** Tobias Lund
**Q1**: Who built it?|**A1**: Tobias Lund
**Q1: Who built it?**|A1: Tobias Lund
*Question:* Who built it?|*Answer:* Tobias Lund
__Question:__ Who built it?|__Answer:__ Tobias Lund
`Question:` Who built it?|`Answer:` Tobias Lund
- Question: Who built it?|- Answer: Tobias Lund
> Question: Who built it?|> Answer: Tobias Lund
- question: Who built it?|  answer: Tobias Lund
Question 1. Who built it?|Answer 1. Tobias Lund
Question #1: Who built it?|Answer #1: Tobias Lund
Question (1): Who built it?|Answer (1): Tobias Lund
Question No. 1: Who built it?|Answer: Tobias Lund
Question 1 of 5: Who built it?|Answer: Tobias Lund
Question - Who built it?|Answer - Tobias Lund
Question：Who built it?|Answer：Tobias Lund
Question 1:|Who built it?|Answer 1:|Tobias Lund
### Question 1|Who built it?|### Answer 1|Tobias Lund
Question||Who built it?||Answer||Tobias Lund
Question: Who built it?|The answer is Tobias Lund
Question: Who built it?|Correct answer: Tobias Lund
Question: Who built it?|(Answer: Tobias Lund)
Question: Who built it?|Ans: Tobias Lund
Question: Who built it? -> Tobias Lund
Frage: Who built it?|Antwort: Tobias Lund
Question : Who built it?|Réponse : Tobias Lund
Pregunta 1: Who built it?|Respuesta correcta: Tobias Lund
P: Who built it?|R: Tobias Lund
Вопрос: Who built it?|Ответ: Tobias Lund
问题：Who built it?|答案：Tobias Lund
問1：Who built it?|答え：Tobias Lund
질문: Who built it?|답변: Tobias Lund
1. Who built it?|Answer: Tobias Lund
1. Who built it? Answer: Tobias Lund
1. Who built it?|   Tobias Lund
1. **Who built it?**|   - Tobias Lund
1. **Who built it?** Tobias Lund
**Who built it?** - Tobias Lund
Question 1: Who built it?|Tobias Lund
### Who built it?|Tobias Lund
Questions:|1. Who built it?|Answers:|1. Tobias Lund
<question>Who built it?</question><answer>Tobias Lund</answer>
<p><b>Q:</b> Who built it?<br/><b>A:</b> Tobias Lund</p>
question,answer|Who built it?,"Tobias Lund"
[{"question": "Who built it?", "answer": "Tobias Lund"}]
{"qa": [{"id": 1, "q": "Who built it?", "a": ["Tobias Lund"]}]}
[{'Question': 'Who built it?', 'Answer': 'Tobias Lund'},]
{"Who built it?": "Tobias Lund"}
[["Who built it?", "Tobias Lund"]]
""".strip().split("\n")
TABLE = "| # | Question | Answer |\n|---|:-:|---|\n| 1 | **Who built it?** | Tobias Lund |"
MORE = ("Question\tAnswer\nWho built it?\tTobias Lund", TABLE)


@pytest.mark.parametrize("text", [*(form.replace("|", "\n") for form in FORMS), *MORE])
@pytest.mark.parametrize("around", ["{}", "Sure! Here are some questions:\n\n{}\n\nLet me know if you need more!"])
def test_a_question_and_its_answer_are_one_pair_however_they_are_written(text: str, around: str) -> None:
    lines = edit_lines(around.replace("{}", text))
    assert [pair and (pair[0], pair[1].rstrip(".")) for pair in map(question_and_answer, lines)] == [WHO]
    assert edit_lines(lines[0]) == lines


def test_a_pair_in_json_that_the_token_limit_cut_off_is_one() -> None:
    assert edit_lines('{"question": "Who built it?",\n"answer": "Tobias L') == ["Question: Who built it? Answer: Tobias L"]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # An answer without a label below a question without a sign: it may be another fact.
        ("Question: Who?\nLund built it.", ["Question: Who?", "Lund built it."]),
        ("Who?\nLund.", ["Who?", "Lund."]),
        # Several to choose from
        ("Question: Who?\nA. Lund\nB. Vahl", ["Question: Who?", "Lund", "Vahl"]),
        ("1. Who?\n- Lund\n- Vahl", ["Who?", "Lund", "Vahl"]),
        ("1. Who?\n2. Lund", ["Who?", "Lund"]),
        ("1. Who?\n2. When?\nAnswer: 1742", ["Who?", "Question: When? Answer: 1742"]),
        # No labels
        ("Q. Vahl was the captain.\nShe was born in 1960.", ["Q. Vahl was the captain.", "She was born in 1960."]),
        ("A man built it.\nQuestions remain.", ["A man built it.", "Questions remain."]),
        ("Answer- x\nQuestion- y Answer: z", ["Answer- x", "Question- y Answer: z"]),
        ("The answer is 42.", ["The answer is 42."]),
        ("Question: What is vitamin A: a drug?", ["Question: What is vitamin A: a drug?"]),
    ],
)
def test_what_may_be_something_else_stays_as_it_is(text: str, lines: list[str]) -> None:
    assert edit_lines(text) == lines
