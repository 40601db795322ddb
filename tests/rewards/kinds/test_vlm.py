"""Vision-language models behind an OpenAI-style address: a real server with made-up answers."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from rewards import RewardError, load_reward
from rewards.core.asking import FailedTry
from rewards.core.black_box import BlackBoxReward
from rewards.errors import JudgeUnavailable
from rewards.kinds.vlm import (
    FIRST,
    NEGATIVE,
    POSITIVE,
    SECOND,
    completions_url,
    number_in,
    probability,
)
from tests.rewards.judge_server import Reply, Request, Waits, grey_clips, replied, serving


def judge_at(url: str, **options: Any) -> BlackBoxReward:
    base = url.replace("/score", "/v1")
    judge = load_reward("vlm", url=base, model="seer-7b", name="mine", **options)
    assert isinstance(judge, BlackBoxReward)
    patience = Waits().patience(judge.asking.patience.retries)
    judge.asking = replace(judge.asking, patience=patience)
    return judge


def first_token(chances: Mapping[str, float]) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in chances.items()]
    content = [{"token": top[0]["token"], "logprob": top[0]["logprob"], "top_logprobs": top}]
    message = {"role": "assistant", "content": "Yes"}
    return {"choices": [{"index": 0, "message": message, "logprobs": {"content": content}}]}


def said(text: str | None) -> dict[str, Any]:
    return {"choices": [{"index": 0, "message": {"role": "assistant", "content": text}}]}


def levels(request: Request) -> list[int]:
    """First level of each picture that was sent."""
    (message,) = request.json["messages"]
    urls = [part["image_url"]["url"] for part in message["content"] if part["type"] == "image_url"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in urls]
    return [int(np.asarray(picture).flat[0]) for picture in pictures]


def words(request: Request) -> list[str]:
    (message,) = request.json["messages"]
    return [part["text"] for part in message["content"] if part["type"] == "text"]


def test_the_probability_of_yes() -> None:
    def answer(request: Request) -> Reply:
        chances = {"Yes": 0.5, " yes": 0.1, "No": 0.2, "Maybe": 0.1}
        return replied(first_token(chances))

    with serving(answer) as server:
        frames = torch.cat([grey_clips(0.2), grey_clips(0.6)], dim=1)
        assert judge_at(server.url)(frames, ["a {red} cat"]).tolist() == pytest.approx([0.75])
    (request,) = server.requests
    assert request.path == "/v1/chat/completions"
    asked = request.json
    assert {key: asked[key] for key in asked if key != "messages"} == {
        "model": "seer-7b",
        "temperature": 0,
        "max_tokens": 1,
        "logprobs": True,
        "top_logprobs": 20,
    }
    assert levels(request) == [51] * 3 + [153] * 3
    (text,) = words(request)
    assert '"a {red} cat"' in text
    assert "Yes or No" in text


def test_a_number_mapped_to_0_to_1() -> None:
    replies = ["8.5 of 10", "no idea", "11", "Score: 1"]
    with serving(lambda request: replied(said(replies.pop(0)))) as server:
        judge = judge_at(server.url, answer="score", image="jpeg", parallel=1)
        assert judge(grey_clips(0.2), ["a cat"]).tolist() == pytest.approx([7.5 / 9])
        assert judge(grey_clips(0.4), ["a cat"]).tolist() == [0.0]
    assert len(server.requests) == 4
    assert "logprobs" not in server.requests[0].json
    assert "from 1 (not at all) to 10 (perfectly)" in words(server.requests[0])[0]


def test_your_own_question() -> None:
    with serving(lambda request: replied(first_token({"No": 1.0}))) as server:
        judge = judge_at(server.url, question="Is it sharp? Yes or no")
        assert not judge.reads_text
        assert judge(grey_clips(0.2, 0.2), ["a", "b"]).tolist() == [0.0, 0.0]
        judge_at(server.url, question="{prompt} {prompt}?")(grey_clips(0.2), ["a"])
    assert [words(request) for request in server.requests] == [["Is it sharp? Yes or no"], ["a a?"]]


def test_pairs_are_shown_one_after_the_other() -> None:
    def prefer(request: Request) -> Reply:
        a, *_, b = levels(request)
        return replied(first_token({"A": 0.8, "B": 0.2} if a > b else {"B": 0.6, "A": 0.4}))

    with serving(prefer) as server:
        judge = judge_at(server.url, pairwise=True, both_orders=True)
        scores = judge(grey_clips(0.2, 0.6), ["a cat"] * 2)
    # the brighter one: (0.8 + 1 - 0.4) / 2 = 0.7
    assert scores.tolist() == pytest.approx([-0.2, 0.2])
    assert len(server.requests) == 2
    first, second, text = words(server.requests[0])
    assert (first, second) == ("The first video:", "The second video:")
    assert "A for the first video, B for the second" in text


def test_a_server_without_probabilities_is_told_at_once() -> None:
    told = r"no probabilities .*set answer: score"
    with (
        serving(lambda request: replied(said("Yes"))) as server,
        pytest.raises(JudgeUnavailable, match=told),
    ):
        judge_at(server.url)(grey_clips(0.2), ["a cat"])
    assert len(server.requests) == 1


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": ["x"]}, {"error": "full"}])
def test_a_reply_without_choices_is_a_failed_try(reply: Any) -> None:
    replies = [reply, first_token({"Yes": 1.0})]
    with serving(lambda request: replied(replies.pop(0))) as server:
        assert judge_at(server.url)(grey_clips(0.2), ["a cat"]).tolist() == [1.0]


def test_words_count_in_every_way_that_tokenizers_write_them() -> None:
    for token in ("Yes", "yes", "YES", " Yes", "▁yes", "ĠYes", "yes.", "\nYes", '"Yes'):
        choice = first_token({token: 0.3, "No": 0.1})["choices"][0]
        assert probability(choice, POSITIVE, NEGATIVE) == pytest.approx(0.75), token
    choice = first_token({"first": 0.3, "Second": 0.2, "B": 0.1})["choices"][0]
    assert probability(choice, FIRST, SECOND) == pytest.approx(0.5)
    for token in ("Yesterday", "Not", "None"):
        choice = first_token({token: 0.9, "No": 0.1})["choices"][0]
        assert probability(choice, POSITIVE, NEGATIVE) == 0.0, token
    with pytest.raises(FailedTry, match=r"neither yes nor no .*'Maybe'") as caught:
        probability(first_token({"Maybe": 0.9})["choices"][0], POSITIVE, NEGATIVE)
    assert caught.value.again
    for broken in ({}, {"logprobs": None}, {"logprobs": {"content": []}}):
        with pytest.raises(FailedTry, match="no probabilities"):
            probability(broken, POSITIVE, NEGATIVE)


def test_numbers_in_answers() -> None:
    def number(text: Any) -> float:
        return number_in({"message": {"content": text}}, -1.0, 3.0)

    assert [number(text) for text in ("3", "-1", "about 2.0!", "1/3")] == [1.0, 0.0, 0.75, 0.5]
    for text in ("none", "", None, ["3"], "4", "-2"):
        with pytest.raises(FailedTry):
            number(text)


def test_addresses_and_options() -> None:
    for url in ("http://h/v1", "http://h/v1/", "http://h/v1/chat/completions"):
        assert completions_url(url) == "http://h/v1/chat/completions"
    with pytest.raises(RewardError, match="has a query; give the base address"):
        completions_url("http://h/v1?version=2")
    with pytest.raises(RewardError, match="lowest is 5 and highest 5"):
        judge_at("http://h/score", lowest=5.0, highest=5.0)
    with pytest.raises(RewardError, match="a pairwise judge answers with A or B"):
        judge_at("http://h/score", pairwise=True, answer="score")
    kinds = [
        {},
        {"question": "x"},
        {"answer": "score"},
        {"answer": "score", "highest": 5.0},
        {"image": "jpeg"},
        {"pairwise": True},
    ]
    abouts = {repr(judge_at("http://h/score", **options).about) for options in kinds}
    assert len(abouts) == len(kinds)
