import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import ATTRIBUTES, scenes
from reward_tuning.errors import TuningError
from reward_tuning.pretrain import judge_clip, judge_configs, judge_latent, pretrain_tiny
from reward_tuning.pretrain.degradations import DEGRADATIONS, degrade, gaussian_blur
from reward_tuning.pretrain.judge_aesthetic import appeal
from reward_tuning.pretrain.judge_clip import attacked, contrastive_loss, silhouettes
from reward_tuning.pretrain.judge_data import (
    QUALITY_WORDS,
    VISIBLE,
    draw_captioned,
    draw_frames,
    draw_pairs,
    named_rng,
    render_pair,
)
from reward_tuning.pretrain.judge_latent import BACKWARDS, draw_latents
from reward_tuning.pretrain.judges import JUDGES, JudgeName, train_judge
from rewards import load_latent_reward, load_reward
from rewards.clip_towers.open_clip_models import build_model
from tests.reward_tuning.small_cross import CROSS_JUDGES

ELSEWHERE = (*CROSS_JUDGES, "qwen-critic", "vjepa2", "video-align", "hpsv3")
"""Tested in files of their own."""

HERE = [name for name in JUDGES if name not in ELSEWHERE]
SMALL = {
    **judge_configs.CLIP,
    "vision_cfg": {**judge_configs.CLIP["vision_cfg"], "width": 8, "head_width": 64},
}

SMALL_PICKSCORE = {
    **judge_configs.PICKSCORE,
    "vision_cfg": {"image_size": 64, "layers": 1, "width": 16, "head_width": 16, "patch_size": 16},
}

SMALL_SIGLIP = {
    **judge_configs.SIGLIP,
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "patch_size": 16,
}

SMALL_LATENT = {
    **judge_configs.LATENT_CLIP,
    "latent_cfg": {"channels": 16, "widths": [8], "depths": [1], "heads": 1},
}


KINDS = {"clip-held-out": "clip", "aesthetic-v2-5": "aesthetic_v2_5"}
"""Of the files whose name is not that of their kind."""


def clean(count: int = 24) -> torch.Tensor:
    return draw_frames(count, named_rng("test", 0)[0], "train")[1]


@pytest.mark.parametrize("index", range(len(DEGRADATIONS)), ids=list(DEGRADATIONS))
def test_degradations_grow_with_the_degree_and_repeat(index: int) -> None:
    frames = clean()
    kinds = torch.full((len(frames),), index)
    distance = []
    for degree in (0.0, 0.2, 0.6, 1.0):
        draws = [
            degrade(frames, kinds, torch.full((len(frames),), degree), named_rng("d", 1)[1])
            for _ in range(2)
        ]
        assert torch.equal(*draws)
        assert float(draws[0].min()) >= 0
        assert float(draws[0].max()) <= 1
        distance.append(float((draws[0] - frames).square().mean()))
    assert distance[0] == 0.0
    assert distance == sorted(distance)
    assert distance[3] > 1.5 * distance[1] > 0


def test_silhouettes_are_white_shapes_on_black() -> None:
    frames = clean()
    shapes = silhouettes(frames)
    assert torch.equal(shapes[:, 0], shapes[:, 1])
    assert torch.equal(shapes[:, 0], shapes[:, 2])
    torch.testing.assert_close(shapes.amax(dim=(1, 2, 3)), torch.ones(len(frames)))
    # Grey is black, whatever its tone: most of every frame is background.
    assert float((shapes < 1e-3).float().mean(dim=(1, 2, 3)).min()) > 0.7
    colour = torch.tensor([0.2, 0.9, 0.3])[:, None, None]
    square = torch.full((3, 8, 8), 0.6)
    square[:, 2:5, 2:5] = colour
    assert silhouettes(square[None])[0, 0].sum() == 9


def test_only_the_chosen_rows_are_spoiled() -> None:
    frames = clean(4)
    kinds, degrees = torch.tensor([-1, 0, 1, 2]), torch.tensor([1.0, 0.0, 1.0, 1.0])
    changed = (degrade(frames, kinds, degrees, named_rng("d", 1)[1]) != frames).flatten(1).any(1)
    assert changed.tolist() == [False, False, True, True]


