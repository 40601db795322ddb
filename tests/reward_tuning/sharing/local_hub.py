"""A local stand-in of the hub's HTTP interface: repositories, large files, commits."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_token_of_a_test"
LARGE = (".safetensors", ".mp4")


@dataclass
class LocalHub:
    """What the stand-in has been told.

    Attributes:
        address: `http://127.0.0.1:PORT`.
        repos: Repository to its files; the commit makes them visible, not the upload.
        private: Visibility of each repository.
        objects: Large files by sha256, as uploaded.
        cards: Model cards that were sent to be checked.
        fail_commit: Status of the next commit; 0 accepts it.
        requests: Method and path of each request.
    """

    address: str = ""
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: dict[str, bool] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    cards: list[str] = field(default_factory=list)
    fail_commit: int = 0
    requests: list[tuple[str, str]] = field(default_factory=list)


@contextmanager
def local_hub() -> Iterator[LocalHub]:
    """Serve an empty hub on the loopback until the context ends."""
    hub = LocalHub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: Any) -> None:
            """Stay silent."""

        def body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") == "chunked":
                found = b""
                while size := int(self.rfile.readline(), 16):
                    found += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return found
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        def answer(self, status: int, content: Any) -> None:
            text = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            if status >= 400:
                self.send_header("X-Error-Message", str(content.get("error", "")))
                if status == 404:
                    self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            self.wfile.write(text)

        def allowed(self) -> bool:
            hub.requests.append((self.command, self.path))
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                return True
            self.body()
            self.answer(401, {"error": "Invalid credentials"})
            return False

        def do_GET(self) -> None:
            if not self.allowed():
                return
            repo = "/".join(self.path.split("?")[0].split("/")[3:5])
            if repo not in hub.repos:
                self.answer(404, {"error": "Repository not found"})
            elif "/tree/" in self.path:
                files = hub.repos[repo].items()
                rows = [
                    {"type": "file", "path": name, "size": len(content), "oid": "0"}
                    for name, content in files
                ]
                self.answer(200, rows)
            else:
                siblings = [{"rfilename": name} for name in hub.repos[repo]]
                self.answer(200, {"id": repo, "siblings": siblings, "private": hub.private[repo]})

        def do_PUT(self) -> None:
            hub.requests.append((self.command, self.path))
            hub.objects[self.path.rpartition("/")[2]] = self.body()
            self.answer(200, {})

        def do_POST(self) -> None:
            if not self.allowed():
                return
            if self.path == "/api/repos/create":
                self.create(json.loads(self.body()))
            elif self.path == "/api/validate-yaml":
                hub.cards.append(json.loads(self.body())["content"])
                self.answer(200, {"errors": [], "warnings": []})
            elif "/preupload/" in self.path:
                files = json.loads(self.body())["files"]
                modes = [
                    {
                        "path": one["path"],
                        "uploadMode": "lfs" if one["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                    }
                    for one in files
                ]
                self.answer(200, {"files": modes})
            elif self.path.endswith("/info/lfs/objects/batch"):
                wanted = json.loads(self.body())["objects"]
                found = [
                    one | {"actions": {"upload": {"href": f"{hub.address}/objects/{one['oid']}"}}}
                    for one in wanted
                ]
                self.answer(200, {"transfer": "basic", "objects": found})
            elif "/commit/" in self.path:
                self.commit(self.body().decode())
            else:
                self.answer(404, {"error": f"no {self.path} here"})

        def create(self, asked: dict[str, Any]) -> None:
            owner = asked.get("organization") or "me"
            repo = f"{owner}/{asked['name']}"
            if repo in hub.repos:
                self.answer(409, {"error": "exists", "url": f"{hub.address}/{repo}"})
                return
            hub.repos[repo] = {}
            hub.private[repo] = asked.get("private") or asked.get("visibility") == "private"
            self.answer(200, {"url": f"{hub.address}/{repo}", "name": repo})

        def commit(self, text: str) -> None:
            if hub.fail_commit:
                self.answer(hub.fail_commit, {"error": "no commit today"})
                return
            repo = "/".join(self.path.split("/")[3:5])
            for row in map(json.loads, text.splitlines()):
                value = row["value"]
                if row["key"] == "file":
                    hub.repos[repo][value["path"]] = base64.b64decode(value["content"])
                elif row["key"] == "lfsFile":
                    hub.repos[repo][value["path"]] = hub.objects[value["oid"]]
            url = f"{hub.address}/{repo}/commit/0123456789012345678901234567890123456789"
            done = {"success": True, "commitOid": url.rpartition("/")[2], "commitUrl": url}
            self.answer(200, done | {"hookOutput": ""})

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
