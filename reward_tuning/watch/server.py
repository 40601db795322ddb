"""The live page's server: one page, one state that it asks for, clips, and orders to runs."""

from __future__ import annotations

import html
import re
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from reward_tuning.errors import TuningError
from reward_tuning.files.json_text import parsed_json
from reward_tuning.report.metric_texts import find_metric, metric_text
from reward_tuning.report.metric_titles import title_of
from reward_tuning.report.pages import Page, readable, render_page
from reward_tuning.watch.access import Access
from reward_tuning.watch.run_folders import run_folders, run_id
from reward_tuning.watch.samples import MEDIA
from reward_tuning.watch.watched_run import Have, WatchedRun

SCRIPTS = ("watch_charts.js", "watch_clips.js", "watch_runs.js", "watch.js")
SEARCH_SECONDS = 3.0
"""Seconds between two searches for new runs."""
MOST_ASKED = 20_000
"""Bytes of an order or of what the page says it has."""
MOST_NAMES = 200
GUARDS = "guards: "
"""Begins the page's names of numbers of guards.jsonl; the others are of metrics.jsonl."""
_MEASURED = re.compile(r"measures/([^/]+)/mean")
_POLICY = re.compile(r'http-equiv="Content-Security-Policy" content="([^"]*)"')


class WatchedRuns:
    """The runs of a folder, kept between two requests.

    Args:
        root: An absolute path: a run folder, or a folder of some.
        clock: Seconds that only grow; tests replace it.
    """

    def __init__(self, root: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self._clock = clock
        self._searched = float("-inf")
        self._runs: dict[str, WatchedRun] = {}
        self._lock = threading.Lock()

    def runs(self) -> dict[str, WatchedRun]:
        """Return the runs by their name in addresses, searched for now and then."""
        now = self._clock()
        if now - self._searched >= SEARCH_SECONDS:
            self._searched = now
            known, self._runs = self._runs, {}
            for folder in run_folders(self.root):
                identity = run_id(self.root, folder)
                inside = folder.relative_to(self.root)
                name = folder.name if inside == Path() else inside.as_posix()
                self._runs[identity] = known.get(identity) or WatchedRun(folder, identity, name)
        return self._runs

    def state(self, have: dict[str, tuple[Have, Have]]) -> dict[str, Any]:
        """Return what the page shows of every run, without the rows that it has."""
        nothing: tuple[Have, Have] = ((-1, 0), (-1, 0))
        with self._lock:  # two windows of the page may ask at the same time
            views = [run.view(*have.get(key, nothing)) for key, run in self.runs().items()]
        return {"time": time.time(), "runs": views}


def watch_app(root: Path, token: str) -> ASGIApp:
    """Return the application that serves the runs of a folder.

    Args:
        root: An absolute path: a run folder, or a folder of some.
        token: First part of every address.
    """
    watch = WatchedRuns(root)
    page = watch_page(root)
    found = _POLICY.search(page)
    assert found is not None
    policy = {"content-security-policy": f"{html.unescape(found[1])}; frame-ancestors 'none'"}

    async def show(request: Request) -> Response:
        del request
        return Response(page, media_type="text/html", headers=policy)

    async def state(request: Request) -> Response:
        try:
            have = read_have(request.query_params.get("have", "{}"))
        except ValueError:
            return PlainTextResponse("`have` is not what the page sends", 400)
        return JSONResponse(await run_in_threadpool(watch.state, have))

    async def clip(request: Request) -> Response:
        run, place = watch.runs().get(request.path_params["run"]), request.path_params
        path = None if run is None else run.samples.file(place["step"], place["file"])
        if path is None:
            return PlainTextResponse("There is no such clip", 404)
        return FileResponse(path, media_type=MEDIA[path.suffix])

    async def recipe(request: Request) -> Response:
        run = watch.runs().get(request.path_params["run"])
        if run is None:
            return PlainTextResponse("There is no such run", 404)
        try:
            return PlainTextResponse(readable(run.recipe()))
        except TuningError as error:
            return PlainTextResponse(readable(error), 404)

    async def order(request: Request) -> Response:
        run = watch.runs().get(request.path_params["run"])
        if run is None:
            return PlainTextResponse("There is no such run", 404)
        try:
            given = read_given(await request.body())
            run.order(request.path_params["order"], given=given)
        except TuningError as error:
            return PlainTextResponse(readable(error), 409)
        return JSONResponse({"given": given})

    async def texts(request: Request) -> Response:
        names = request.query_params.getlist("name")[:MOST_NAMES]
        return JSONResponse({name: _explained(name) for name in names})

    app = Starlette(
        routes=[
            Route("/", show),
            Route("/state", state),
            Route("/texts", texts),
            Route("/runs/{run}/recipe", recipe),
            Route("/runs/{run}/clips/{step}/{file}", clip),
            Route("/runs/{run}/orders/{order}", order, methods=["POST"]),
        ]
    )
    return Access(app, token)


def watch_page(root: Path) -> str:
    """Return the page as HTML; it asks this server alone, for everything that changes."""
    name = readable(root.name or str(root))
    return render_page(
        Page(
            template="watch.html",
            title=f"{name}: live",
            data={"folder": name},
            scripts=SCRIPTS,
            styles=("page.css", "watch.css"),
            values={"folder": name, "place": str(root)},
            policy={"connect-src": "'self'", "media-src": "'self'", "img-src": "'self' data:"},
        )
    )


def read_have(text: str) -> dict[str, tuple[Have, Have]]:
    """Read what rows the page has: `{run: [[generation, count], [generation, count]]}`.

    Raises:
        ValueError: It is something else.
    """
    if len(text) > MOST_ASKED:
        raise ValueError("too long")
    found = parsed_json(text)
    if not isinstance(found, dict):
        raise ValueError("not an object")
    have: dict[str, tuple[Have, Have]] = {}
    for name, pairs in found.items():
        numbers = [n for pair in pairs for n in pair] if isinstance(pairs, list) else []
        if len(numbers) != 4 or any(type(n) is not int for n in numbers):
            raise ValueError("not two pairs of numbers")
        have[name] = ((numbers[0], numbers[1]), (numbers[2], numbers[3]))
    return have


def read_given(body: bytes) -> bool:
    """Read an order: `{"given": true}` gives it, false takes it back.

    Raises:
        TuningError: It is something else.
    """
    try:
        given = parsed_json(body[:MOST_ASKED])["given"]
    except (ValueError, KeyError, TypeError) as error:
        raise TuningError('an order is {"given": true} or {"given": false}') from error
    if type(given) is not bool:
        raise TuningError('an order is {"given": true} or {"given": false}')
    return given


def _explained(name: str) -> dict[str, str]:
    """Return the text of a number by its name on the page: of the file that it comes from."""
    if name.startswith(GUARDS):
        key = name.removeprefix(GUARDS)
        measured = _MEASURED.fullmatch(key)
        text = metric_text(measured[1]) if measured else metric_text(key, "guards")
    else:
        text = metric_text(name, "run" if find_metric(name, "run") else None)
    title = title_of(name.removeprefix(GUARDS), guards=name.startswith(GUARDS))
    found = {"what": text.what, "unit": text.unit, "healthy": text.healthy, "remedy": text.remedy}
    return {"title": readable(title), **found}


def bound_socket(port: int) -> socket.socket:
    """Return a socket of this machine alone.

    Args:
        port: 0 for any free one.

    Raises:
        TuningError: The port is taken or not allowed.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
        bound.listen()  # a browser that comes before the server waits for it
    except OSError as error:
        bound.close()
        raise TuningError(
            f"port {port} cannot be used: {error.strerror or error}; choose another one with "
            "--port, or leave it out for a free one"
        ) from error
    return bound


def serve(app: ASGIApp, bound: socket.socket) -> None:
    """Serve until a signal ends the process."""
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # its lines hold the token
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    uvicorn.Server(config).run(sockets=[bound])
