"""A server of the live page."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from reward_tuning.watch.server import bound_socket, watch_app

Serve = Callable[[Path], str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve a folder; the result is the address of its page."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def start(root: Path) -> str:
        bound = bound_socket(0)
        config = uvicorn.Config(watch_app(root, "token"), lifespan="off", log_level="warning")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        running.append((server, thread))
        deadline = time.monotonic() + 20
        while not server.started:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return f"http://127.0.0.1:{bound.getsockname()[1]}/token/"

    yield start
    for server, _ in running:
        server.should_exit = True
    for _, thread in running:
        thread.join(10)
