"""Requests to a real server on this machine: replies of every kind, and what is never sent."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from rewards import RewardError
from rewards.core.asking import FailedTry
from rewards.core.endpoint import (
    LONGEST_REPLY,
    Endpoint,
    checked_url,
    form_data,
    is_local,
    seconds_in,
    value_in,
)
from tests.rewards.judge_server import Reply, replied, serving

KEY = "sk-a-long-secret-42"


def endpoint(url: str, timeout: float = 20.0, **options: object) -> Endpoint:
    return Endpoint(url, timeout=timeout, max_mb=1.0, **options)  # type: ignore[arg-type]


def failure(reply: Reply, **options: object) -> FailedTry:
    with serving(lambda request: reply) as server, pytest.raises(FailedTry) as caught:
        endpoint(server.url, **options).post(b"{}", "application/json")  # type: ignore[arg-type]
    return caught.value


def test_a_form_arrives_as_another_parser_reads_it() -> None:
    fields = [("clip", b"\r\n--x\r\n\0\xff"), ("prompt", "a café\r\n--x"), ("clip", b"")]
    with serving(lambda request: replied({"score": 0.5})) as server:
        reply = endpoint(server.url).post(*form_data(fields))
    assert reply == {"score": 0.5}
    (request,) = server.requests
    assert [name for name, _ in request.fields] == ["clip", "prompt", "clip"]
    assert request.fields[0][1] == b"\r\n--x\r\n\0\xff"
    assert request.fields[1][1].decode() == "a café\r\n--x"
    assert b'filename="clip.mp4"\r\nContent-Type: video/mp4' in request.body
    assert "authorization" not in request.headers


@pytest.mark.parametrize(
    ("reply", "what", "again"),
    [
        (Reply(b"<html>x</html>"), "a reply that is not JSON: <html>x</html>", True),
        (Reply(b""), "not JSON: empty", True),
        (Reply(b"[" * 100_000), "a reply that is not JSON: ", True),
        (Reply(b"<b>down</b>", 500), "HTTP 500 Internal Server Error: <b>down</b>", True),
        (Reply(b"", 503), "HTTP 503 Service Unavailable without a text", True),
        (Reply(b"who?", 401), "HTTP 401 Unauthorized: who?", False),
        (Reply(b"", 404), "HTTP 404 Not Found without a text", False),
        (Reply(b"", 429), "HTTP 429", True),
    ],
)
def test_replies_that_are_no_answer(reply: Reply, what: str, again: bool) -> None:
    found = failure(reply)
    assert found.what.startswith(what) or what in found.what
    assert (found.again, found.after) == (again, None)
    assert len(found.what) < 400
    assert bool(found.advice) is not again


def test_a_server_says_how_long_to_wait() -> None:
    assert failure(Reply(b"", 429, {"Retry-After": "7"})).after == 7.0
    now = 1_700_000_000.0
    assert seconds_in("Tue, 14 Nov 2023 22:13:50 GMT", now) == 30.0
    assert seconds_in("Tue, 14 Nov 2023 22:13:00 GMT", now) == 0.0
    for nothing in (None, "", "soon", "-1", "9" * 400):
        assert seconds_in(nothing, now) is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_not_followed(status: int) -> None:
    with serving(lambda request: replied({"score": 1.0})) as elsewhere:
        found = failure(Reply(b"", status, {"Location": elsewhere.url}))
    assert elsewhere.requests == []
    assert found.what == f"a redirect (HTTP {status}) to {elsewhere.url}"
    assert not found.again
    assert "set url to it" in found.advice


def test_an_endless_reply_is_cut_off() -> None:
    found = failure(Reply(b"x" * 5000, endless=True))
    assert found.what.startswith(f"a reply of more than {LONGEST_REPLY:,} bytes: xxx")
    assert failure(Reply(b"x" * 5000, 500, endless=True)).what.startswith("HTTP 500")


def test_a_slow_reply_is_waited_for_up_to_the_timeout() -> None:
    def slow(request: object) -> Reply:
        time.sleep(0.4)
        return replied({"score": 0.25})

    with serving(slow) as server:
        assert endpoint(server.url, 5.0).post(b"{}", "application/json") == {"score": 0.25}
        with pytest.raises(FailedTry, match=r"no reply within 0.1 s \(timeout\)"):
            endpoint(server.url, 0.1).post(b"{}", "application/json")


def test_a_reply_that_trickles_does_not_last_longer_than_the_timeout() -> None:
    def trickle(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            for _ in range(100):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return
                time.sleep(0.05)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=trickle, args=(listener,), daemon=True).start()
        began = time.monotonic()
        with pytest.raises(FailedTry, match=r"did not end within 0.3 s \(timeout\)"):
            url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
            endpoint(url, 0.3).post(b"{}", "application/json")
        assert time.monotonic() - began < 3


def test_a_server_that_is_not_there_or_hangs_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/"

        def hang_up() -> None:
            listener.accept()[0].close()

        threading.Thread(target=hang_up, daemon=True).start()
        with pytest.raises(FailedTry, match="no connection, or one that broke"):
            endpoint(url).post(b"{}", "application/json")
    with pytest.raises(FailedTry, match=r"no connection, or one that broke.*refused") as caught:
        endpoint(url).post(b"{}", "application/json")
    assert caught.value.again


def test_a_request_that_is_too_large_is_not_sent() -> None:
    told = r"has 1.2 MB, and max_mb allows 1; raise it"
    with serving(lambda request: replied({})) as server, pytest.raises(RewardError, match=told):
        endpoint(server.url).post(bytes(1_200_000), "video/mp4")
    assert server.requests == []


def test_the_key_is_sent_and_shown_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    echo = Reply(b"bad key Bearer " + KEY.encode(), 401, {"Location": f"/?{KEY}"})
    for status in (200, 302, 401, 500):
        echo.status = status
        found = failure(echo, key_env="JUDGE_KEY")
        assert KEY not in found.what + found.advice, status
        assert "***" in found.what
    with serving(lambda request: replied({"said": KEY})) as server:
        reply = endpoint(server.url, key_env="JUDGE_KEY").post(b"{}", "application/json")
    assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert reply == {"said": "***"}


def test_keys_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with pytest.raises(RewardError, match="no environment variable JUDGE_KEY; set one"):
        endpoint("http://localhost/", key_env="JUDGE_KEY")
    with pytest.raises(RewardError) as caught:
        endpoint("http://localhost/", key_env="hf_pasted")
    assert "hf_pasted" not in str(caught.value)
    monkeypatch.setenv("JUDGE_KEY", "two words")
    with pytest.raises(RewardError, match="a character that no key has") as caught:
        endpoint("http://localhost/", key_env="JUDGE_KEY")
    assert "two" not in str(caught.value)


def test_proxies_do_not_get_what_is_for_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(lambda request: replied({"by": "proxy"})) as proxy:
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        with serving(lambda request: replied({"by": "judge"})) as server:
            assert endpoint(server.url).post(b"{}", "a/b") == {"by": "judge"}
        assert proxy.requests == []
        # Others may need the proxy of their network.
        assert endpoint("http://judge.invalid/score").post(b"{}", "a/b") == {"by": "proxy"}
    for url, local in (
        ("http://localhost:8000", True),
        ("http://a.localhost", True),
        ("http://127.9.9.9", True),
        ("http://[::1]:80/", True),
        ("http://127.0.0.1.example.org", False),
        ("http://localhost.example.org", False),
        ("http://10.0.0.1", False),
    ):
        assert is_local(url) is local, url


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/", "begins with http:// or https://"),
        ("file:///etc/passwd", "begins with http://"),
        ("localhost:8000", "begins with http://"),
        ("http://", "begins with http://"),
        ("http://host:99999/", "is no address"),
        ("http://host:0/", "begins with http://"),
        ("http://host/a b", "a character that no address has"),
        ("http://host/a\r\nX: y", "a character that no address has"),
        ("http://host/#part", "a character that no address has"),
        ("http://me:pw@host/", "a user name or a password"),
        ("http://me:pw@host:x/", "is no address"),
        ("me:pw@host/score", r"got '\*\*\*@host/score'"),
        ("https://host/?api_key=pw", "contains api_key"),
    ],
)
def test_addresses_that_are_refused(url: str, message: str) -> None:
    with pytest.raises(RewardError, match=message) as caught:
        checked_url(url)
    assert "pw" not in str(caught.value)


def test_an_address_and_numbers_that_are_fine() -> None:
    url = "https://judge.example.org:8443/v1/score?model=a"
    assert checked_url(url) == url
    with pytest.raises(RewardError, match="both must be above 0"):
        Endpoint(url, timeout=0.0, max_mb=1.0)


def test_a_value_of_a_reply() -> None:
    assert value_in({"score": 0}, "score") == 0
    for reply in ([0.5], {"scores": 1}, None, "score"):
        with pytest.raises(FailedTry, match=r'no {"score": \.\.\.} in the reply'):
            value_in(json.loads(json.dumps(reply)), "score")
