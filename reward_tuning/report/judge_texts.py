"""What the score of each kind of judge means, as docs/rewards.md has it at length."""

from __future__ import annotations

from dataclasses import replace

from reward_tuning.report.metric import MetricText

_UP = "Rises; a held-out judge rises too, and motion stays"
_FOOLED = (
    "Down: lower `train.learning_rate`, train longer or on more prompts. Up while held-out judges "
    "fall: it is being fooled; add an anchor or a judge that reads the prompt, or use a lower "
    "strength"
)
_STAYS = "Rises, or stays, while the judges that are trained on rise"
_FALLS = (
    "Down while the judges that are trained on rise: they are being fooled, and this judge was "
    "not; use a lower strength or an earlier checkpoint, or train again with an anchor"
)
JUDGE_SCORE = MetricText(
    "Mean over clips of what it says; docs/rewards.md lists what each kind cannot see.",
    "its own scale",
    _UP,
    _FOOLED,
    "higher",
)


def _text(what: str, unit: str, healthy: str = _UP, remedy: str = _FOOLED) -> MetricText:
    return MetricText(what, unit, healthy, remedy, "higher")


def held_out_text(text: MetricText) -> MetricText:
    """Return the text of a judge that nothing was trained on: what its rise or fall shows.

    Args:
        text: Text of its kind. What it says of one kind alone stays.
    """
    return replace(
        text,
        healthy=_STAYS if text.healthy == _UP else text.healthy,
        remedy=_FALLS if text.remedy == _FOOLED else text.remedy,
    )


_STILL = "Do not train on it alone: it prefers still clips. Down: look for what flickers or jumps"
JUDGE_TEXTS: dict[str, MetricText] = {
    "hps": _text(
        "HPSv2: which picture people prefer, given the prompt. Cannot see motion.",
        "cosine; 0.23 to 0.31 on published weights, 0.83 to 0.84 on the embedded ones",
    ),
    "clip": _text(
        "CLIP: similarity of frames and prompt. Cannot see motion, the sides of wide frames, "
        "counts and who does what.",
        "cosine; 0.2 to 0.35 on published weights",
    ),
    "aesthetic": _text(
        "LAION's aesthetic predictor: beauty of frames. Does not read the prompt.",
        "about 1 to 10, without an upper bound",
        "Rises by a few tenths; +0.3 with a second judge, +1.4 in a run that ruined its clips",
    ),
    "pickscore": _text(
        "PickScore: which picture people prefer, given the prompt. Cannot see motion.",
        "scaled cosine; 18 to 24",
    ),
    "aesthetic_v2_5": _text(
        "Aesthetic predictor v2.5: beauty of frames. Does not read the prompt.",
        "about 1 to 10, without an upper bound; 5.5 or more is good",
    ),
    "image_reward": _text(
        "ImageReward: which picture people prefer, given the prompt. Cannot see motion.",
        "standard deviations of its data; about -2.3 to 2",
    ),
    "mps": _text(
        "MPS: which picture people prefer in one respect, given the prompt. Cannot see motion.",
        "scaled cosine; 8 to 15",
    ),
    "qwen_critic": _text(
        "A Qwen2-VL's confidence that the clip shows what was asked.",
        "difference of logits; about -10 to 10",
    ),
    "video_align": _text(
        "VideoAlign: visual quality, motion quality and agreement with the prompt.",
        "standard deviations of its data, for each axis",
    ),
    "hpsv3": _text(
        "HPSv3: which picture people prefer, given the prompt. Cannot see motion.",
        "-0.2 to 10.6 on published weights",
    ),
    "motion_energy": _text(
        "Amount of motion, low-passed in space and time. Anything new in a frame counts.",
        "levels of [0, 1]; 0 for a still, 0.04 to 0.07 for a pan of 1 to 8 pixels",
        "Near the base, or up to its target",
        "Far up: cap it by `rewards.N.target`",
    ),
    "motion_flow": _text(
        "Speed of what moves.",
        "pixels per frame",
        "Near the base, or up to its target",
        "Far up: cap it by `rewards.N.target`",
    ),
    "flicker": _text(
        "Minus the change between frames that the next frame reverses.",
        "levels of [0, 1]; 0 is best",
        "Does not fall",
        "Down: brightness or outlines flicker; train with it at a small weight",
    ),
    "consistency": _text(
        "Similarity of each frame's features to the frame before and to the first.",
        "cosine, 0 to 1",
        "Does not fall; up together with less motion means stiller clips",
        _STILL,
    ),
    "vjepa2": _text(
        "Minus V-JEPA 2's surprise at the rest of a clip.",
        "about -0.8 to 0, the best",
        "Does not fall; up together with less motion means stiller clips",
        _STILL,
    ),
    "dynamic_degree": _text(
        "VBench's dynamic degree: share of clips in which anything moves far.",
        "share, 0 to 1",
        "Near the base",
        "Down: judges of single frames prefer stills; set `train.motion`, or add a judge of motion",
    ),
    "sharpness": _text(
        "Variance of the Laplacian of the frames. Noise counts as sharp.",
        "squared levels of 255",
        "Near the base",
        "Far up: look for noise and fine patterns; down: for blur",
    ),
    "no_cuts": _text(
        "Whether a clip is one shot, by TransNetV2.",
        "log-probability, 0 is best; or a probability",
        "Near its best",
        "Down: clips jump; train with it at a small weight",
    ),
    "latent": _text(
        "Similarity of noisy latents and prompt.",
        "cosine",
    ),
    "python": JUDGE_SCORE,
    "http": JUDGE_SCORE,
    "command": JUDGE_SCORE,
    "vlm": _text(
        "What a vision-language model answers about the frames; blind to what it does not ask.",
        "probability of Yes, 0 to 1; or its number, mapped to 0 to 1",
    ),
}
