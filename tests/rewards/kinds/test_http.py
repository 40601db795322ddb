"""Judges on a real server on this machine."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rewards import RewardError, load_reward
from rewards.core.asking import Patience
from rewards.core.black_box import BlackBoxReward
from rewards.errors import JudgeUnavailable
from tests.rewards.judge_server import (
    Reply,
    Request,
    Waits,
    brightness,
    grey_clips,
    replied,
    serving,
)

LEVELS = (0.2, 0.6, 0.4)


def judge_at(url: str, waits: Waits | None = None, **options: Any) -> BlackBoxReward:
    judge = load_reward("http", url=url, name="mine", **options)
    assert isinstance(judge, BlackBoxReward)
    if waits is not None:
        patience = waits.patience(judge.asking.patience.retries)
        judge.asking = replace(judge.asking, patience=patience)
    return judge


def texts(request: Request) -> list[str]:
    return [value.decode() for name, value in request.fields if name == "prompt"]


def test_a_clip_is_sent_and_its_score_returned(tmp_path: Path) -> None:
    def score(request: Request) -> Reply:
        ((clip, video), (prompt, text)) = request.fields
        assert (clip, prompt) == ("clip", "prompt")
        return replied({"score": brightness(video, tmp_path) + len(text)})

    with serving(score) as server:
        judge = judge_at(server.url)
        scores = judge(grey_clips(*LEVELS), ["a", "bb", "cét"])
        assert judge(grey_clips(*LEVELS), ["a", "bb", "cét"]).tolist() == scores.tolist()
    # 1/255 for the studio range of video, whose levels are coarser
    assert scores.tolist() == pytest.approx([1.2, 2.6, 4.4], abs=2 / 255)
    assert len(server.requests) == 3
    assert {request.path for request in server.requests} == {"/score"}


def test_several_clips_in_a_request(tmp_path: Path) -> None:
    def score(request: Request) -> Reply:
        names = [name for name, _ in request.fields]
        assert names == ["clip", "prompt"] * (len(names) // 2)
        clips = [value for name, value in request.fields if name == "clip"]
        return replied({"scores": [brightness(clip, tmp_path) for clip in clips]})

    with serving(score) as server:
        judge = judge_at(server.url, batch=2, parallel=1)
        scores = judge(grey_clips(*LEVELS), ["a", "b", "c"])
    assert scores.tolist() == pytest.approx(LEVELS, abs=2 / 255)
    assert [texts(request) for request in server.requests] == [["a", "b"], ["c"]]


def test_pairs(tmp_path: Path) -> None:
    def prefer(request: Request) -> Reply:
        fields = dict(request.fields)
        assert list(fields) == ["clip_a", "clip_b", "prompt"]
        a, b = (brightness(fields[name], tmp_path) for name in ("clip_a", "clip_b"))
        return replied({"preference": min(1.0, 0.5 + a - b + 0.1)})

    with serving(prefer) as server:
        judge = judge_at(server.url, pairwise=True, both_orders=True)
        scores = judge(grey_clips(*LEVELS), ["a"] * 3)
        # mean of (a - b) over the two others
        assert scores.tolist() == pytest.approx([-0.3, 0.3, 0.0], abs=4 / 255)
        assert len(server.requests) == 6
        with pytest.raises(RewardError, match="one clip"):
            judge(grey_clips(0.5), ["a"])


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (Reply(b"nonsense"), "a reply that is not JSON: nonsense"),
        (Reply(b'{"score": NaN}'), "the score nan is not within"),
        (Reply(b'{"score": 1e999}'), "the score inf is not within"),
        (replied({"score": None}), "the score None is no number"),
        (replied({"scores": [0.5]}), 'no {"score": ...} in the reply {"scores": [0.5]}'),
        (Reply(b"<html>oops</html>", 500), "HTTP 500 Internal Server Error: <html>oops</html>"),
    ],
)
def test_nonsense_is_asked_again_and_then_told(bad: Reply, told: str) -> None:
    replies = [bad, bad, replied({"score": 0.75})]
    with serving(lambda request: replies.pop(0)) as server:
        waits = Waits()
        assert judge_at(server.url, waits)(grey_clips(0.5), ["a"]).tolist() == [0.75]
        assert waits.seconds == [1, 2]
        replies += [bad] * 3
        with pytest.raises(JudgeUnavailable) as caught:
            judge_at(server.url, Waits(), retries=2)(grey_clips(0.5), ["a"])
    text = str(caught.value)
    assert text.startswith(f"the judge mine at {server.url} gave no usable answer in 3 tries")
    assert told in text
    assert "docs/black-box-judges.md" in text


def test_a_list_of_another_length_is_a_failed_try() -> None:
    replies: list[Any] = [{"scores": [0.5]}, {"scores": "0.5"}, {"scores": [0.5, 0.25]}]
    with serving(lambda request: replied(replies.pop(0))) as server:
        judge = judge_at(server.url, Waits(), batch=2)
        assert judge(grey_clips(0.1, 0.2), ["a", "b"]).tolist() == [0.5, 0.25]
    assert len(server.requests) == 3


def test_a_busy_server_is_given_its_time() -> None:
    replies = [Reply(b"busy", 429, {"Retry-After": "17"}), replied({"score": 1})]
    waits = Waits()
    with serving(lambda request: replies.pop(0)) as server:
        assert judge_at(server.url, waits)(grey_clips(0.5), ["a"]).tolist() == [1.0]
    assert waits.seconds == [17.0]


SERVER = """
import http.server, json, sys
class Judge(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"score": float(sys.argv[2])}).encode())
server = http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Judge)
print(server.server_port, flush=True)
server.serve_forever()
"""


def started(port: int, score: float) -> tuple[subprocess.Popen[str], int]:
    """A server in a process of its own, which gives one score."""
    command = [sys.executable, "-c", SERVER, str(port), str(score)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert server.stdout is not None
    return server, int(server.stdout.readline())


def test_a_server_that_is_killed_and_started_again_is_found_again() -> None:
    server, port = started(0, 0.25)
    servers = [server]
    judge = judge_at(f"http://127.0.0.1:{port}/", parallel=1)

    def start_again(stop: threading.Event, seconds: float) -> None:
        assert seconds == 1.0
        servers.append(started(port, 0.75)[0])

    patience = Patience(3, pause=start_again)
    judge.asking = replace(judge.asking, patience=patience)
    try:
        assert judge(grey_clips(0.1), ["a"]).tolist() == [0.25]
        server.kill()
        server.wait()
        assert judge(grey_clips(0.1, 0.2), ["a", "a"]).tolist() == [0.25, 0.75]
        assert len(servers) == 2
    finally:
        for one in servers:
            one.kill()
            one.wait()


def test_what_is_answered_is_not_asked_again_after_the_end(tmp_path: Path) -> None:
    count = 0

    def once(request: Request) -> Reply:
        nonlocal count
        count += 1
        return replied({"score": math.pi / count}) if count < 3 else Reply(b"", 503)

    frames, prompts = grey_clips(0.1, 0.2, 0.3, 0.4), ["a"] * 4
    with serving(once) as server:
        judge = judge_at(server.url, Waits(), retries=1, parallel=1)
        judge.remember(tmp_path / "a.jsonl")
        with pytest.raises(JudgeUnavailable, match="503"):
            judge(frames, prompts)
        assert len(server.requests) == 4
        count = 0
        later = judge_at(server.url, Waits(), parallel=1)
        later.remember(tmp_path / "a.jsonl")
        scores = later(frames, prompts)
        assert len(server.requests) == 6
    expected = torch.tensor([math.pi, math.pi / 2, math.pi, math.pi / 2])
    assert torch.equal(scores, expected)


def test_options_that_are_missing_or_wrong() -> None:
    with pytest.raises(RewardError, match="kind http needs url; give it"):
        load_reward("http")
    with pytest.raises(RewardError, match="kind http has no file"):
        load_reward("http", "x.pt", url="http://localhost/")
    with pytest.raises(RewardError, match="batch is 2, but a pairwise"):
        judge_at("http://localhost/", batch=2, pairwise=True)
