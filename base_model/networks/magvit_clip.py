"""The Magvit decoder over the latent frames of a clip: what is kept for the backward pass.

Latent frames are coupled by the past of the causal convolutions, two frames for each of them: its
state. It is an input of the next latent frame, so a checkpoint of latent frames keeps one state
for each. At 256 x 256 in bfloat16 one is 0.57 GB, half of what the repeated run of a latent frame
takes with checkpoints of its own (`LatentDecoding`): long clips need checkpoints of segments, too.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from itertools import count, pairwise
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from base_model.networks.magvit_decoder import LatentDecoding, causal_convolutions

Checkpointing: TypeAlias = bool | Literal["segments"]
"""What a backward pass computes again; see `base_model.networks.magvit.decode`."""

State = tuple[Tensor | None, ...]
Around = Callable[[int], AbstractContextManager[None]]


class ClipDecoding:
    """Decodes a clip, latent frame by latent frame.

    Args:
        decoder: An `EasyAnimateDecoder`.
        window: First and end of the frames of video that are wanted.
        ratio: Frames of video in one latent frame; the first latent frame is one frame.
        around: Function from the index of a latent frame to a context, which is entered around each
            norm of that frame, in every run; None for none.
    """

    def __init__(
        self, decoder: Any, window: tuple[int, int], ratio: int, around: Around | None
    ) -> None:
        self._decoder, self._window, self._ratio = decoder, window, ratio
        self._around = around

    def __call__(self, z: Tensor, *, context: int, checkpointing: Checkpointing) -> Tensor:
        """Decode `(b, 16, t, h, w)`, of which the last latent frame is the last that is wanted.

        Args:
            z: After the quantisation's convolution.
            context: Latent frames that are decoded without gradient.
            checkpointing: What the backward pass computes again.

        Returns:
            `(b, 3, f, 8 h, 8 w)`, the frames of the window.
        """
        end = z.shape[2]
        state: State = (None,) * len(causal_convolutions(self._decoder))
        with torch.no_grad():
            _, state = self._span(range(context), end, False, z, *state)
        spans = [range(context, end)]
        if checkpointing == "segments":
            spans = [spans[0][of.start : of.stop] for of in segments(end - context)]
        video: list[Tensor] = []
        for span in spans:
            run: Any = self._span
            if span is not spans[-1]:  # where the backward pass begins: it would free nothing
                run = partial(_checkpointed, run)
            pieces, state = run(span, end, bool(checkpointing), z, *state)
            video += pieces
        return torch.cat(video, dim=2)

    def _span(
        self, latents: range, end: int, checkpointed: bool, z: Tensor, *state: Tensor | None
    ) -> tuple[list[Tensor], State]:
        """Decode some of the latents before `end`; return the wanted frames, and the new state."""
        start, stop = self._window
        video = []
        for i in latents:
            run: Any = _LatentFrame(self._decoder, i, self._around, i + 1 < end, checkpointed)
            if checkpointed:
                run = partial(_checkpointed, run)
            piece, state = run(z[:, :, i : i + 1], *state)
            first = 0 if i == 0 else self._ratio * (i - 1) + 1
            piece = piece[:, :, max(start - first, 0) : max(stop - first, 0)]
            if piece.shape[2]:
                video.append(piece)
        return video, state


class _LatentFrame:
    """One latent frame: its frames of video and the new state, given the state before it."""

    def __init__(
        self, decoder: Any, i: int, around: Around | None, followed: bool, checkpointed: bool
    ) -> None:
        self._decoder, self._first, self._checkpointed = decoder, i == 0, checkpointed
        self._around = nullcontext if around is None else partial(around, i)
        self._keep = followed

    def __call__(self, z: Tensor, *state: Tensor | None) -> tuple[Tensor, State]:
        decoding = LatentDecoding(
            self._decoder,
            first=self._first,
            past=state,
            checkpointing=self._checkpointed,
            around=self._around,
            keep=self._keep,
        )
        self._keep = False  # a repeated run is for its activations: the state has been handed on
        return decoding(z), tuple(decoding.past)


def _checkpointed(run: Callable[..., tuple[Any, State]], *arguments: Any) -> tuple[Any, State]:
    # The decoder has no dropout: there is no random state to replay.
    found: tuple[Any, State] = checkpoint(
        run, *arguments, use_reentrant=False, preserve_rng_state=False
    )
    return found


def segments(latents: int) -> list[range]:
    """Divide latent frames into segments whose checkpoints need the least memory.

    While the backward pass is in a segment, the states at the beginning of this one and of those
    before it are held, and the states within it. Each segment is therefore at most one shorter
    than the one before: all hold about `sqrt(2 n)` states of n.

    Args:
        latents: Number of latent frames, at least 1.
    """
    longest = next(size for size in count(1) if size * (size + 1) >= 2 * latents)
    stops = [0]
    while stops[-1] < latents:
        stops.append(stops[-1] + longest + 1 - len(stops))
    spare = stops[-1] - latents  # the first segment, whose state is none, is the one to shorten
    stops = [0, *(stop - spare for stop in stops[1:])]
    return [range(*pair) for pair in pairwise(stops)]
