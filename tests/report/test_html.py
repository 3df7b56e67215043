from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from sample_summary import HOSTILE, full, full_summary, minimal

from selfedit.config import make_settings
from selfedit.errors import DiskError
from selfedit.report.html import report_html, reproduce_command, write_report
from selfedit.summary import Summary, new_summary

VOID = {"meta", "br", "hr", "img"}


class Outline(HTMLParser):
    """Collects tags and checks that they nest."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(full())


def outline(page: str) -> Outline:
    parser = Outline()
    parser.feed(page)
    assert parser.open == []
    return parser


def test_a_full_report_holds_every_section(page: str) -> None:
    for title in (
        "The ladder",
        "What changed in what the model writes",
        "One passage, from the self-edit to the answers",
    ):
        assert title in page
    for title in ("Rounds and guards", "Paired differences", "Check the run, or run it again"):
        assert title in page
    assert "selfedit demo --seed 3 --rounds 3" in page
    assert "✓ unchanged" in page
    assert "about 62 % is signal and the rest is seed noise; 3 seeds per edit would make it 80 %" in page
    assert len(page.encode()) < 1_000_000


def test_a_report_is_well_formed_and_loads_nothing(page: str) -> None:
    parsed = outline(page)
    assert parsed.tags.count("svg") == 8  # four charts, each wide and narrow
    assert not {"script", "link", "iframe", "img", "object", "embed", "base"} & set(parsed.tags)
    assert not {name for name, _ in parsed.attributes} & {"src", "href", "xlink:href", "srcset", "action"}
    assert not any(name.startswith("on") for name, _ in parsed.attributes)
    assert not re.search(r"https?://|@import|url\(", page)
    assert "default-src 'none'" in page


def hostile_everywhere(value: Any) -> Any:
    """The summary with every text (and every name that is data) made hostile."""
    if isinstance(value, str):
        return value + HOSTILE + "\"'><img src=x onerror=alert(1)>"
    if isinstance(value, list):
        return [hostile_everywhere(item) for item in value]
    if isinstance(value, dict):
        shares = {key + HOSTILE: item for key, item in value.items()} if value.keys() & {"vague", "max_kl"} else value
        return {key: hostile_everywhere(item) for key, item in shares.items()}
    return value


def test_no_text_of_a_summary_becomes_markup() -> None:
    summary = hostile_everywhere(full_summary())
    for row in summary["ladder"][:3] + summary["by_kind"]:
        row["rung"] = row["rung"].partition("<")[0]  # so that every chart is drawn
    page = report_html(new_summary(summary))
    parsed = outline(page)
    assert "script" not in parsed.tags
    assert "img" not in parsed.tags
    assert not any(name == "onerror" for name, _ in parsed.attributes)
    assert "<script" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("summary", [minimal(), minimal(ladder=[]), minimal(settings={"tasks": None, "seed": "x"})])
def test_a_report_of_little_is_a_page_too(summary: Summary, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_report(summary, path)
    page = path.read_text(encoding="utf-8")
    outline(page)
    assert "The ladder" in page
    assert list(path.parent.iterdir()) == [path]


def test_probes_turning_right_stand_side_by_side(page: str) -> None:
    assert "self-edits, RL round 2: 3 of 4" in page
    assert re.search(r'class="bad"[^>]*>✗ Torven [^\n]*\n<td[^\n]*class="good"[^>]*>✓ Mara Velkin', page)


def test_the_weights_of_another_learner_are_checked_too() -> None:
    page = report_html(minimal(learner_sha256_before="aa", learner_sha256_after="aa"))
    assert "Learner's weights" in page
    assert "Learner's weights" not in report_html(minimal())


def test_changed_base_weights_are_shouted() -> None:
    page = report_html(minimal(base_sha256_before="aa", base_sha256_after="bb"))
    assert "✗ CHANGED" in page


def test_the_command_to_reproduce_is_demo_only_for_the_demo() -> None:
    other = make_settings({"seed": 3, "inner": {"steps": 8}}).fields()
    assert reproduce_command(minimal(settings=other)) == "selfedit run config.toml --out runs/again"
    assert reproduce_command(full()) == "selfedit demo --seed 3 --rounds 3"
    for unreadable in ({"seed": "x", "rounds": 2}, {}):
        assert reproduce_command(minimal(settings=unreadable)).startswith("selfedit run")


def test_a_report_that_cannot_be_written_says_that_the_run_is_kept(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DiskError, match="what was committed is kept"):
        write_report(minimal(), tmp_path / "file" / "report.html")
