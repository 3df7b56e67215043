"""A local endpoint of the OpenAI kind that judges as a question's first word tells it to, and misbehaves where asked."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ACCOUNT_HEADERS = ("openai-organization", "openai-project")


def completion(content: object, finish: str | None = "stop", **more: object) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": content, **more}}
    made = {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
    return json.dumps(made).encode()


class JudgeServer(ThreadingHTTPServer):
    """``asked`` counts requests by question; ``bodies``, ``keys`` and ``accounts`` (OpenAI's headers that name one)
    hold what was sent. ``always``: how it treats them all. ``replies``: bodies that it sends in turn with 200 OK, the last one
    from then on.
    """

    daemon_threads = True
    request_queue_size = 64  # connections that wait to be taken

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: set[str | None] = set()
        self.accounts: set[str] = set()
        self.always = ""
        self.replies: list[bytes] = []
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that gave up waiting is no news."""


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        sent = json.loads(body["messages"][1]["content"])
        question = sent["question"]
        with self.server.lock:
            self.server.asked[question] += 1
            self.server.bodies.append(body)
            self.server.keys.add(self.headers["Authorization"])
            self.server.accounts |= {h for h in self.headers if h.casefold() in ACCOUNT_HEADERS}
            before = self.server.asked[question]
            self.server.under_way += 1
            self.server.most_under_way = max(self.server.under_way, self.server.most_under_way)
        try:
            first = question.split()[0] if question.split() else ""
            self._misbehave(self.server.always or first, before)
        finally:
            with self.server.lock:
                self.server.under_way -= 1

    def _misbehave(self, how: str, times: int) -> None:
        if replies := self.server.replies:
            return self._send(200, replies.pop(0) if len(replies) > 1 else replies[0])
        if how == "slow":
            time.sleep(1.5)
        if how in ("429", "500", "401", "400", "403", "404"):
            return self._send(int(how), b'{"error": {"message": "no"}}')
        if how == "429-once" and times == 1:
            return self._send(429, b"{}")
        if how == "prose-once" and times == 1:
            return self._send(200, completion("Let me think about it."))
        said = {"prose": "Yes, although one could also say no.", "no": "No.", "null": None, "list": ["yes"]}
        reply = completion(said.get(how, "yes"))
        if how == "trickle":
            return self._trickle(reply)
        if how == "half":
            return self._send(200, reply[: len(reply) // 2])
        if how == "cut":  # the connection is lost in the middle
            return self._send(200, reply[: len(reply) // 2], length=len(reply))
        if how == "choiceless":
            return self._send(200, b'{"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": []}')
        if how == "html":
            return self._send(200, b"<html>busy: yes</html>", kind="text/html")
        if how == "number":
            return self._send(200, b"1")
        self._send(200, reply)

    def _trickle(self, reply: bytes) -> None:
        """A byte at a time, each well within the time limit of a read."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        for i in range(len(reply)):
            self.wfile.write(reply[i : i + 1])
            time.sleep(0.1)

    def _send(self, status: int, body: bytes, length: int | None = None, kind: str = "application/json") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)
        if length is not None:
            self.close_connection = True