def test_gaussian_blur_keeps_the_mean_and_has_the_asked_width() -> None:
    spike = torch.zeros(2, 3, 41, 41)
    spike[..., 20, 20] = 1
    sigmas = torch.tensor([0.9, 2.0])
    x = torch.arange(41.0) - 20
    profile = gaussian_blur(spike, sigmas)[:, 0].sum(dim=1)
    torch.testing.assert_close(profile.sum(dim=1), torch.ones(2))
    torch.testing.assert_close((profile * x**2).sum(dim=1).sqrt(), sigmas, rtol=0.01, atol=0)


def test_a_pair_differs_in_one_attribute_only() -> None:
    rng, _ = named_rng("pair", 0)
    for scene in scenes("train")[::149]:
        colour_right, colour_wrong = render_pair(scene, "colour", rng)
        # The same shape at the same place: wherever they differ there is chroma in both.
        changed = (colour_right - colour_wrong).abs().amax(dim=0) > 0.2
        chroma = [(f.amax(dim=0) - f.amin(dim=0)) > 0.1 for f in (colour_right, colour_wrong)]
        assert bool(changed.any())
        assert bool((chroma[0] & chroma[1])[changed].all())
        back_right, back_wrong = render_pair(scene, "background", rng)
        inside = (back_right.amax(dim=0) - back_right.amin(dim=0)) > 0.6
        # Only the ramp at the edge still shows some of the ground.
        assert float((back_right - back_wrong).abs().amax(dim=0)[inside].mean()) < 0.03
        assert float((back_right - back_wrong).abs().mean()) > 0.03


def test_pairs_prompts_and_reasons() -> None:
    pairs = draw_pairs(200, *named_rng("pairs", 0))
    assert set(pairs.reasons) == {*VISIBLE, *DEGRADATIONS}
    assert 0.35 < sum(r in VISIBLE for r in pairs.reasons) / 200 < 0.65
    assert float((pairs.better - pairs.worse).abs().flatten(1).amax(dim=1).min()) > 0
    looks = [tuple(getattr(parse_caption(p)[0], n) for n in VISIBLE) for p in pairs.prompts]
    for i in range(0, 200, 17):
        assert pairs.same[i].tolist() == [float(looks[i] == other) for other in looks]
    # A degradation takes the better frame on its way to the worse one: never past it.
    rows = [i for i, r in enumerate(pairs.reasons) if r in ("fade", "desaturate")]
    grey = (pairs.better.amax(dim=1) - pairs.better.amin(dim=1)).amax(dim=(1, 2))
    greyer = (pairs.worse.amax(dim=1) - pairs.worse.amin(dim=1)).amax(dim=(1, 2))
    assert rows
    assert bool((greyer < grey)[rows].all())


def test_match_is_what_captions_state() -> None:
    batch = draw_captioned(64, *named_rng("captioned", 3))
    full = [j for j, c in enumerate(batch.captions) if _parsed(c) is not None]
    assert len(full) > 10
    clean_rows = batch.match.amax(dim=1) == 1
    assert 0.4 < float(clean_rows.float().mean()) < 1
    for j in full:
        scene = _parsed(batch.captions[j])
        fits = [all(getattr(s, n) == getattr(scene, n) for n in VISIBLE) for s in batch.scenes]
        assert (batch.match[:, j] > 0).tolist() == fits
    assert any(c.isascii() for c in batch.captions)
    assert any(not c.isascii() for c in batch.captions)
    said = [w for pair in QUALITY_WORDS.values() for w in pair]
    assert any(w in c for w in said for c in batch.captions)


def _parsed(caption: str) -> object:
    try:
        return parse_caption(caption)[0]
    except ValueError:
        return None


