"""Each judge of frames, trained for a few steps: it loads, scores and repeats."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from reward_tuning.errors import TuningError
from reward_tuning.pretrain.judges import JudgeName
from rewards import load_latent_reward, load_reward
from tests.reward_tuning.pretrain.small_judges import (
    FRAME_JUDGES,
    clean,
    shrink,
    train_small,
)

KINDS = {"clip-held-out": "clip", "aesthetic-v2-5": "aesthetic_v2_5"}
"""Of the files whose name is not that of their kind."""


@pytest.mark.slow
@pytest.mark.parametrize("name", FRAME_JUDGES)
def test_a_trained_judge_loads_scores_and_says_its_command(trained: Path, name: str) -> None:
    path = trained / f"{name}.safetensors"
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        dtypes = {file.get_tensor(k).dtype for k in file.keys()}  # noqa: SIM118
    assert metadata["command"] == f"reward-tuning pretrain tiny --only {name} --seed 1"
    assert dtypes <= {torch.float16, torch.int64}
    assert not list(trained.glob("*.part"))
    if name == "latent-clip":
        seen = torch.randn(1, 16, 3, 4, 4).requires_grad_()
        score = load_latent_reward(path)(seen, 0.5, ["a small red circle"])
    elif name == "siglip":  # no judge, but what one sits on
        tower = load_reward("aesthetic_v2_5", trained / "aesthetic-v2-5.safetensors")
        assert metadata["kind"] == "tower"
        seen = clean(1).requires_grad_()
        score = tower.image_features(seen)[:, 0]
    else:
        judge = load_reward(KINDS.get(name, name), path)
        seen = clean(2)[None].requires_grad_()
        score = judge(seen, ["a small red circle"])
    (gradient,) = torch.autograd.grad(score.sum(), seen)
    assert score.shape == (1,)
    assert float(gradient.abs().max()) > 0
    if "preprocess" in metadata:
        mode = json.loads(metadata["preprocess"])["mode"]
        assert mode == ("letterbox" if name == "hps" else "crop")
        rounding = json.loads(metadata["preprocess"])["rounding"]
        assert rounding == ("floor" if name == "pickscore" else "round")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "latent-clip", "pickscore", "siglip"])
def test_the_same_seed_gives_the_same_bytes(trained: Path, tmp_path: Path, name: JudgeName) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        train_small(name, tmp_path / "same")
        train_small(name, tmp_path / "other", seed=2)
    read = {f: (f / f"{name}.safetensors").read_bytes() for f in (trained, *tmp_path.iterdir())}
    assert read[trained] == read[tmp_path / "same"]
    assert read[trained] != read[tmp_path / "other"]


def test_judges_that_start_from_clip_say_so(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch)
        for name in ("hps", "aesthetic"):
            with pytest.raises(TuningError, match=r"clip\.safetensors is missing.*--only clip"):
                train_small(name, tmp_path)
        with pytest.raises(TuningError, match=r"siglip\.safetensors is missing.*--only siglip"):
            train_small("aesthetic-v2-5", tmp_path)
    with pytest.raises(TuningError, match="unknown embedded judge 'clap'"):
        train_small("clap", tmp_path)  # type: ignore[arg-type]
