"""What models say to their user around notes: greetings, announcements, headings, offers and refusals.

Phrases are those of English, and the commonest of a few more languages. They count only at a text's beginning or end.
"""

from __future__ import annotations

import re

from .labels import Line, answer_label, question_label

MOST_CHARS = 400  # of a line that is talk

_FLAGS = re.IGNORECASE
_GREETING = re.compile(
    r"(?:sure(?: thing)?|certainly|of course|absolutely|definitely|okay|ok|alright|all right|great(?: question)?|gladly|"
    r"no problem|understood|got it|happy to help|thank you(?: for [^.!:,]{1,80})?|thanks(?: for [^.!:,]{1,80})?|hello|"
    r"hi(?: there)?|hey(?: there)?|bien sûr|avec plaisir|natürlich|gerne?|klar|claro(?: que sí)?|por supuesto|certo|"
    r"certamente|com certeza|конечно|当然(?:可以)?|好的|没问题|もちろん(?:です)?|はい|물론입니다|네)"
    r"(?:\s*[!.,:;。！，、：—–-]+\s*|\s*$)",
    _FLAGS,
)
_OPENER = re.compile(
    r"(?:here(?:'s|’s| is| are| you go)|below(?: is| are|,)|the following|following (?:is|are)|these are|this is (?:a|the)|"
    r"based on|from the|according to|as (?:requested|asked|instructed)|i(?:'ve| have|’ve|'ll| will|’ll| can)|"
    r"let(?:'s|’s| me| us)|voici|voilà|hier (?:ist|sind|kommt|folgen)|im folgenden|aquí (?:está|están|tienes?)|a continuación|"
    r"ecco|di seguito|aqui (?:está|estão)|a seguir|вот|ниже|以下|下面|这里是|根据|次の|다음)",
    _FLAGS,
)
_NOUNS = (
    "facts?|implications?|lists?|notes?|statements?|points?|questions?|answers?|pairs?|q&as?|q & a|summar(?:y|ies)|"
    "versions?|rewrit\\w+|rewording|paraphras\\w+|retellings?|passages?|texts?|inferences?|details|sentences?|json|outputs?|"
    "results?|responses?|information|takeaways|conclusions?|deductions?|observations|insights|"
    "faits|implications|liste|réponses|passage|texte|fakten|tatsachen|folgerungen|fragen|antworten|abschnitt\\w*|aussagen|"
    "hechos|lista|preguntas|respuestas|pasaje|texto|implicaciones|fatti|domande|risposte|elenco|brano|testo|fatos|factos|"
    "perguntas|respostas|trecho|факт\\w*|список|вопрос\\w*|ответ\\w*|текст\\w*"
)
_NOUN = re.compile(rf"\b(?:{_NOUNS})\b|事实|列表|问题|答案|以下|如下|文章|含义|推论|事実|質問|리스트|사실|질문", _FLAGS)
_TITLE = re.compile(rf"(?:[\w'’&-]+ ){{0,3}}(?:{_NOUNS})(?: \(?\d+\)?)?|(?:事实|列表|问答|含义|推论|答案|事実|質問)", _FLAGS)
_COLON = re.compile(r"[:：][\s*_]*$")
_SENTENCE_END = re.compile(r"[.!?。！？…][\"'”’)*_]*$")
_REFUSAL = re.compile(
    r"(?:i(?:'m| am|’m) (?:(?:really |very |so |truly )?(?:sorry|afraid)[,.]? (?:but|i\b|that i|for)|unable|not able)|"
    r"sorry[,.!]|my apologies|i apologi[sz]e|as an ai\b|unfortunately,? i\b|i (?:do(?:n't|n’t| not)) have (?:access|enough|any)|"
    r"i (?:can(?:no|'|’)t|cannot|won(?:'|’)t|will not) "
    r"(?:be able|help|assist|access|provide|fulfil|create|generate|answer|complete|comply|see|write|read|do (?:this|that))|"
    r"je suis désolé|désolé|es tut mir leid|tut mir leid|lo siento|mi dispiace|desculpe|sinto muito|"
    r"извините|к сожалению, я|对不起|很抱歉|抱歉|申し訳|죄송)",
    _FLAGS,
)
_CLOSING = re.compile(
    r"(?:(?:please |just )?let me know|i(?:'m| am|’m) (?:happy|glad|here) to|i(?:'d| would|’d) be (?:happy|glad)|"
    r"i can also\b|(?:i )?hope (?:this|that|these|it)\b|feel free|please (?:feel free|note that|provide|share|paste|tell me)|"
    r"if you(?:'d|’d| would| have| need| want| like)\b.*\b(?:let me|ask|tell me|more|else|questions?|help|further|i can)\b|"
    r"would you like\b|do you (?:want|need)\b|is there anything|can i help|shall i\b|"
    r"(?:\(?note:? )?(?:all (?:of )?)?(?:these|the above|those)(?: \w+){0,3} "
    r"(?:facts?|implications?|questions?|statements?|answers?|pairs|notes|points|sentences|list)\b"
    r".*\b(?:passage|text|article|above|provided|given|information)\b|"
    r"n'hésitez pas|n’hésitez pas|j'espère|j’espère|si vous (?:avez|souhaitez)|lass(?:en sie)? (?:es )?mich|ich hoffe|"
    r"falls du|falls sie|wenn (?:du|sie) (?:noch|weitere)|möchte(?:st du|n sie)|espero que|no dudes|avísame|"
    r"déjame saber|si (?:necesitas|tienes|quieres)|fammi sapere|spero che|se (?:hai|vuoi|precisar|quiser)|"
    r"дайте знать|надеюсь|если (?:вам|у вас)|如果(?:您|你)|如有|希望(?:这|以上|对)|请告诉我|"
    r"还有(?:什么|其他)|何か(?:他|ご)|お知らせ|도움이)",
    _FLAGS,
)


