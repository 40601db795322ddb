"""A real web server for tests of judges: what it replies is a function, what it gets is kept."""

from __future__ import annotations

import email.parser
import email.policy
import json
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from rewards.core.asking import Patience


@dataclass
class Request:
    """A request as the server has read it."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def fields(self) -> list[tuple[str, bytes]]:
        """Fields of a form, read by the standard library's parser of mail."""
        head = f"Content-Type: {self.headers['content-type']}\r\n\r\n".encode()
        parser = email.parser.BytesParser(policy=email.policy.HTTP)
        form = parser.parsebytes(head + self.body)
        return [
            (str(part.get_param("name", header="content-disposition")), content(part))
            for part in form.iter_parts()
        ]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def content(part: Any) -> bytes:
    found = part.get_payload(decode=True)
    assert isinstance(found, bytes)
    return found


@dataclass
class Reply:
    """What the server sends; an endless one repeats its body until nobody reads."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    endless: bool = False


def replied(value: Any, status: int = 200, **headers: str) -> Reply:
    return Reply(json.dumps(value).encode(), status, headers)


@dataclass
class Server:
    """A running server."""

    url: str
    requests: list[Request]


@contextmanager
def serving(answer: Callable[[Request], Reply]) -> Iterator[Server]:
    """Serve on a free port of this machine."""
    requests: list[Request] = []
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            request = Request(self.path, headers, body)
            with lock:
                requests.append(request)
            reply = answer(request)
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name.replace("_", "-"), value)
            if not reply.endless:
                self.send_header("Content-Length", str(len(reply.body)))
            self.end_headers()
            self.wfile.write(reply.body)
            while reply.endless:
                try:
                    self.wfile.write(reply.body)
                except OSError:
                    break

        def log_message(self, *_: Any) -> None:
            pass

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: Any) -> None:
            pass  # a client that has given up

    with Quiet(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield Server(f"http://127.0.0.1:{server.server_port}/score", requests)
        finally:
            server.shutdown()


def brightness(mp4: bytes, folder: Path) -> float:
    """Mean level of an mp4 file in [0, 1], read by another library than the one that wrote it."""
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".mp4", delete=False) as made:
        made.write(mp4)  # each its own: equal clips may come at the same time
    file = Path(made.name)
    return float(np.asarray(iio.imread(file, plugin="FFMPEG")).mean() / 255)


def grey_clips(*levels: float, frames: int = 3, side: int = 16) -> Tensor:
    """Clips of one grey level each, `(b, f, 3, side, side)`."""
    return torch.tensor(levels).view(-1, 1, 1, 1, 1).expand(-1, frames, 3, side, side).clone()


@dataclass
class Waits:
    """Waits that take no time."""

    seconds: list[float] = field(default_factory=list)

    def patience(self, retries: int = 3) -> Patience:
        return Patience(retries, pause=lambda stop, wait: self.seconds.append(wait))
