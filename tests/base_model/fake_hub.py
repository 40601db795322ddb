"""A hub on the loopback: what its library asks for when it downloads a snapshot."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LARGE = 5000  # bytes from which on a file is in large-file storage


class FakeHub:
    """One repository, `org/name`, of a folder's files.

    Attributes:
        commits: Revision to commit.
        asked: Path and first byte of every file that was fetched.
        cut: Name of a file whose next transfers break off in the middle, and how many still.
        wrong: Names of files that are sent with one bit flipped.
        silent: Where it accepts the question and never answers: at the ``revision``, the ``tree``,
            the ``head`` of a file, or half-way through its ``body``.
        pause: Seconds between two twelfths of a file.
    """

    def __init__(self, folder: Path) -> None:
        self.files = {
            path.relative_to(folder).as_posix(): path.read_bytes()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }
        self.commits = {"main": "a" * 40, "v1": "b" * 40}
        self.asked: list[tuple[str, int]] = []
        self.cut: dict[str, int] = {}
        self.wrong: set[str] = set()
        self.silent = ""
        self.pause = 0.0
        self.closing = threading.Event()
        self.address = ""

    def hash(self, name: str) -> str:
        content = self.files[name]
        if len(content) >= LARGE:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    def tree(self) -> list[dict[str, Any]]:
        found = []
        for name, content in self.files.items():
            one: dict[str, Any] = {"type": "file", "path": name, "size": len(content)}
            one["oid"] = self.hash(name)[:40]
            if len(content) >= LARGE:
                one["lfs"] = {"oid": self.hash(name), "size": len(content), "pointerSize": 134}
            found.append(one)
        return found


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(head=True)

        def do_GET(self) -> None:
            self.answer(head=False)

        def answer(self, *, head: bool) -> None:
            path = self.path.partition("?")[0]
            api = "/api/models/org/name"
            if hub.silent in ("revision", "tree") and path.startswith(f"{api}/{hub.silent}/"):
                self.say_nothing()
            elif path.startswith(f"{api}/revision/"):
                commit = hub.commits.get(path.removeprefix(f"{api}/revision/"))
                if commit is None:
                    self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
                else:
                    self.reply(200, json.dumps({"id": "org/name", "sha": commit}).encode())
            elif path.startswith(f"{api}/tree/"):
                self.reply(200, json.dumps(hub.tree()).encode())
            elif path.startswith("/org/name/resolve/"):
                commit, _, name = path.removeprefix("/org/name/resolve/").partition("/")
                self.file(commit, name, head=head)
            else:
                self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})

        def file(self, commit: str, name: str, *, head: bool) -> None:
            content = hub.files[name]
            if name in hub.wrong:
                content = content[:-1] + bytes([content[-1] ^ 1])
            headers = {"ETag": f'"{hub.hash(name)}"', "X-Repo-Commit": commit}
            if head:
                if hub.silent == "head":
                    self.say_nothing()
                else:
                    self.reply(200, content, headers, head=True)
                return
            first = int((self.headers["Range"] or "bytes=0-")[6:].partition("-")[0])
            hub.asked.append((name, first))
            if first:
                headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
            rest = content[first:]
            if hub.silent == "body":
                self.reply(206 if first else 200, rest, headers, most=len(rest) // 2)
                self.wfile.flush()
                self.say_nothing()
                return
            if hub.cut.get(name, 0):
                hub.cut[name] -= 1
                self.reply(206 if first else 200, rest, headers, most=len(rest) // 2)
                self.close_connection = True
                return
            self.reply(206 if first else 200, rest, headers)

        def say_nothing(self) -> None:
            hub.closing.wait(60)
            self.close_connection = True

        def reply(
            self,
            status: int,
            body: bytes,
            headers: dict[str, str] | None = None,
            *,
            head: bool = False,
            most: int | None = None,
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
                self.send_header(key, value)
            self.end_headers()
            if not head:
                body = body[:most]
                size = max(len(body) // 12, LARGE) if hub.pause else max(len(body), 1)
                for start in range(0, len(body), size):
                    self.wfile.write(body[start : start + size])
                    self.wfile.flush()
                    if start:
                        hub.closing.wait(hub.pause)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()
