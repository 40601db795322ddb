"""The server of the live page, without a browser."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import uvicorn
from starlette.testclient import TestClient

from reward_tuning.errors import TuningError
from reward_tuning.watch.server import WatchedRuns, bound_socket, read_given, read_have, watch_app
from tests.reward_tuning.watch.run_files import append, metrics_row, write_run

JSON = {"content-type": "application/json"}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_run(tmp_path / "runs/one")
    write_run(tmp_path / "runs/two")
    return tmp_path / "runs"


@pytest.fixture
def client(root: Path) -> TestClient:
    return TestClient(watch_app(root, "token"), base_url="http://127.0.0.1:8000/token/")


def identities(client: TestClient) -> dict[str, str]:
    return {run["name"]: run["id"] for run in client.get("state").json()["runs"]}


def test_the_page_is_under_its_policy_as_a_header_too(client: TestClient) -> None:
    found = client.get("")
    assert found.headers["content-type"] == "text/html; charset=utf-8"
    policy = found.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "connect-src 'self'" in policy
    assert policy.endswith("frame-ancestors 'none'")
    assert "unsafe-eval" not in policy
    scripts = next(part for part in policy.split("; ") if part.startswith("script-src "))
    assert "unsafe-inline" not in scripts
    assert "'self'" not in scripts


def test_the_state_holds_every_run_and_only_new_rows(client: TestClient, root: Path) -> None:
    state = client.get("state").json()
    assert [run["name"] for run in state["runs"]] == ["one", "two"]
    assert abs(state["time"] - time.time()) < 60
    have = {run["id"]: [[run["metrics"]["generation"], 2], [0, 0]] for run in state["runs"]}
    append(root / "two/metrics.jsonl", metrics_row(3))
    runs = client.get("state", params={"have": json.dumps(have)}).json()["runs"]
    assert [[row["step"] for row in run["metrics"]["rows"]] for run in runs] == [[], [3]]


def test_new_runs_are_found_now_and_then(root: Path) -> None:
    clock = [100.0]
    watch = WatchedRuns(root, lambda: clock[0])
    first = watch.runs()
    write_run(root / "three")
    assert watch.runs() == first
    clock[0] += 4
    assert len(watch.runs()) == 3
    assert all(watch.runs()[key] is run for key, run in first.items())  # with what they have read


def test_one_run_may_be_watched_by_itself(root: Path) -> None:
    (run,) = WatchedRuns(root / "one").runs().values()
    assert (run.name, run.root) == ("one", root / "one")


def test_clips_come_in_parts_with_their_type(client: TestClient) -> None:
    place = f"runs/{identities(client)['one']}/clips/step-000000/00.mp4"
    whole = client.get(place)
    assert (whole.status_code, whole.content) == (200, b"clip of the base")
    assert whole.headers["content-type"] == "video/mp4"
    part = client.get(place, headers={"range": "bytes=5-6"})  # as a player asks
    assert (part.status_code, part.content) == (206, b"of")


@pytest.mark.parametrize(
    "place",
    [
        "clips/step-000000/01.mp4",
        "clips/step-000000/..%2f..%2frecipe.yaml",
        "clips/..%2f/recipe.yaml",
        "clips/step-000000/%2e%2e/%2e%2e/recipe.yaml",
        "clips/step-000000/",
        "recipe.yaml",
        "status.json",
        "../../recipe.yaml",
    ],
)
def test_nothing_else_of_a_run_is_served(client: TestClient, place: str) -> None:
    found = client.get(f"runs/{identities(client)['one']}/{place}")
    assert found.status_code in (403, 404)
    assert "seed" not in found.text


def test_a_run_that_is_not_watched_has_no_files(client: TestClient) -> None:
    for place in ("clips/step-000000/00.mp4", "recipe"):
        assert client.get(f"runs/0123456789ab/{place}").status_code == 404
    assert client.post("runs/0123456789ab/orders/stop", json={"given": True}).status_code == 404


def test_the_recipe_is_plain_text(client: TestClient, root: Path) -> None:
    (root / "one/recipe.yaml").write_text("name: <script>\n")
    found = client.get(f"runs/{identities(client)['one']}/recipe")
    assert found.headers["content-type"] == "text/plain; charset=utf-8"
    assert found.headers["x-content-type-options"] == "nosniff"
    assert found.text == "name: <script>\n"


def test_an_order_is_a_file_of_its_run(client: TestClient, root: Path) -> None:
    place = f"runs/{identities(client)['two']}/orders/stop"
    assert client.post(place, json={"given": True}).json() == {"given": True}
    assert (root / "two/control/stop").exists()
    assert not (root / "one/control").exists()
    client.post(place, json={"given": False})
    assert not (root / "two/control/stop").exists()


@pytest.mark.parametrize("body", ["", "{}", '{"given": 1}', "[true]", '{"given"', "[" * 30_000])
def test_an_order_that_is_none_is_refused(client: TestClient, root: Path, body: str) -> None:
    found = client.post(f"runs/{identities(client)['two']}/orders/stop", content=body, headers=JSON)
    assert found.status_code == 409
    assert "an order is" in found.text
    assert not (root / "two/control").exists()
    with pytest.raises(TuningError):
        read_given(body.encode())


def test_orders_need_a_post(client: TestClient, root: Path) -> None:
    place = f"runs/{identities(client)['two']}/orders/stop"
    assert client.get(place).status_code == 405
    found = client.post(place, json={"given": True}, headers={"origin": "http://evil.example"})
    assert found.status_code == 403
    assert not (root / "two/control").exists()


@pytest.mark.parametrize(
    "text", ["[", "[]", '{"a": 3}', '{"a": [[0, 1]]}', '{"a": [[0, 1], [0, "x"]]}', "x" * 30_000]
)
def test_what_the_page_has_is_checked(client: TestClient, text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_have(text)
    assert client.get("state", params={"have": text}).status_code == 400


def test_numbers_are_explained(client: TestClient) -> None:
    found = client.get("texts", params={"name": ["grad_norm", "<odd>"]}).json()
    assert found["grad_norm"]["what"].startswith("Norm of the whole gradient")
    assert found["grad_norm"]["title"] == "Gradient norm"
    assert "<odd>" in found["<odd>"]["what"]


def test_a_number_is_explained_by_the_file_that_it_is_in(client: TestClient) -> None:
    names = ["motion", "guards: motion", "guards: measures/motion/mean", "held_out/loss"]
    found = client.get("texts", params={"name": names}).json()
    assert [found[name]["unit"] for name in names] == [
        "latent units",
        "ratio",
        "levels of [0, 1]",
        "squared velocity",
    ]


def test_a_port_in_use_is_refused() -> None:
    with bound_socket(0) as first:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(TuningError, match=f"port {port} cannot be used: .*--port"):
            bound_socket(port)


def test_it_answers_over_a_real_socket_and_to_this_machine_alone(root: Path) -> None:
    bound = bound_socket(0)
    server = uvicorn.Server(uvicorn.Config(watch_app(root, "token"), lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    address = f"http://127.0.0.1:{bound.getsockname()[1]}"
    deadline = time.monotonic() + 20
    while not server.started:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    try:
        with urllib.request.urlopen(f"{address}/token/state", timeout=10) as answer:
            assert len(json.load(answer)["runs"]) == 2
        with pytest.raises(urllib.error.HTTPError, match="403"):
            urllib.request.urlopen(f"{address}/wrong/state", timeout=10)
        with socket.create_connection(("127.0.0.1", bound.getsockname()[1])) as raw:
            raw.sendall(b"GET /token/runs/../../etc/passwd HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert raw.recv(99).startswith(b"HTTP/1.1 404")
    finally:
        server.should_exit = True
        thread.join(10)


def test_the_server_needs_no_torch() -> None:
    code = "import reward_tuning.watch.server, sys; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize(
    "line",
    [
        '{"step": 3, "loss": NaN, "x": {"y": Infinity}, "best": NaN}',
        '{"step": 3, "loss": 1' + "0" * 400 + "}",
        '{"step": 3, "a": ' + '{"a":' * 900 + "1" + "}" * 901,
        '{"step": 3, "a": ' + "[" * 100_000,
        '{"step": 3, "\\ud800": 1, "fired": [{"text": "\\ud800"}], "best": "\\ud800"}',
        '{"step": 3, "fired": 5}',
    ],
)
@pytest.mark.parametrize("name", ["metrics.jsonl", "guards.jsonl"])
def test_a_damaged_row_takes_no_page_down(
    client: TestClient, root: Path, name: str, line: str
) -> None:
    with (root / "one" / name).open("a") as file:
        file.write(f"{line}\n")
    state = client.get("state")
    assert state.status_code == 200
    assert [run["name"] for run in state.json()["runs"]] == ["one", "two"]


@pytest.mark.parametrize("value", ["NaN", "1" + "0" * 400, '"\\ud800"', "[" * 500 + "]" * 500])
def test_a_damaged_status_takes_no_page_down(client: TestClient, root: Path, value: str) -> None:
    status = f'{{"format": 1, "state": "running", "pid": {value}, "time": {value}, '
    status += f'"message": {value}, "step": {value}}}'
    (root / "one/status.json").write_text(status)
    prompts = '[{"file": "00.mp4", "prompt": "\\ud800"}]'
    (root / "one/samples/prompts.json").write_text(prompts)
    assert client.get("state").status_code == 200
