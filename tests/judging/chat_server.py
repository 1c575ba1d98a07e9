"""A local HTTP server that answers like a chat-completions service, with faults when told so."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, dict[str, str], bytes]


def completion(text: str, logprobs: dict[str, float] | None = None) -> Reply:
    """A whole answer in the real schema; `logprobs` of its first token."""
    tops = [{"token": token, "logprob": value, "bytes": None} for token, value in (logprobs or {}).items()]
    first = {"token": text, "logprob": -0.1, "bytes": None, "top_logprobs": tops}
    body = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "a-judge",
        "choices": [
            {
                "index": 0,
                "finish_reason": "stop",
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": {"content": [first], "refusal": None} if logprobs else None,
            }
        ],
        "usage": {"prompt_tokens": 10, "completion_tokens": 2, "total_tokens": 12},
    }
    return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()


def failure(status: int, **headers: str) -> Reply:
    """An error in the real schema."""
    body = {"error": {"message": f"failed with {status}", "type": "error", "code": None, "param": None}}
    return status, {"Content-Type": "application/json", **headers}, json.dumps(body).encode()


class ChatServer:
    """`replies` are given one after another, the last one again and again; a number among them is seconds of silence before
    the next. A function gets the request. `requests` are the bodies that came, `keys` their authorisations."""

    def __init__(self, replies: list[Reply | float | Callable[[dict[str, Any]], Reply]]) -> None:
        self.replies = list(replies)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._lock = threading.Lock()
        self.url = ""

    def next(self, request: dict[str, Any], key: str) -> tuple[float, Reply]:
        """What to wait and what to answer."""
        with self._lock:
            self.requests.append(request)
            self.keys.append(key)
            silence, reply = 0.0, self.replies[0]
            if len(self.replies) > 1:
                self.replies.pop(0)
            if isinstance(reply, (int, float)):
                silence, reply = float(reply), failure(500)
        return silence, reply(request) if callable(reply) else reply  # type: ignore[operator, return-value]


@contextmanager
def serve(*replies: Any) -> Iterator[ChatServer]:
    """A running server; `url` is its base URL."""
    state = ChatServer(list(replies))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:  # the name that http.server calls
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            silence, (status, headers, content) = state.next(body, self.headers["Authorization"])
            time.sleep(silence)
            try:
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)
            except OSError:
                pass  # the client has given up waiting

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