def test_training_never_sees_a_held_out_combination() -> None:
    train_scenes = set(scenes("train"))
    for seed in range(3):
        batch = draw_captioned(64, *named_rng("split", seed))
        assert set(batch.scenes) <= train_scenes
        for prompt in draw_pairs(64, *named_rng("split", seed)).prompts:
            assert parse_caption(prompt)[0] in train_scenes


def test_contrastive_loss_is_clips_with_one_positive_each() -> None:
    logits = torch.randn(5, 5)
    labels = torch.arange(5)
    ce = torch.nn.functional.cross_entropy
    expected = (ce(logits, labels) + ce(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(logits, torch.eye(5)), expected)


def test_contrastive_loss_is_least_where_probabilities_are_the_matches() -> None:
    match = torch.tensor([[1.0, 0.5, 0.0], [0.0, 0.5, 1.0], [0.5, 0.0, 0.0]])
    logits = torch.zeros(3, 3, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = contrastive_loss(logits, match)
        loss.backward()
        return loss

    optimizer.step(closure)
    rows = logits.detach().softmax(dim=1)
    assert rows.argmax(dim=1).tolist() == [0, 2, 0]


def test_the_attack_lowers_every_margin_and_has_its_length() -> None:
    torch.manual_seed(0)
    model = build_model(SMALL, torch.device("cpu")).eval()
    frames = (0.1 + 0.8 * clean(8)).contiguous()
    texts = torch.nn.functional.normalize(torch.randn(4, SMALL["embed_dim"]), dim=1)
    moved = attacked(model, frames, texts, torch.full((8,), 0.1))
    torch.testing.assert_close((moved - frames).flatten(1).norm(dim=1), torch.full((8,), 0.1))

    def margins(x: torch.Tensor) -> torch.Tensor:
        a, b = model.encode_image(judge_clip.normalised(x), normalize=True).chunk(2)
        return ((a - b) * texts).sum(dim=1)

    assert bool((margins(moved) < margins(frames)).all())


def test_appeal_falls_with_every_visible_defect() -> None:
    frames = clean(60)
    best = appeal(frames)
    assert float(best.min()) > 6
    assert float(best.max()) <= 10
    for index, name in enumerate(DEGRADATIONS):
        degrees = torch.full((60,), 0.8)
        kinds = torch.full((60,), index)
        spoiled = appeal(degrade(frames, kinds, degrees, named_rng("appeal", 0)[1]))
        assert float((spoiled - best).mean()) < -0.1, name
        assert float(spoiled.min()) >= 1


def latent_cache(count: int = 40) -> dict[str, torch.Tensor]:
    """Latents that say which clip and which moment they are; scenes as the generator's cache."""
    chosen = scenes("train")[:: len(scenes("train")) // count][:count]
    places = [[w.index(getattr(s, n)) for n, w in ATTRIBUTES.items()] for s in chosen]
    moments = torch.arange(3.0)[None, None, :, None, None]
    clips = torch.arange(float(count))[:, None, None, None, None]
    latents = (clips + moments / 10).expand(count, 16, 3, 4, 4).contiguous()
    return {"latents": latents, "scenes": torch.tensor(places)}


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


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every judge, a few steps each, at a few thousand weights."""
    folder = tmp_path_factory.mktemp("judges")
    with pytest.MonkeyPatch.context() as patch:
        _shrink(patch)
        for name in HERE:
            train_small(name, folder)
    return folder


def train_small(name: JudgeName, folder: Path, seed: int = 1) -> Path:
    training = folder / "training"
    training.mkdir(parents=True, exist_ok=True)
    save_file(latent_cache(), training / "latents.safetensors")
    return train_judge(name, folder, seed, lambda *_: None, training=training, steps=4)


def _shrink(patch: pytest.MonkeyPatch) -> None:
    from reward_tuning.pretrain import judge_aesthetic, judge_pickscore, judge_siglip, judges

    for module in (judges, judge_clip, judge_aesthetic):
        patch.setattr(module, "CLIP", SMALL)
    patch.setattr(judge_clip, "BATCH", 8)
    patch.setattr(judge_clip, "LESSON_BATCH", 4)
    for module in (judge_clip, judge_pickscore):
        patch.setattr(module, "LESSON", judge_clip.Lesson(silhouettes=0, faded=1, steps=2))
    patch.setattr(judge_pickscore, "PREFERENCES_FROM", 3)
    patch.setattr(judge_pickscore, "PICKSCORE", SMALL_PICKSCORE)
    patch.setattr(judge_siglip, "SIGLIP", SMALL_SIGLIP)
    patch.setattr(judge_siglip, "BATCH", 4)
    patch.setattr(judge_clip, "PAIRS", 4)
    patch.setattr(judge_latent, "LATENT_CLIP", SMALL_LATENT)
    patch.setattr(judge_latent, "BATCH", 4)
    patch.setattr(judges, "PREFERENCES_FROM", 3)
    patch.setattr(judge_aesthetic, "BLOCKS", 1)
    patch.setattr(judge_aesthetic, "BLOCK", 16)
    patch.setattr(judge_configs, "tokenizer_texts", lambda: ["a red circle"] * 3)
    patch.setattr(judge_configs, "MERGES", 5)
    vocabulary = {"vocab_size": 519}
    for config in (SMALL, SMALL_LATENT, SMALL_PICKSCORE, judges.CLIP_HELD_OUT):
        patch.setitem(config, "text_cfg", {**config["text_cfg"], **vocabulary})


@pytest.mark.parametrize("name", HERE)
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


def test_pickscore_is_saved_as_transformers_names_it(trained: Path) -> None:
    with safe_open(trained / "pickscore.safetensors", "pt") as file:
        names = set(file.keys())
        scale = float(file.get_tensor("logit_scale").exp())
    assert "vision_model.pre_layrnorm.weight" in names
    assert not any(name.startswith("visual.") for name in names)
    assert scale <= judge_clip.LARGEST_SCALE * 1.001


def test_preference_pairs_join_the_captions_of_the_held_out_judge(trained: Path) -> None:
    names = ("clip", "clip-held-out", "pickscore")
    logs = {name: trained / "training" / f"{name}.jsonl" for name in names}
    last = {name: json.loads(log.read_text().splitlines()[-1]) for name, log in logs.items()}
    assert "retrieved" in last["clip"]
    assert "preferred" not in last["clip"]
    assert 0.0 <= last["clip-held-out"]["preferred"] <= 1.0
    assert 0.0 <= last["pickscore"]["preferred"] <= 1.0


@pytest.mark.parametrize("name", ["clip", "latent-clip", "pickscore", "siglip"])
def test_the_same_seed_gives_the_same_bytes(trained: Path, tmp_path: Path, name: JudgeName) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _shrink(patch)
        train_small(name, tmp_path / "same")
        train_small(name, tmp_path / "other", seed=2)
    read = {f: (f / f"{name}.safetensors").read_bytes() for f in (trained, *tmp_path.iterdir())}
    assert read[trained] == read[tmp_path / "same"]
    assert read[trained] != read[tmp_path / "other"]


def test_a_stopped_training_of_latents_ends_in_the_same_bytes(
    trained: Path, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(*_: object) -> None:
        raise StoppedError

    training = tmp_path / "training"
    with pytest.MonkeyPatch.context() as patch:
        _shrink(patch)
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
    with pytest.raises(TuningError, match=r"latents\.safetensors does not say.*Delete it"):
        pretrain_tiny(only="latent-clip", output=tmp_path)


def test_judges_that_start_from_clip_say_so(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        _shrink(patch)
        for name in ("hps", "aesthetic"):
            with pytest.raises(TuningError, match=r"clip\.safetensors is missing.*--only clip"):
                train_small(name, tmp_path)
        with pytest.raises(TuningError, match=r"siglip\.safetensors is missing.*--only siglip"):
            train_small("aesthetic-v2-5", tmp_path)
    with pytest.raises(TuningError, match="no embedded judge 'clap'"):
        train_small("clap", tmp_path)  # type: ignore[arg-type]
