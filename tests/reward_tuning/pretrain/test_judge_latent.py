"""Training of the judge of noisy latents: its batches, an interruption, missing inputs."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import ATTRIBUTES
from reward_tuning.errors import TuningError
from reward_tuning.pretrain import pretrain_tiny
from reward_tuning.pretrain.judge_latent import BACKWARDS, draw_latents
from reward_tuning.pretrain.judges import train_judge
from tests.reward_tuning.pretrain.small_judges import latent_cache, shrink, train_small


def test_latents_and_captions_belong_together() -> None:
    cache = latent_cache()
    batch = draw_latents(64, cache, torch.Generator().manual_seed(0))
    again = draw_latents(64, cache, torch.Generator().manual_seed(0))
    assert torch.equal(batch.latents, again.latents)
    assert batch.captions == again.captions
    words = [list(w) for w in ATTRIBUTES.values()]
    turned = 0
    for scene, latents in zip(batch.scenes, batch.latents, strict=True):
        moments = latents.mean(dim=(0, 2, 3))
        shown = [w[p] for w, p in zip(words, cache["scenes"][int(moments.min())], strict=True)]
        if moments[0] > moments[2]:
            turned += 1
            shown[-1] = BACKWARDS[shown[-1]]
        assert [getattr(scene, name) for name in ATTRIBUTES] == shown
    assert 16 < turned < 48
    said = [parse_caption(caption) for caption in batch.captions]
    assert {language for _, language in said} == {"en", "zh"}
    assert {scene.split for scene, _ in said} == {"train"}
    assert [scene for scene, _ in said[:64]] == batch.scenes
    for (other, _), scene in zip(said[64:], batch.scenes, strict=True):
        assert sum(getattr(other, name) != getattr(scene, name) for name in ATTRIBUTES) == 1
    expected = [[float(scene == shown) for scene, _ in said] for shown in batch.scenes]
    assert batch.match.tolist() == expected
    # The cache itself is not turned round.
    assert torch.equal(cache["latents"], latent_cache()["latents"])


@pytest.mark.slow
def test_a_stopped_training_of_latents_ends_in_the_same_bytes(
    trained: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    training = tmp_path / "training"
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        from reward_tuning.pretrain import judges

        often = replace(judges.SCHEDULES["latent-clip"], checkpoint_every=2, report_every=3)
        patch.setitem(judges.SCHEDULES, "latent-clip", often)
        training.mkdir()
        save_file(latent_cache(), training / "latents.safetensors")
        with pytest.raises(StoppedError):
            train_judge("latent-clip", tmp_path, 1, stop, training=training, steps=4)
        assert torch.load(training / "latent-clip.ckpt", weights_only=True)["step"] == 2
        path = train_small("latent-clip", tmp_path)
    assert path.read_bytes() == (trained / path.name).read_bytes()


def test_the_judge_of_latents_says_what_it_needs(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match=r"latent-clip: stage 'text' has not been run.*run it"):
        pretrain_tiny(only="latent-clip", output=tmp_path)
    cache = latent_cache()
    del cache["scenes"]
    (tmp_path / "training").mkdir(exist_ok=True)
    save_file(cache, tmp_path / "training" / "latents.safetensors")
    with pytest.raises(TuningError, match=r"latents\.safetensors does not hold.*Delete it"):
        pretrain_tiny(only="latent-clip", output=tmp_path)
