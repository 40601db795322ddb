"""A judge that is a vision-language model behind an OpenAI-style address (`/chat/completions`).

It is shown the frames of a clip as pictures, and asked a question about them. Its score is the
probability of Yes in its answer's first token, or a number that it writes, mapped to [0, 1].
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from rewards.core.asking import FailedTry, Patience, quoted
from rewards.core.black_box import Asking, BlackBoxReward
from rewards.core.endpoint import Endpoint, checked_url, value_in
from rewards.core.shown_clip import Picture, Question, ShownClip
from rewards.errors import RewardError

YES_OR_NO = (
    'These are the frames of a video, in order. Does the video show "{prompt}", without visible '
    "faults? Answer with one word, Yes or No."
)
NUMBER = (
    'These are the frames of a video, in order. How well does it show "{prompt}", from {lowest} '
    "(not at all) to {highest} (perfectly)? Answer with one number."
)
COMPARISON = (
    'Both videos were made for the prompt "{prompt}". Which one shows it better and has fewer '
    "faults? Answer with one letter: A for the first video, B for the second."
)
POSITIVE, NEGATIVE = ("yes", "y", "true"), ("no", "n", "false")
FIRST, SECOND = ("a", "first", "1"), ("b", "second", "2")
PATH = "/chat/completions"
TOP = 20
"""Likeliest tokens that are asked for: the most that servers give."""
MOST_TOKENS = 16  # of an answer with a number; a probability needs only the first token
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True)
class Inquiry:
    """What a model is asked, and how its answer is read.

    Attributes:
        model: Its name, as the server knows it.
        question: The question, with {prompt} where the prompt goes; None for the usual one.
        answer: `yes`: the probability of Yes; `score`: the first number that it writes.
        lowest: Number that counts as 0.
        highest: Number that counts as 1.
        image: Format of the frames.
    """

    model: str
    question: str | None = None
    answer: Literal["yes", "score"] = "yes"
    lowest: float = 1.0
    highest: float = 10.0
    image: Picture = "png"

    def __post_init__(self) -> None:
        """Check the range.

        Raises:
            RewardError: It is empty.
        """
        if not self.lowest < self.highest:
            raise RewardError(
                f"lowest is {self.lowest:g} and highest {self.highest:g}; lowest must be smaller"
            )

    def text(self, *, pairwise: bool) -> str:
        """Return the question, {prompt} still in it."""
        if self.question is not None:
            return self.question
        if pairwise:
            return COMPARISON
        if self.answer == "yes":
            return YES_OR_NO
        range_of = {"{lowest}": f"{self.lowest:g}", "{highest}": f"{self.highest:g}"}
        text = NUMBER
        for place, number in range_of.items():
            text = text.replace(place, number)
        return text


class VlmReward(BlackBoxReward):
    """A judge that is a vision-language model on a server.

    Args:
        endpoint: Where it is.
        inquiry: What it is asked.
        asking: How it is asked.

    Raises:
        RewardError: It is to compare clips by numbers.
    """

    def __init__(self, endpoint: Endpoint, inquiry: Inquiry, asking: Asking) -> None:
        self._text = inquiry.text(pairwise=asking.pairwise)
        super().__init__(asking, reads_text="{prompt}" in self._text)
        if asking.pairwise and inquiry.answer != "yes":
            raise RewardError(
                f"answer is {inquiry.answer}, but a pairwise judge answers with A or B; leave "
                "answer out"
            )
        self._endpoint = endpoint
        self._inquiry = inquiry

    @property
    def about(self) -> dict[str, Any]:
        """Its address and name, and what it is asked; it sees pictures, so no frame rate."""
        inquiry = self._inquiry
        return {
            "kind": "vlm",
            "url": self._endpoint.url,
            "model": inquiry.model,
            "question": self._text,
            "answer": inquiry.answer,
            "range": [inquiry.lowest, inquiry.highest],
            "image": inquiry.image,
            "pairwise": self.asking.pairwise,
        }

    @property
    def where(self) -> str:
        """Its name and address."""
        return f"({self._inquiry.model} at {self._endpoint.url})"

    @property
    def advice(self) -> str:
        """Look at the server."""
        return "Check that the server runs and serves this model, or raise timeout or retries"

    def ask(self, questions: Sequence[Question]) -> Sequence[Any]:
        """Post one request."""
        (question,) = questions
        reply = self._endpoint.post(
            json.dumps(self._request(question)).encode(), "application/json"
        )
        choices = value_in(reply, "choices")
        if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
            raise FailedTry(f"no choices in the reply {quoted(json.dumps(reply))}")
        if self.asking.pairwise:
            return [probability(choices[0], FIRST, SECOND)]
        if self._inquiry.answer == "yes":
            return [probability(choices[0], POSITIVE, NEGATIVE)]
        return [number_in(choices[0], self._inquiry.lowest, self._inquiry.highest)]

    def _request(self, question: Question) -> dict[str, Any]:
        content: list[dict[str, Any]] = []
        names = ("The first video:", "The second video:") if self.asking.pairwise else ("",)
        for name, clip in zip(names, question.clips, strict=True):
            content += [{"type": "text", "text": name}] if name else []
            content += self._pictures(clip)
        text = self._text.replace("{prompt}", question.prompt)
        content.append({"type": "text", "text": text})
        request: dict[str, Any] = {
            "model": self._inquiry.model,
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
        }
        if self._inquiry.answer == "score":
            return {**request, "max_tokens": MOST_TOKENS}
        return {**request, "max_tokens": 1, "logprobs": True, "top_logprobs": TOP}

    def _pictures(self, clip: ShownClip) -> list[dict[str, Any]]:
        urls = clip.data_urls(self._inquiry.image)
        return [{"type": "image_url", "image_url": {"url": url}} for url in urls]


def probability(
    choice: Mapping[str, Any], positive: Sequence[str], negative: Sequence[str]
) -> float:
    """Return p(positive) / (p(positive) + p(negative)) of the answer's first token.

    Args:
        choice: Of a chat completion.
        positive: Words that say so, in small letters; tokens count whatever their case, with or
            without a space before them.
        negative: Words that deny it.

    Raises:
        FailedTry: The server gives no probabilities (no other try helps), or none of these words
            is among the likeliest.
    """
    try:
        top = choice["logprobs"]["content"][0]["top_logprobs"]
        chances = [(str(one["token"]), math.exp(float(one["logprob"]))) for one in top]
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise FailedTry(
            "the reply has no probabilities of the first token (top_logprobs)",
            again=False,
            advice="Use a server and model that give logprobs with top_logprobs, as vLLM and "
            "SGLang do, or set answer: score",
        ) from error

    def chance(words: Sequence[str]) -> float:
        # A tokenizer may mark the space before a word.
        return sum(p for token, p in chances if token.strip(" ▁Ġ\n\"'.*").casefold() in words)

    yes, no = chance(positive), chance(negative)
    if not yes + no > 0:
        likely = ", ".join(repr(token) for token, _ in chances[:5])
        raise FailedTry(
            f"neither {positive[0]} nor {negative[0]} is among the likeliest first words: "
            f"{quoted(likely) or 'none'}",
            advice="Ask a question that is answered with one of these words (question)",
        )
    return yes / (yes + no)


def number_in(choice: Mapping[str, Any], lowest: float, highest: float) -> float:
    """Return the first number of an answer, mapped from [lowest, highest] to [0, 1].

    Raises:
        FailedTry: There is none, or it is out of range.
    """
    message = choice.get("message")
    text = message.get("content") if isinstance(message, dict) else None
    found = _NUMBER.search(text) if isinstance(text, str) else None
    if found is None:
        raise FailedTry(f"no number in the answer {quoted(json.dumps(text))}")
    number = float(found[0])
    if not lowest <= number <= highest:
        raise FailedTry(
            f"the number {number:g} of the answer {quoted(json.dumps(text))} is not within "
            f"[{lowest:g}, {highest:g}]"
        )
    return (number - lowest) / (highest - lowest)


def completions_url(url: str) -> str:
    """Return the address of chat completions below a base address.

    Raises:
        RewardError: It is no http(s) address, has a secret in it, or has a query.
    """
    base = checked_url(url)
    if "?" in base:
        raise RewardError(
            f"url: {url!r:.200} has a query; give the base address, such as "
            "http://localhost:8000/v1"
        )
    return f"{base.rstrip('/').removesuffix(PATH)}{PATH}"


def load_vlm(
    *,
    device: torch.device,
    url: str,
    model: str,
    key_env: str | None = None,
    question: str | None = None,
    answer: Literal["yes", "score"] = "yes",
    lowest: float = 1.0,
    highest: float = 10.0,
    image: Picture = "png",
    timeout: float = 120.0,
    retries: int = 5,
    parallel: int = 4,
    max_mb: float = 64.0,
    pairwise: bool = False,
    both_orders: bool = False,
) -> VlmReward:
    """Prepare a judge that is a model on a server; nothing is sent yet.

    The many parameters are the keys of the judge in a recipe.

    Args:
        device: Without effect: it works elsewhere.
        url: Base address, such as http://localhost:8000/v1; `/chat/completions` is appended.
        model: Name of the model.
        key_env: Name of an environment variable whose value is sent as bearer token.
        question: The question, with {prompt} where the prompt goes; None for the usual one.
        answer: `yes` or `score` (`Inquiry`).
        lowest: Number that counts as 0.
        highest: Number that counts as 1.
        image: Format of the frames.
        timeout: Seconds for a request.
        retries: Tries after the first.
        parallel: Requests at a time.
        max_mb: Most megabytes of a request.
        pairwise: Ask which of two clips of a prompt is better.
        both_orders: Ask about each pair in both orders.

    Raises:
        RewardError: A value is out of its range, the address has a secret in it, or there is no
            such variable.
    """
    del device
    address = completions_url(url)
    endpoint = Endpoint(address, timeout=timeout, max_mb=max_mb, key_env=key_env)
    inquiry = Inquiry(model, question, answer, lowest, highest, image)
    return VlmReward(
        endpoint, inquiry, Asking(Patience(retries), parallel, 1, pairwise, both_orders)
    )
