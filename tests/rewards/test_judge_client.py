"""A judge is reached, or it is said why not; what can't work costs no request and no budget."""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from judge_server import JudgeServer, completion

from selfedit.config import make_settings
from selfedit.errors import GraderError, SettingsError
from selfedit.rewards.metrics.base import Case, Verdict
from selfedit.rewards.metrics.judge import Judge

CASES = [Case(f"yes {i}", ("Lyon",), "Paris") for i in range(3)]
LIMIT = json.dumps({"error": {"message": "Rate limit exceeded: free-models-per-day", "code": 429}}).encode()
GradeWith = Callable[..., list[Verdict]]


@pytest.fixture
def grade(server: JudgeServer, tmp_path: Path) -> GradeWith:
    def with_fields(n: int = 1, **fields: Any) -> list[Verdict]:
        how = {"model": "m", "url": server.url, "retries": 0, "at_once": 1, "cache": str(tmp_path / "judge.db")} | fields
        return Judge(make_settings({"reward": {"metric": "judge", "judge": how}}).reward, "run").grade(CASES[:n])

    return with_fields


@pytest.fixture
def spent(tmp_path: Path) -> Callable[[], int]:
    def count() -> int:
        file = tmp_path / "judge.db"
        if not file.exists():
            return 0
        with sqlite3.connect(file) as db:
            return int(db.execute("select coalesce(sum(spent), 0) from purses").fetchone()[0])

    return count


@pytest.mark.parametrize(
    "key", ["sk-x\n", "sk-x\r\n", "\nsk-x", "sk-é", "“sk-x”", "sk-x ", "Bearer sk-x", "sk-x\u200b", '"sk-x"', " "]
)
def test_a_key_that_cannot_be_one_is_refused_before_anything_is_sent(
    key: str, server: JudgeServer, grade: GradeWith, spent: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_KEY", key)
    with pytest.raises(SettingsError, match="the key in the environment variable MY_KEY") as caught:
        grade(key_variable="MY_KEY")
    assert "sk-" not in str(caught.value)
    assert (server.asked.total(), spent()) == (0, 0)


def test_a_key_that_is_not_set_is_told_where_it_is_refused(server: JudgeServer, grade: GradeWith) -> None:
    server.always = "401"
    with pytest.raises(GraderError, match=r"the key in NO_SUCH_KEY \(which is not set\)"):
        grade(key_variable="NO_SUCH_KEY")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:1", "socks://127.0.0.1:1", "socks5h://127.0.0.1:1", "http://[::1"])
def test_a_judge_on_this_machine_is_asked_directly(
    proxy: str, server: JudgeServer, grade: GradeWith, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy)
    assert grade() == [Verdict(True)]
    assert grade(2, url=server.url.replace("127.0.0.1", "localhost")) == [Verdict(True)] * 2


@pytest.mark.parametrize(
    ("proxy", "told"),
    [
        ("socks://u:secret@127.0.0.1:1", "begins with http"),
        ("socks4://127.0.0.1:1", "begins with http"),
        ("socks5://127.0.0.1:1", "needs the package socksio"),
        ("socks5h://u:secret@127.0.0.1:1", "needs the package socksio"),
        ("http://[::1", "the environment"),
        ("http://u:secret@host:port", "the environment"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named(
    proxy: str, told: str, grade: GradeWith, spent: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("ALL_PROXY", proxy)
    with pytest.raises(SettingsError, match=told) as caught:
        grade(url="http://judge.example/v1")
    assert "ALL_PROXY" in str(caught.value)
    assert "secret" not in str(caught.value)
    assert spent() == 0


@pytest.mark.parametrize("url", ["localhost:11434/v1", "ftp://judge.example", "http://", "judge"])
def test_an_address_that_is_none_is_a_settings_error(url: str, grade: GradeWith) -> None:
    with pytest.raises(SettingsError, match=r"reward\.judge\.url"):
        grade(url=url)


def test_nested_fields_reach_the_judge_as_they_are(server: JudgeServer, grade: GradeWith) -> None:
    more = {"stop": ["\n"], "reasoning": {"effort": "low"}, "chat_template_kwargs": {"enable_thinking": False}}
    grade(body=more | {"max_tokens": 99})
    assert server.bodies[0].items() >= {**more, "max_tokens": 99, "temperature": 0}.items()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"a": {"b": None}}, "null"),
        ({"a": [float("nan")]}, "finite"),
        ({"messages": []}, "messages"),
        ({"stream": True}, "stream"),
    ],
)
def test_fields_that_cannot_be_sent_are_refused(body: dict[str, Any], told: str, grade: GradeWith) -> None:
    with pytest.raises(SettingsError, match=told):
        grade(body=body)


def test_the_same_reply_is_not_paid_for_three_times(server: JudgeServer, grade: GradeWith, spent: Callable[[], int]) -> None:
    server.always = "prose"
    assert grade()[0].right is None
    assert (server.asked.total(), spent()) == (1, 1)
    grade(body={"temperature": ""})
    assert (server.asked.total(), spent()) == (4, 4)


def test_a_judge_that_is_always_cut_while_thinking_stops_the_run_after_one_question(
    server: JudgeServer, grade: GradeWith, spent: Callable[[], int]
) -> None:
    server.replies = [completion(None, "length", reasoning_content="The reference says")]
    with pytest.raises(GraderError, match=r"cut while thinking.*raise max_tokens in reward\.judge\.body"):
        grade(3)
    assert spent() == 1


def test_one_question_that_is_cut_stops_nothing(server: JudgeServer, grade: GradeWith) -> None:
    server.replies = [completion("", "length"), completion("<think>fine</think>yes")]
    first, second, third = grade(3)
    assert first.right is None
    assert "cut while thinking" in first.problem
    assert second == third == Verdict(True)


def test_a_limit_told_inside_a_good_reply_is_waited_for(server: JudgeServer, grade: GradeWith, spent: Callable[[], int]) -> None:
    server.replies = [LIMIT, completion("yes")]
    assert grade(2, retries=1) == [Verdict(True)] * 2
    assert (server.asked.total(), spent()) == (3, 2)  # another attempt is no other question


def test_a_limit_that_stays_stops_the_run_with_its_message(
    server: JudgeServer, grade: GradeWith, spent: Callable[[], int]
) -> None:
    server.replies = [LIMIT]
    with pytest.raises(GraderError, match=r"can't be asked .*Rate limit exceeded: free-models-per-day \(429\)"):
        grade(3)
    assert spent() == 1


def test_a_user_without_a_home_is_told_to_name_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", no_home)
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")  # by its specification such a path does not count
    reward = make_settings({"reward": {"metric": "judge", "judge": {"model": "m", "url": "http://localhost:9"}}}).reward
    with pytest.raises(SettingsError, match=r"reward\.judge\.cache: you have no home directory"):
        Judge(reward)
