"""A judge behind a web address of yours: clips go there as mp4 files, scores come back.

One clip in a request: a form with the file `clip` and the text `prompt`; the reply is
`{"score": 0.5}`. With `batch` above 1, the form has those two fields for each clip, in order, and
the reply is `{"scores": [0.5, ...]}`. With `pairwise`: files `clip_a` and `clip_b`, the text
`prompt`, and `{"preference": p}`, p in [0, 1] that of `clip_a`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from rewards.core.asking import FailedTry, Patience, quoted
from rewards.core.base import CLIP_FPS
from rewards.core.black_box import Asking, BlackBoxReward
from rewards.core.endpoint import Endpoint, Field, form_data, value_in
from rewards.core.shown_clip import Question


class HttpReward(BlackBoxReward):
    """A judge that is a web server.

    Args:
        endpoint: Where it is.
        asking: How it is asked.
    """

    def __init__(self, endpoint: Endpoint, asking: Asking) -> None:
        super().__init__(asking)
        self._endpoint = endpoint

    @property
    def about(self) -> dict[str, Any]:
        """Its address, and how clips are shown."""
        asking = self.asking
        return {
            "kind": "http",
            "url": self._endpoint.url,
            "pairwise": asking.pairwise,
            "fps": asking.fps,
        }

    @property
    def where(self) -> str:
        """Its address."""
        return f"at {self._endpoint.url}"

    @property
    def advice(self) -> str:
        """Look at the server."""
        return (
            "Check that the server runs and answers as docs/black-box-judges.md says, or raise "
            "timeout or retries"
        )

    def ask(self, questions: Sequence[Question]) -> Sequence[Any]:
        """Post one request."""
        if self.asking.pairwise:
            (question,) = questions
            a, b = question.clips
            pair: list[Field] = [("clip_a", a.mp4), ("clip_b", b.mp4), ("prompt", question.prompt)]
            return [value_in(self._post(pair), "preference")]
        fields: list[Field] = []
        for question in questions:
            (clip,) = question.clips
            fields += [("clip", clip.mp4), ("prompt", question.prompt)]
        if self.asking.batch == 1:
            return [value_in(self._post(fields), "score")]
        scores = value_in(self._post(fields), "scores")
        if not isinstance(scores, list):
            raise FailedTry(f"the scores {quoted(repr(scores))} are no list")
        return scores

    def _post(self, fields: Sequence[Field]) -> Any:
        return self._endpoint.post(*form_data(fields))


def load_http(
    *,
    device: torch.device,
    url: str,
    timeout: float = 60.0,
    retries: int = 5,
    batch: int = 1,
    parallel: int = 4,
    max_mb: float = 64.0,
    fps: float | None = None,
    key_env: str | None = None,
    pairwise: bool = False,
    both_orders: bool = False,
) -> HttpReward:
    """Prepare a judge at an address; nothing is sent yet.

    The many parameters are the keys of the judge in a recipe.

    Args:
        device: Without effect: it works elsewhere.
        url: Its address.
        timeout: Seconds for a request.
        retries: Tries after the first.
        batch: Clips in a request.
        parallel: Requests at a time.
        max_mb: Most megabytes of a request.
        fps: Frame rate of the files; None for that of the clips.
        key_env: Name of an environment variable whose value is sent as bearer token.
        pairwise: Ask which of two clips of a prompt is better.
        both_orders: Ask about each pair in both orders.

    Raises:
        RewardError: A value is out of its range, the address has a secret in it, or there is no
            such variable.
    """
    del device
    asking = Asking(Patience(retries), parallel, batch, pairwise, both_orders, fps or CLIP_FPS)
    endpoint = Endpoint(url, timeout=timeout, max_mb=max_mb, key_env=key_env)
    return HttpReward(endpoint, asking)
