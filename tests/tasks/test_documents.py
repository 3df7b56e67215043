"""Folders of documents: nothing lost, nothing cut inside a word, no document in two splits; every complaint says where."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from selfedit.config import make_settings
from selfedit.errors import SettingsError, TaskFileError
from selfedit.tasks.documents import find_documents, read_documents
from selfedit.tasks.sources.base import open_source
from selfedit.tasks.sources.folder import Folder
from selfedit.types import Task


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
        ("Two", "```\n# a comment, no heading\n```\n#hashtag\n\n| a | b |\n|---|---|"),
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
        ({"a.txt": ""}, "a.txt:", "empty"),
        ({"b/a.md": "# Title\n\n## Another\n \n***\n"}, "b/a.md:", "empty"),
        ({"a.txt": b"fine\nna\xefve\n"}, "a.txt, line 2:", "byte 3 of the line (byte 8 of the file) is not UTF-8"),
        ({"a.txt": b"\xef\xbb\xbfcaf\xe9"}, "a.txt, line 1:", "byte 7 of the line (byte 7 of the file)"),
        ({"a.txt": b"ends in a letter \xc3"}, "a.txt, line 1:", "byte 18 of the line"),
        ({"a.txt": "text".encode("utf-16")}, "a.txt, line 1:", "UTF-16"),
        ({"a.md": "text".encode("utf-16-le")}, "a.md, line 1:", "byte 2 of the file is zero"),
        ({"a.txt": b"\x7fELF\x01\0"}, "a.txt, line 1:", "binary"),
        ({"a.txt": "one\n" + "A" * 200_000}, "a.txt, line 2:", "without a space"),
        ({"a.txt": "one\n\nAlike  it\nis.", "b/c.md": "# T\nAlike it is."}, "b/c.md, line 2:", "a.txt, line 3"),
        ({"a.md": "# A\nsame\n# B\nsame"}, "a.md, line 4:", "a.md, line 2"),
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


# As a source of tasks


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
