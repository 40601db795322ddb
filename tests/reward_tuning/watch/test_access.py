"""Who is let through."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from reward_tuning.watch.access import CLOSED_POLICY, Access, new_token

TOKEN = "secret-token"


async def answer(request: Request) -> Response:
    return PlainTextResponse(f"{request.method} {request.url.path}")


@pytest.fixture
def client() -> TestClient:
    routes = [Route("/", answer), Route("/a/{rest:path}", answer, methods=["GET", "POST"])]
    app = Access(Starlette(routes=routes), TOKEN)
    return TestClient(app, base_url="http://127.0.0.1:8000", follow_redirects=False)


@pytest.mark.parametrize("path", ["/", "/a/b"])
def test_the_token_opens_every_address(client: TestClient, path: str) -> None:
    found = client.get(f"/{TOKEN}{path}")
    assert (found.status_code, found.text) == (200, f"GET {path}")


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/a/b",
        "/favicon.ico",
        "/secret-toke/",
        "/secret-tokenn/",
        "/Secret-token/",
        "//secret-token/",
        "/a/../x/",
        "/%00/",
        "/ключ/",
        f"/?token={TOKEN}",
    ],
)
def test_every_address_without_it_is_refused(client: TestClient, path: str) -> None:
    for method in ("GET", "POST", "HEAD", "PUT"):
        found = client.request(method, path)
        assert found.status_code == 403
        assert TOKEN not in found.text
        assert "set-cookie" not in found.headers


def test_an_address_without_its_last_slash_is_sent_on(client: TestClient) -> None:
    found = client.get(f"/{TOKEN}")
    assert (found.status_code, found.headers["location"]) == (308, f"/{TOKEN}/")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:9999", 200),
        ("localhost", 200),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("127.0.0.1:8000.evil.example", 403),
        ("evil.example:127.0.0.1", 403),
        ("", 403),
    ],
)
def test_a_foreign_name_that_leads_here_is_refused(
    client: TestClient, host: str, status: int
) -> None:
    assert client.get(f"/{TOKEN}/", headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"origin": "http://127.0.0.1:8000"}, 200),
        ({"origin": "http://127.0.0.1:9000"}, 403),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"content-type": "text/plain"}, 403),  # what a form can send without asking
        ({"content-type": "application/x-www-form-urlencoded"}, 403),
        ({"content-type": "application/json; charset=utf-8"}, 200),
    ],
)
def test_orders_come_from_the_page_itself(
    client: TestClient, headers: dict[str, str], status: int
) -> None:
    sent = {"content-type": "application/json", **headers}
    assert client.post(f"/{TOKEN}/a/b", headers=sent, content="{}").status_code == status


def test_every_answer_is_closed_to_other_pages(client: TestClient) -> None:
    for path in (f"/{TOKEN}/", "/", f"/{TOKEN}/missing", f"/{TOKEN}"):
        headers = client.get(path).headers
        assert headers["content-security-policy"] == CLOSED_POLICY
        assert "frame-ancestors 'none'" in CLOSED_POLICY
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in headers


def test_tokens_cannot_be_guessed() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(len(token) == 32 for token in tokens)  # 24 bytes in base64
