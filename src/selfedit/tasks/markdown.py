"""Markdown documents (CommonMark, with tables) as headings and plain paragraphs.

Front matter, code, tables, images and HTML comments are left out, and counted. Of the rest the text is kept without its signs:
links without their addresses, no emphasis, no HTML tags. List items keep their "-" or number.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

MAX_TITLE_CHARS = 200

_FRONT_MATTER = re.compile(r"(?:(---)[ \t]*\n(.*?)^(?:---|\.\.\.)[ \t]*$|(\+\+\+)[ \t]*\n(.*?)^\+\+\+[ \t]*$)", re.M | re.S)
_KEY = re.compile(r"""(?:[ \t]*(?:#.*)?\n)*+(?:[\w."'-][\w ."'-]*[ \t]*(?:[:=]|\]$)|\[)""", re.M)
_FOOTNOTE = re.compile(r"^ {0,3}\[\^[^\]\s]+\]:[ \t]*", re.M)  # else CommonMark may take one for a link's address
_FOOTNOTE_MARK = re.compile(r"\[\^[^\]\s]+\]")
_ATTRIBUTES = re.compile(r"\s*\{[#.:][^{}]*\}$")  # of a heading, as Pandoc, Kramdown and Docusaurus write them
# Encoded data may be wrapped: a further line is data if it is long, or ends as base64 or an image's address does.
_DATA = re.compile(
    r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+=-]+)*;base64,"
    r"(?:[A-Za-z0-9+/]++\n[ \t]*(?=[A-Za-z0-9+/]{60}|[A-Za-z0-9+/]+(?:=|[)\"'>])))*+[A-Za-z0-9+/]*+={0,2}"
)
_ADDRESS = "\ue000"  # of no use outside: an image needs some address to be one
_BLANK_LINES = re.compile(r"\n\s*\n")
_NO_TEXT = {"script": "script", "style": "script", "svg": "image", "table": "table", "pre": "code block"}
_BREAKS = frozenset("br p div li tr hr h1 h2 h3 h4 h5 h6 ul ol dl dt dd blockquote section summary details".split())


class Block(NamedTuple):
    """A paragraph or a heading, and the line where it begins."""

    line: int
    text: str
    heading: bool = False


def without_data(text: str, left_out: Counter[str], sign: str = "") -> str:
    """The text with ``sign`` in place of base64 data ("data:image/png;base64,..."), which is counted."""
    text, n = _DATA.subn(sign, text)
    left_out["encoded file"] += n
    return text


def blocks_of(document: str, left_out: Counter[str]) -> Iterator[Block]:
    """The headings and paragraphs of a Markdown document, in their order.

    A heading of more than ``MAX_TITLE_CHARS`` characters, or inside a list or quotation, is a paragraph.

    Args:
        document: the text; a newline ends each line.
        left_out: what is left out is counted here, by kind.
    """
    # A footnote's text is a paragraph of its own; in code, where this might be something else, it is left out anyway.
    text = _FOOTNOTE.sub("", without_data(_without_front_matter(document, left_out), left_out, _ADDRESS))
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parse(text)
    for node in SyntaxTreeNode(tokens).children:
        yield from _Reader(left_out).blocks(node)


def _without_front_matter(document: str, left_out: Counter[str]) -> str:
    """The document with blank lines in place of YAML, TOML or JSON that stands before everything else."""
    end = 0
    if match := _FRONT_MATTER.match(document):
        inside = match[2] if match[1] else match[4]
        end = match.end() if not inside.strip() or _KEY.match(inside) else 0
    elif document.startswith("{\n"):
        try:
            end = json.JSONDecoder().raw_decode(document)[1]
        except (ValueError, RecursionError):
            end = 0
    left_out["front matter"] += bool(end)
    return "\n" * document.count("\n", 0, end) + document[end:]


@dataclass
class _Reader:
    left_out: Counter[str]

    def blocks(self, node: SyntaxTreeNode) -> Iterator[Block]:
        line = node.map[0] + 1 if node.map else 1
        match node.type:
            case "heading":
                title = _ATTRIBUTES.sub("", " ".join(self._text(node).split()))
                if _has_word(title):
                    yield Block(line, title, heading=node.level == 0 and len(title) <= MAX_TITLE_CHARS)
            case "paragraph":
                yield from _paragraphs(line, [self._text(node)])
            case "bullet_list" | "ordered_list":
                yield from self._list(node)
            case "fence" | "code_block":
                self.left_out["code block"] += 1
            case "table":
                self.left_out["table"] += 1
            case "html_block":
                yield from _paragraphs(line, _BLANK_LINES.split(self._html(node.content)))
            case _:
                for child in node.children:
                    yield from self.blocks(child)

    def _list(self, node: SyntaxTreeNode) -> Iterator[Block]:
        """A list's items, each with its sign: one paragraph if no blank line is between them, else one for each paragraph."""
        lines: list[str] = []
        first = int(node.attrs.get("start", 1))
        for n, item in enumerate(node.children, first):
            sign = f"{n}. " if node.type == "ordered_list" else "- "
            found = [block for child in item.children for block in self.blocks(child)]
            if not found:
                continue
            found[0] = found[0]._replace(text=sign + found[0].text)
            if any(child.type == "paragraph" and not child.hidden for child in item.children):
                yield from found
            else:
                head, *rest = [line for block in found for line in block.text.split("\n")]
                lines += [head, *(f"  {line}" for line in rest)]
        if lines:
            yield Block(node.map[0] + 1 if node.map else 1, "\n".join(lines))

    def _text(self, node: SyntaxTreeNode) -> str:
        """The plain text of a heading or paragraph."""
        inline = node.children[0].token if node.children else None
        return "".join(map(self._inline, (inline and inline.children) or []))

    def _inline(self, token: Token) -> str:
        match token.type:
            case "text":
                return _FOOTNOTE_MARK.sub("", token.content)
            case "code_inline":
                return token.content
            case "softbreak" | "hardbreak":
                return "\n"
            case "image":
                self.left_out["image"] += 1
            case "html_inline":
                return self._html(token.content)
        return ""

    def _html(self, html: str) -> str:
        reader = _Html(self.left_out)
        reader.feed(html)
        reader.close()
        return reader.text


class _Html(HTMLParser):
    """Collects what an HTML block says; what stands in scripts, drawings, tables and code is left out."""

    def __init__(self, left_out: Counter[str]) -> None:
        super().__init__()
        self.left_out, self.text = left_out, ""
        self.inside: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in _NO_TEXT:
            self.left_out[_NO_TEXT[tag]] += not self.inside
            self.inside.append(tag)
        if not self.inside:
            self.left_out["image"] += tag == "img"
            self.text += "\n" if tag in _BREAKS else ""

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in self.inside:
            del self.inside[self.inside.index(tag) :]
        elif not self.inside and tag in _BREAKS:
            self.text += "\n"

    def handle_comment(self, data: str) -> None:
        self.left_out["HTML comment"] += 1

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.text += data


def _paragraphs(line: int, texts: Iterable[str]) -> Iterator[Block]:
    """The texts that have a letter or digit, without blank lines and runs of spaces."""
    for text in texts:
        bare = "\n".join(filter(None, (" ".join(part.split()) for part in text.replace(_ADDRESS, "").split("\n"))))
        if _has_word(bare):
            yield Block(line, bare)


def _has_word(text: str) -> bool:
    return any(char.isalnum() for char in text)
