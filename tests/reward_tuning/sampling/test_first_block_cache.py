"""The first-block cache: nothing stays on the model, and what cannot work is refused."""

from __future__ import annotations

import sys

import pytest
import torch

from reward_tuning.errors import TuningError
from reward_tuning.sampling.first_block_cache import FirstBlockCache
from reward_tuning.sampling.sampler import ClipSampler
from tests.reward_tuning import double_sampler
from tests.reward_tuning.cheap_rollouts import exact_states, first_block, walked

sampler = double_sampler.sampler


def test_nothing_is_left_of_the_cache(sampler: ClipSampler) -> None:
    """No hook on the model, also after an error, and each rollout begins anew."""
    transformer = sampler.generator.transformer
    modules = [transformer, *transformer.transformer_blocks]
    first, _ = walked(sampler, first_block(1e9), ())
    second, full = walked(sampler, first_block(1e9), ())
    assert full == 1
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    with pytest.raises(ZeroDivisionError), FirstBlockCache(transformer, 0.1):
        raise ZeroDivisionError
    assert not any({"forward", "_diffusers_hook"} & set(vars(module)) for module in modules)
    one = exact_states(sampler)
    walked(sampler, first_block(1e9), ())
    assert all(torch.equal(a, b) for a, b in zip(exact_states(sampler), one, strict=True))


def test_a_diffusers_without_the_cache_is_told(
    sampler: ClipSampler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "diffusers.hooks.first_block_cache", None)
    import diffusers.hooks

    monkeypatch.delattr(diffusers.hooks, "first_block_cache", raising=False)
    with pytest.raises(TuningError, match=r"rollout\.cache.*the installed diffusers .* 0\.35"):
        walked(sampler, first_block(0.1), ())


def test_a_model_of_one_block_has_nothing_to_skip(sampler: ClipSampler) -> None:
    class OneBlock:
        transformer_blocks = [object()]  # noqa: RUF012

    with pytest.raises(TuningError, match="one block"):
        FirstBlockCache(OneBlock(), 0.1)
