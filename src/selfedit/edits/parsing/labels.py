"""The labels of questions and answers, as models write them: "Question 1:", "**Q2.**", "A -", "Réponse :", "答案：" ..."""

from __future__ import annotations

import re
from typing import NamedTuple

_QUESTIONS = (
    "question|pregunta|domanda|pergunta|frage|vraag|fråga|spørsmål|spørgsmål|kysymys|pytanie|otázka|kérdés|întrebare|soru|"
    "câu hỏi|pertanyaan|вопрос|питання|ερώτηση|سؤال|प्रश्न|প্রশ্ন|คำถาม|질문|问题|問題|質問|提问|问|問"
)
_ANSWERS = (
    "answer|ans|réponse correcte|réponse|respuesta correcta|respuesta|risposta corretta|risposta|resposta correta|resposta|"
    "richtige antwort|antwort|antwoord|svar|vastaus|odpowiedź|odpověď|válasz|răspuns|cevap|yanıt|"
    "trả lời|đáp án|jawaban|ответ|відповідь|απάντηση|جواب|الجواب|إجابة|الإجابة|उत्तर|উত্তর|คำตอบ|답변|정답|답|"
    "正确答案|答案|回答|解答|答え|正解|答"
)
_KIND = r"(?:the\s++)?(?:(?:correct|right|short|expected|final|model|sample|suggested|possible|best|true|full|ideal)\s++)?"
# Possessive quantifiers: no text, however odd, makes these backtrack.
_NUMBER = r"(?:\.(?=\d)|\s*+)(?:(?:no|nr)\.\s*+|n[°º]\s*+|[#№]\s*+)?(?:\(\s*+\d++\s*+\)|\d++(?:\s*+(?:of|/)\s*+\d++)?)?\s*+"
_SIGNS = r"[*_`]*+\s*+"
# A word is a label before one of these, or alone on its line; a letter before a colon, or where both letters are there.
_AFTER_WORD = r"(?:[:：=]|[.)\]](?=\W|$)[:：]?|(?<=[\s\d)])[-–—](?=\s)|$)"
_AFTER_LETTER = r"(?:[:：]|[.)\]](?=[\s:：])[:：]?|[-–—](?=\s)|(?<=\d)(?=\s)|(?<=\d\s))"
_FLAGS = re.IGNORECASE
_BEFORE = r"[\s*_`>\[(]*+"

_QUESTION = re.compile(rf"{_BEFORE}(?:{_QUESTIONS}){_NUMBER}{_SIGNS}{_AFTER_WORD}\s*+{_SIGNS}", _FLAGS)
_Q = re.compile(rf"{_BEFORE}q{_NUMBER}{_SIGNS}[:：]\s*+{_SIGNS}", _FLAGS)
_Q_PERHAPS = re.compile(rf"{_BEFORE}[qfpdв]{_NUMBER}{_SIGNS}{_AFTER_LETTER}\s*+{_SIGNS}", _FLAGS)
_ANSWER = re.compile(rf"{_BEFORE}{_KIND}(?:{_ANSWERS}){_NUMBER}{_SIGNS}(?:is\b\s*+[:：]?|{_AFTER_WORD})\s*+{_SIGNS}", _FLAGS)
_A = re.compile(rf"{_BEFORE}[arоо]{_NUMBER}{_SIGNS}{_AFTER_LETTER}\s*+{_SIGNS}", _FLAGS)
# Inside a line: a word with its colon; a letter only behind the question's own end.
_INNER = re.compile(
    rf"(?:(?<!\w)[*_`(\[]*+{_KIND}(?:{_ANSWERS}){_NUMBER}{_SIGNS}[:：=]|(?<=[?？.])[\s*_`|/(\[–—-]*+[arо]{_NUMBER}{_SIGNS}[:：]|"
    r"(?<=[?？])[\s*_]*+(?:[-=]>|[→⇒➔|–—-])(?=\s))"
    rf"\s*+{_SIGNS}",
    _FLAGS,
)
_NAMES = {"question": re.compile(rf"(?:{_QUESTIONS}|q)s?", _FLAGS), "answer": re.compile(rf"(?:{_ANSWERS}|a)s?", _FLAGS)}
_HAS_NUMBER = re.compile(r"\d")


class Line(NamedTuple):
    """A line without its signs, and what these were: they tell a heading, and a question with its answer below."""

    text: str
    numbered: bool = False
    bulleted: bool = False
    bold: bool = False
    heading: bool = False

    @property
    def marked(self) -> bool:
        """Whether it began as an item or a heading."""
        return self.numbered or self.bulleted or self.heading


class Labelled(NamedTuple):
    """What follows a label; ``sure``: it is one whatever follows; ``numbered``: it has a number."""

    rest: str
    sure: bool
    numbered: bool


def question_label(text: str) -> Labelled | None:
    """What follows a question's label at the beginning of a line."""
    for label, sure in ((_QUESTION, True), (_Q, True), (_Q_PERHAPS, False)):
        if match := label.match(text):
            return Labelled(text[match.end() :], sure, bool(_HAS_NUMBER.search(match[0])))
    return None


def answer_label(text: str) -> Labelled | None:
    """What follows an answer's label at the beginning of a line: surely one, or behind a question ("A. Lund")."""
    for label, sure in ((_ANSWER, True), (_A, False)):
        if match := label.match(text):
            rest = text[match.end() :]
            rest = rest.removesuffix(")") if match[0].startswith("(") and rest.count(")") > rest.count("(") else rest
            return Labelled(rest, sure, bool(_HAS_NUMBER.search(match[0])))
    return None


def parts_of(text: str, most: int) -> tuple[str, str] | None:
    """A question and its answer on one line, where the label of an answer stands in the first ``most`` characters."""
    match = _INNER.search(text, 0, most)
    return (text[: match.start()].rstrip(" \t|-–—/*_`(["), text[match.end() :]) if match else None


def is_name_of(kind: str, text: str) -> bool:
    """Whether a field, a column or a heading is called "question" or "answer" (``kind``), in the singular or plural."""
    return bool(_NAMES[kind].fullmatch(text.strip().strip("*_`\"':：").strip()))
