"""What the decoder's checkpoints keep, repeat and return."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLMagvit
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from base_model.loading.checkpoint import empty_model
from base_model.loading.model_configs import vae_arguments_of
from base_model.loading.published_configs import published_configs
from base_model.networks import magvit
from base_model.networks.magvit_clip import Checkpointing, segments
from reward_tuning.estimate.live_memory import LiveMemory
from reward_tuning.estimate.random_weights import RandomWeights, fill

PUBLISHED = "alibaba-pai/EasyAnimateV5.1-12b-zh-InP-diffusers"
META = torch.device("meta")
CONVOLUTIONS = 35
"""Of the published decoder in one latent frame; two of them are the shortcuts' own."""
STATE = 0.571e9
"""Bytes of the state between two latent frames at 256 x 256 in bfloat16: two frames of what each
causal convolution reads, summed by hand."""


def small_vae(dtype: torch.dtype = torch.float32) -> Any:
    torch.manual_seed(0)
    vae = AutoencoderKLMagvit(
        block_out_channels=[8, 8, 16, 16], layers_per_block=1, norm_num_groups=4
    )
    return vae.to(dtype).requires_grad_(False).eval()


def latents(count: int = 7) -> Tensor:
    return torch.randn(1, 16, count, 2, 2, generator=torch.Generator().manual_seed(0))


def gradient(vae: Any, checkpointing: Checkpointing, **options: Any) -> tuple[Tensor, Tensor]:
    z = latents().requires_grad_()
    frames = magvit.decode(vae, z, checkpointing=checkpointing, **options)
    weight = torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    return frames.detach(), torch.autograd.grad((frames * weight).sum(), z)[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "options",
    [{}, {"frames": slice(6, 20)}, {"frames": slice(6, 20), "detach_context": True}],
    ids=["whole", "window", "detached context"],
)
def test_values_and_gradients_are_those_without_checkpoints(
    dtype: torch.dtype, options: dict[str, Any]
) -> None:
    vae = small_vae(dtype)
    frames, expected = gradient(vae, False, **options)
    assert expected.any()
    for checkpointing in (True, "segments"):
        found = gradient(vae, checkpointing, **options)
        assert torch.equal(found[0], frames)
        assert torch.equal(found[1], expected)


@pytest.mark.parametrize("checkpointing", [True, "segments"])
def test_a_graph_that_is_kept_gives_the_gradient_twice(checkpointing: Checkpointing) -> None:
    vae, z = small_vae(), latents(5).requires_grad_()
    reward = magvit.decode(vae, z, checkpointing=checkpointing).square().sum()
    first, second = (torch.autograd.grad(reward, z, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("checkpointing", "runs"), [(True, 3), ("segments", 4)])
def test_each_norm_runs_within_the_context_of_its_latent_frame(
    checkpointing: Checkpointing, runs: int
) -> None:
    """In the forward pass, the repeated latent frame, the repeated norm, and a repeated segment."""
    vae, inside, seen = small_vae(), list[int](), Counter[int]()

    @contextmanager
    def around(latent: int) -> Iterator[None]:
        inside.append(latent)
        try:
            yield
        finally:  # a repeated run ends early, with an exception
            inside.pop()

    def hook(*_: Any) -> None:
        (latent,) = inside  # entered once, not within itself
        seen[latent] += 1

    norms = [m for m in vae.decoder.modules() if isinstance(m, torch.nn.GroupNorm)]
    for norm in norms:
        norm.register_forward_pre_hook(hook)
    z = latents(6).requires_grad_()
    video = magvit.decode_video(vae, z, checkpointing=checkpointing, around_latent=around)
    assert inside == []
    video.sum().backward()
    # Segments of 3, 2 and 1: 0, 1 and 3 are repeated with their segment, whose last one is not.
    expected = {i: runs if i in (0, 1, 3) else 3 for i in range(6)}
    assert {i: count / len(norms) for i, count in seen.items()} == expected


def test_segments_need_the_fewest_states() -> None:
    """Held at once: those of the segments' beginnings so far, and those within one."""
    for count in range(1, 60):
        found = segments(count)
        assert [i for of in found for i in of] == list(range(count))
        held = [len(of) + number for number, of in enumerate(found)]
        # The states are triangular numbers: s (s + 1) / 2 latent frames need s.
        (fewest,) = (s for s in range(12) if s * (s - 1) < 2 * count <= s * (s + 1))
        assert max(held) == fewest


@cache
def published_vae() -> Any:
    found = published_configs(PUBLISHED)
    assert found is not None
    arguments = vae_arguments_of(Path("vae"), found.vae, AutoencoderKLMagvit)
    vae = empty_model(AutoencoderKLMagvit, arguments)
    fill(vae, RandomWeights(META, "vae"), torch.bfloat16)
    return vae.requires_grad_(False).eval()


class _Counted(TorchDispatchMode):
    """Convolutions forward and back, before and within the backward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: Counter[str] = Counter()
        self.stage = "forward"

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.runs[self.stage] += 1
        return func(*args, **(kwargs or {}))


def followed(
    count: int, checkpointing: Checkpointing, *, side: int = 32
) -> tuple[float, Counter[str]]:
    """Return bytes at the peak of forward and backward pass, weights left out, and convolutions."""
    vae, counted = published_vae(), _Counted()
    memory = LiveMemory(lambda: "step")
    memory.name(vae.parameters(), "weights")
    z = torch.empty(1, 16, count, side, side, dtype=torch.bfloat16, device=META).requires_grad_()
    with memory, counted:
        frames = magvit.decode(vae, z, checkpointing=checkpointing)
        weight = torch.empty_like(frames)
        counted.stage = "backward"
        frames.backward(weight)
    return memory.peaks["step"]["activations"], counted.runs


@pytest.mark.slow
def test_memory_of_49_frames_at_the_published_size() -> None:
    """In bfloat16, 256 x 256. Checkpoints of latent frames alone took 9.8 GB, with 13 states."""
    plain, runs = followed(13, True)
    print(f"true: {plain / 1e9:.2f} GB")
    assert runs == {"forward": 13 * CONVOLUTIONS + 1, "backward": 13 * CONVOLUTIONS}
    assert 12 * STATE < plain < 12 * STATE + 1.2e9
    lean, runs = followed(13, "segments")
    print(f"segments: {lean / 1e9:.2f} GB")
    # Segments of 4, 4, 3 and 2: 3 + 3 + 2 latent frames are repeated once more.
    assert runs == {"forward": 13 * CONVOLUTIONS + 1, "backward": (13 + 8) * CONVOLUTIONS}
    assert 4 * STATE < lean < 5 * STATE + 1.0e9


def test_memory_of_one_latent_frame_at_the_published_size() -> None:
    """Between 9 and 13 frames one state is added; what remains is the repeated latent frame."""
    (two, _), (three, runs) = followed(2, True), followed(3, True)
    assert runs == {"forward": 3 * CONVOLUTIONS + 1, "backward": 3 * CONVOLUTIONS}
    assert three - two == pytest.approx(STATE, rel=0.1)
    assert two - STATE < 1.1e9  # 3.5e9 without checkpoints within it
