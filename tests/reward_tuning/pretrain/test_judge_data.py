"""Frames, captions and preference pairs say what the scenes show."""

from base_model.tiny.captions import parse_caption
from base_model.tiny.scenes import scenes
from reward_tuning.pretrain.degradations import DEGRADATIONS
from reward_tuning.pretrain.judge_data import (
    QUALITY_WORDS,
    VISIBLE,
    draw_captioned,
    draw_pairs,
    named_rng,
    render_pair,
)


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