def without_opening(lines: list[Line]) -> list[Line]:
    """The lines from the first one on that is not a greeting, an announcement ("Here are some facts:") or a refusal."""
    for i, line in enumerate(lines):
        greeting = None if line.marked else _GREETING.match(line.text)
        text = line.text[greeting.end() :] if greeting else line.text
        if text and not (_announces(text, i + 1 < len(lines)) or is_refusal(text)):
            # What follows a greeting on its line may be a note.
            return [line._replace(text=text), *lines[i + 1 :]]
    return []


def is_closing(text: str) -> bool:
    """Whether a last line offers more, hopes to have helped, says what the notes are, or refuses."""
    return len(text) <= MOST_CHARS and (bool(_CLOSING.match(text)) or is_refusal(text))


def is_refusal(text: str) -> bool:
    """Whether the model says that it can't, or is sorry."""
    return len(text) <= MOST_CHARS and bool(_REFUSAL.match(text))


def is_heading(line: Line) -> bool:
    """Whether a line is only the name of what follows: no sentence, no question, and no label of one."""
    bare = line.text.rstrip("*_ :：")
    if _is_label(line.text) or _SENTENCE_END.search(line.text):
        return False
    return line.heading or line.bold or bool(_COLON.search(line.text) and _TITLE.fullmatch(bare))


def _announces(text: str, more: bool) -> bool:
    """Whether a first line says what follows; ``more``: something does."""
    if not more or len(text) > MOST_CHARS or _is_label(text):
        return False
    opens, names = bool(_OPENER.match(text)), bool(_NOUN.search(text))
    return (opens or names) if _COLON.search(text) else (opens and names and text.lower().startswith(("here", "below", "as ")))


def _is_label(text: str) -> bool:
    asked, answered = question_label(text), answer_label(text)
    return bool((asked and asked.sure) or (answered and answered.sure))
