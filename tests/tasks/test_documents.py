"""Folders of documents: nothing lost, nothing cut inside a word, no document in two splits; every complaint says where."""

from __future__ import annotations

import base64
import bz2
import gzip
import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from selfedit.config import make_settings
from selfedit.errors import SettingsError, TaskFileError
from selfedit.tasks.documents import LeftOut, find_documents, read_documents
from selfedit.tasks.sources.base import open_source
from selfedit.tasks.sources.folder import Folder
from selfedit.types import Task

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4665fbd3\nsize 988097824\n"


def passages(folder: Path, limit: int = 100) -> list[Task]:
    return [task for _, task in read_documents(folder, limit)]


def written(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


# Reading

WORDS = st.text("ab.!?é語'\")", max_size=12) | st.text("x", min_size=90, max_size=300)
TEXTS = st.lists(st.tuples(WORDS, st.sampled_from([" ", " ", " ", "\n", "\n\n", " \r\n", "\t"])), max_size=150)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(TEXTS)
@example([("x" * 99, " "), ("b", " "), ("x" * 98, " ")] * 4)
def test_passages_are_short_and_hold_every_word_once(tmp_path: Path, words: list[tuple[str, str]]) -> None:
    text = "".join(f"{n}{word}{gap}" for n, (word, gap) in enumerate(words)) + "end"
    cut = [task.text for task in passages(written(tmp_path, {"it.txt": text}))]
    assert " ".join(cut).split() == text.split()
    for passage in cut:
        assert len(passage) <= 100 or len(passage.split()) == 1
        assert passage == passage.strip()


def test_a_long_paragraph_is_cut_after_sentences_and_scripts_without_spaces_after_their_signs(tmp_path: Path) -> None:
    sentences = [f"Sentence number {n} has some words in it." for n in range(9)]
    chinese_text = "".join(f"第{n}句话有一些字，" + "字" * 20 + "。" for n in range(9))
    written(tmp_path, {"a.txt": " ".join(sentences), "b.txt": chinese_text})
    english, chinese = [], []
    for task in passages(tmp_path):
        (english if task.title == "a" else chinese).append(task.text)
    assert english == [" ".join(sentences[n : n + 2]) for n in range(0, 9, 2)]
    assert len(chinese) > 1
    assert all(text.endswith("。") and len(text) <= 100 for text in chinese)


MARKDOWN = """Before any heading.

# One in C# #
First paragraph,
of two lines.

Second one.

Two
---
```
# a comment, no heading
```
#hashtag

| a | b |
|---|---|

Three
===
Last.
"""


def test_a_passage_has_the_nearest_headings_title_and_keeps_to_its_section(tmp_path: Path) -> None:
    written(tmp_path, {"notes.MD": MARKDOWN, "plain.txt": "# no heading in plain text"})
    assert [(task.title, task.text) for task in passages(tmp_path, 1000)] == [
        ("notes", "Before any heading."),
        ("One in C#", "First paragraph,\nof two lines.\n\nSecond one."),
        ("Two", "#hashtag"),
        ("Three", "Last."),
        ("plain", "# no heading in plain text"),
    ]
    assert [task.title for task in passages(tmp_path, 30)].count("One in C#") == 2


def test_files_are_found_in_folders_and_by_links_hidden_ones_are_not(tmp_path: Path) -> None:
    elsewhere = written(tmp_path / "elsewhere", {"linked.txt": "linked"})
    folder = written(
        tmp_path / "folder",
        {"b.txt": "b", "a/z.md": "z", "a/deep/y.markdown": "y", ".git/x.md": "x", ".x.txt": "x", "c.py": "c", "d": "d"},
    )
    (folder / "link").symlink_to(elsewhere)
    names = [path.relative_to(folder).as_posix() for path in find_documents(folder)]
    assert names == ["a/deep/y.markdown", "a/z.md", "b.txt", "link/linked.txt"]


def test_ids_depend_on_path_and_text_alone(tmp_path: Path) -> None:
    here = written(tmp_path / "here", {"a/one.md": "# T\nOne.\n\nTwo."})
    there = written(tmp_path / "there", {"a/one.md": "# T\nOne.\n\nTwo.", "a/0.md": "Another."})
    assert [task.id for task in passages(here)] == [task.id for task in passages(there)][1:]
    assert passages(here)[0].id.startswith("a/one.md#")
    written(here, {"a/one.md": "# T\nOne.\n\nChanged."})
    assert passages(here)[0].id != passages(there)[1].id


def test_a_large_file_of_one_line_is_cut_in_little_time(tmp_path: Path) -> None:
    text = "".join(f"word{n} é " for n in range(400_000))
    began = time.process_time()
    n_passages = len(passages(written(tmp_path, {"large.txt": text}), 1000))
    assert n_passages > 4000
    assert time.process_time() - began < 20


# Complaints


@pytest.mark.parametrize(
    ("files", "place", "problem"),
    [
        ({}, ":", "no text file (.txt, .md, .markdown)"),
        ({"a.pdf": b"%PDF", ".hidden.md": "x"}, ":", "no text file"),
        ({"a.txt": ""}, ":", "no file has text: there are only headings and 1 file without any other text (a.txt)"),
        ({"b/a.md": "# Title\n\n## Another\n \n***\n"}, ":", "1 file without any other text (b/a.md)"),
        (
            {"a.md.gz": b"\x1f\x8b", "b.GZ": b"", "c": b""},
            ":",
            "there are 3 files of kinds that are not read (.gz: 2, no suffix: 1)",
        ),
        ({"a.txt": b"fine\nna\xefve\n"}, "a.txt, line 2:", "byte 3 of the line (byte 8 of the file) is not UTF-8"),
        ({"a.txt": b"\xef\xbb\xbfcaf\xe9"}, "a.txt, line 1:", "byte 7 of the line (byte 7 of the file)"),
        ({"a.txt": b"ends in a letter \xc3"}, "a.txt, line 1:", "byte 18 of the line"),
        ({"a.txt": "text".encode("utf-16")}, "a.txt, line 1:", "UTF-16"),
        ({"a.md": "text".encode("utf-16-le")}, "a.md, line 1:", "UTF-16"),
        ({"a.md": "# Größe\n\nÜber 7 m.".encode("utf-16-be")}, "a.md, line 1:", "iconv -f utf-16be"),
        ({"a.txt": "text".encode("utf-32")}, "a.txt, line 1:", "UTF-32"),
        ({"a.txt": gzip.compress(b"text")}, "a.txt, line 1:", "compressed with gzip; unpack it (gunzip), or move it away"),
        ({"a.txt": bz2.compress(b"text")}, "a.txt, line 1:", "compressed with bzip2"),
        ({"a.md": b"PK\x03\x04text"}, "a.md, line 1:", "zip archive"),
        ({"a.md": b"PAR1\x15\x04"}, "a.md, line 1:", "Parquet file"),
        ({"a.txt": b"%PDF-1.7 text"}, "a.txt, line 1:", "PDF"),
        ({"a.md": LFS}, "a.md, line 1:", "a Git LFS pointer, not the file that it stands for"),
        ({"a.txt": b"\x7fELF\x01\0"}, "a.txt, line 1:", "binary"),
        ({"a.txt": "one\n" + "A" * 200_000}, "a.txt, line 2:", "without a space"),
    ],
)
def test_a_complaint_names_the_file_the_problem_and_what_to_do(
    tmp_path: Path, files: dict[str, str | bytes], place: str, problem: str
) -> None:
    with pytest.raises(TaskFileError) as caught:
        passages(written(tmp_path, files), 15)
    message = str(caught.value)
    assert message.startswith(str(tmp_path))
    assert place in message
    assert problem in message
    assert "; " in message  # what to do follows


def test_bad_files_are_all_counted_and_skipped_by_choice(tmp_path: Path) -> None:
    folder = written(tmp_path / "docs", {"a.txt": b"na\xefve", "b.md": "The mill.", "c.md": LFS, "d.txt": b"\x7fELF\0"})
    with pytest.raises(
        TaskFileError, match=r"a\.txt, line 1: byte 3.*skip_bad_files = true.*\(2 more files can't be read: .*c\.md"
    ):
        passages(folder)
    left_out = LeftOut()
    assert [task.text for _, task in read_documents(folder, 100, left_out, skip_bad_files=True)] == ["The mill."]
    assert [place.split(":")[0].rpartition("/")[2] for place in left_out.bad] == [
        f"{name}, line 1" for name in ("a.txt", "c.md", "d.txt")
    ]
    (folder / "b.md").unlink()
    with pytest.raises(TaskFileError, match=r"no file has text: .* 3 files that can't be read \(.*a\.txt"):
        list(read_documents(folder, 100, skip_bad_files=True))


def test_links_that_loop_lead_nowhere_or_to_no_file_are_named(tmp_path: Path) -> None:
    folder = written(tmp_path / "folder", {"a.txt": "a"})
    for name, target, problem in (
        ("loop", folder, "leads back"),
        ("self.md", folder / "self.md", "levels of symbolic links"),
        ("gone.txt", tmp_path / "gone.txt", "No such file"),
    ):
        (folder / name).symlink_to(target)
        with pytest.raises(TaskFileError, match=problem) as caught:
            passages(folder)
        assert str(folder / name) in str(caught.value)
        (folder / name).unlink()
    os.mkfifo(folder / "pipe.txt")
    with pytest.raises(TaskFileError, match=r"pipe\.txt: it is no regular file"):
        passages(folder)


def test_what_may_not_be_read_and_a_name_of_odd_bytes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = written(tmp_path / "folder", {"a.txt": "a"})
    with open(os.fsencode(folder) + b"/b\xff.txt", "wb") as stream:
        stream.write(b"b")
    with pytest.raises(TaskFileError, match=r"\\udcff.txt': the name is not UTF-8"):
        passages(folder)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root, who runs tests in containers, may read everything
    with pytest.raises(TaskFileError, match=r"a\.txt: the file can't be read \(Permission denied\); check"):
        passages(folder)
    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(TaskFileError, match=r"folder: the folder can't be read \(Permission denied\)"):
        passages(folder)


# What is left out


def read(folder: Path, limit: int = 1000) -> tuple[list[tuple[str, str]], LeftOut]:
    left_out = LeftOut()
    return [(task.title, task.text) for _, task in read_documents(folder, limit, left_out)], left_out


LICENCE = "<!-- Copyright\n\nLicensed under a licence.\n-->\n\n"


def test_a_repeated_paragraph_is_kept_once_whatever_file_and_white_space_and_counted(tmp_path: Path) -> None:
    written(
        tmp_path,
        {
            "a.txt": "One.\n\nAlike  it\nis.\n\nAlike it is.",
            "b/c.md": f"{LICENCE}# T\n\n[[toc]]\n\nAlike it is.\n\n## No\n\nNo changes.\n\n## Still\n\nNo changes.",
            "d.md": f"{LICENCE}[[toc]]\n\nNo changes.",
            "e.md": "# Only a heading",
            "f.txt": " \n",
        },
    )
    found, left_out = read(tmp_path)
    assert found == [("a", "One.\n\nAlike  it\nis."), ("T", "[[toc]]"), ("No", "No changes.")]
    assert left_out.kinds == {"repeated paragraph": 5, "HTML comment": 2}
    assert left_out.empty == ["e.md", "f.txt"]
    assert left_out.told() == ["2 HTML comments", "5 repeated paragraphs", "2 files without any other text (e.md, f.txt)"]


DATA = "data:image/png;base64," + base64.b64encode(bytes(range(256)) * 300).decode()
WRAPPED = "data:image/svg+xml;charset=utf-8;base64," + base64.encodebytes(bytes(range(200))).decode().strip()


@pytest.mark.parametrize(
    ("document", "text", "kinds"),
    [
        (f"The town.\n\n![plan]({DATA})\n\nA mill.", "The town.\n\nA mill.", {"encoded file": 1, "image": 1}),
        (f"The <img alt='a' src='{DATA}'> town ![a][1].\n\n[1]: {DATA}", "The town .", {"encoded file": 2, "image": 2}),
        (f"The town.\n![plan]({WRAPPED})\nA mill.", "The town.\nA mill.", {"encoded file": 1, "image": 1}),
        (f"Raw: {DATA} and on", "Raw: and on", {"encoded file": 1}),
        ("---\ntitle: The town\ntags:\n  - a\n---\nThe town.\n\n---\n\nA mill.", "The town.\n\nA mill.", {"front matter": 1}),
        ("---\n# a comment\n\n'title': x\n...\nThe town.", "The town.", {"front matter": 1}),
        ("+++\n[params]\na = 1\n+++\n\nThe town.", "The town.", {"front matter": 1}),
        ('{\n "title": {"a": "}"}\n}\n\nThe town.', "The town.", {"front matter": 1}),
        ("---\n---\nThe town.", "The town.", {"front matter": 1}),
        ("---\n\nThe town.\n\n---\n\nA mill.", "The town.\n\nA mill.", {}),  # rules, as no key is between them
        ("---\ntitle: never closed", "title: never closed", {}),
        ("[![CI](x/badge.svg)](x) [![PyPI](y.svg)](y)\n\nThe town.", "The town.", {"image": 2}),
        ("````md\n```py\n# no heading\n```\n# nor this\n````\nThe town.", "The town.", {"code block": 1}),
        ("```\n~~~\n# no heading\n```\nThe town.", "The town.", {"code block": 1}),
        ("~~~~ js\n" + "a" * 70_000 + "\n~~~\n~~~~\nThe town.", "The town.", {"code block": 1}),
        ("The town.\n\n    # indented", "The town.", {"code block": 1}),
        ("- one\n  ```\n  # x\n  ```\n- two", "- one\n- two", {"code block": 1}),
        ("| a | b |\n|---|---|\n| 1 | 2 |\n\nThe town.", "The town.", {"table": 1}),
        ("<table><tr><td>1</td></tr></table>\n\nThe town.", "The town.", {"table": 1}),
        ("- one\n- two\n---\n\nThe town.", "- one\n- two\n\nThe town.", {}),
        ("3. one\n   - *deep*\n4. two", "3. one\n  - deep\n4. two", {}),
        ("- one\n\n- two\n\n  more", "- one\n\n- two\n\nmore", {}),
        ("> # The\n> town", "The\n\ntown", {}),
        (
            "The [town](https://x/y?z) has **seven** `b_r` bri\\_dges[^1] &amp; <b>a</b> mill.\n\n[^1]: 2020",
            "The town has seven b_r bri_dges & a mill.\n\n2020",
            {},
        ),
        ("<div align='center'>\n<p>The town.</p><p>A mill.</p>\n</div>", "The town.\n\nA mill.", {}),
        ("<script>\nvar x\n</script>\nThe town.", "The town.", {"script": 1}),
        ("one  \ntwo<br>three", "one\ntwo\nthree", {}),
    ],
)
def test_of_markdown_the_text_is_read_and_the_rest_left_out_and_counted(
    tmp_path: Path, document: str, text: str, kinds: dict[str, int]
) -> None:
    for n, raw in enumerate((document, "\ufeff" + document.replace("\n", "\r\n"), document.replace("\n", "\r"))):
        found, left_out = read(written(tmp_path / str(n), {"a.md": raw}))
        assert found == [("a", text)]
        assert +left_out.kinds == kinds


def test_titles_are_plain_text_too(tmp_path: Path) -> None:
    written(tmp_path, {"a.md": "## **Facts** about [it](x) `b` {#facts .c}\n\nThe town.\n\nTwo\nlines\n===\nA mill."})
    assert read(tmp_path)[0] == [("Facts about it b", "The town."), ("Two lines", "A mill.")]


@pytest.mark.parametrize(
    "unit", ["[", "![", "<a ", "*a ", "`", "> ", "- ", "[a](", "data:a/b;base64,", "---\n", "a: b\n", "<!--", "[^1]:"]
)
def test_markdown_without_end_takes_no_time(tmp_path: Path, unit: str) -> None:
    began = time.process_time()
    read(written(tmp_path, {"a.md": "---\n" + unit * (10_000 // len(unit)), "b.txt": "The town."}))
    assert time.process_time() - began < 5


# As a source of tasks


def test_a_run_is_told_what_was_left_out_and_bad_files_are_skipped_by_a_setting(tmp_path: Path) -> None:
    folder = _folder_of(tmp_path, 8)
    written(folder, {"bad.txt": b"\xff", "z.md": "| a |\n|---|\n\nThe town.", "c.pdf": b"%PDF"})
    fields = {"source": str(folder), "evaluation": 1, "dev": 1}
    with pytest.raises(TaskFileError, match=r"bad\.txt, line 1: .* set tasks\.folder\.skip_bad_files = true"):
        open_source(make_settings({"tasks": fields}))
    source = open_source(make_settings({"tasks": fields | {"folder": {"skip_bad_files": True}}}))
    (note,) = getattr(source, "notes", ())
    assert note.startswith(
        f"{folder}: the passages leave out 1 table, 1 file of kinds that are not read (.pdf: 1), 1 file that can't"
    )
    assert "bad.txt, line 1: byte 1" in note


def _folder_of(tmp_path: Path, n_documents: int) -> Path:
    """Documents of two to five passages each."""
    some = {
        f"{n}.txt": "\n\n".join(f"Passage {i} of document {n}. " + "word " * 15 for i in range(2 + n % 4))
        for n in range(n_documents)
    }
    return written(tmp_path / "docs", {**some})


def test_no_document_is_in_two_splits_and_all_of_training_is_drawn(tmp_path: Path) -> None:
    folder = _folder_of(tmp_path, 12)
    fields = {"source": str(folder), "passage_chars": 120, "evaluation": 4, "dev": 3, "per_round": 5}
    sources = [open_source(make_settings({"tasks": fields | {"split": split}})) for split in ("dev", "test")]
    assert all(isinstance(source, Folder) for source in sources)
    groups = [sources[0].dev(), sources[0].evaluation(), sources[1].evaluation()]
    drawn = [task for round in range(1, 12) for task in sources[0].draw(round)]
    assert [len(group) for group in groups] == [3, 4, 4]
    split_of = [{task.id.split("#")[0] for task in group} for group in [*groups, drawn]]
    assert sum(map(len, split_of)) == len(set.union(*split_of)) == 12
    everything = {task.id: task for task in passages(folder, 120)}
    assert {task.id for task in drawn} == {i for i, t in everything.items() if i.split("#")[0] in split_of[3]}
    assert all(everything[task.id] == task for group in [*groups, drawn] for task in group)


def test_too_few_documents_are_refused_with_the_arithmetic(tmp_path: Path) -> None:
    fields = {"source": str(_folder_of(tmp_path, 3)), "passage_chars": 120, "evaluation": 1, "dev": 1}
    with pytest.raises(SettingsError, match=r"9 task\(s\) in 3 document\(s\), none of which is divided, but 1 for test"):
        open_source(make_settings({"tasks": fields}))


def test_a_document_that_changes_later_changes_nothing(tmp_path: Path) -> None:
    folder = _folder_of(tmp_path, 8)
    settings = make_settings({"tasks": {"source": str(folder), "evaluation": 1, "dev": 1}})
    source, untouched = open_source(settings), open_source(settings)
    for path in folder.iterdir():
        path.write_text("Another text.")
    assert source.draw(1) == untouched.draw(1)
