"""Train the embedded critic: a small Qwen2-VL that answers Yes or No about rendered clips.

There are two parts. The first is a lesson for the vision tower alone, on silhouettes that fade into
real frames, under linear heads that are discarded afterwards (judge_clip.py explains why shape
needs one). The second is questions: cross-entropy of the answer over the whole vocabulary, together
with the heads.

Whether a prompt fits a clip is an exclusive or, which one bit per question teaches too slowly:
after 300 steps of questions the answers were at chance, although the vision tokens had shown
colours and backgrounds long before. A true caption of each clip is therefore learned word by word,
and each word of a question's prompt is judged at its token, one layer below the top: fifteen more
bits per clip.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from base_model.files.reproducible import save_reproducibly
from base_model.tiny.captions import draw_caption
from base_model.tiny.scenes import ATTRIBUTES, SIDE
from base_model.training.loop import python_random
from base_model.training.text_encoder import SPECIAL_TOKENS, train_tokenizer
from reward_tuning.pretrain.critic_data import (
    Asked,
    Shown,
    critic_texts,
    draw_asked,
    draw_clips,
    word_ends,
)
from reward_tuning.pretrain.judge_configs import JudgeRun, seed_weights
from rewards.kinds.qwen_critic import ANSWERS, ASPECTS
from rewards.qwen.files import new_name
from rewards.qwen.frames import QwenFrames
from rewards.qwen.model import QwenTower, Reading

WIDTH = 96
TEXT: dict[str, Any] = {
    "hidden_size": WIDTH,
    "intermediate_size": 256,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 1024,
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "mrope_section": [4, 4, 4],
    },
}
VISION: dict[str, Any] = {
    "depth": 2,
    "embed_dim": 64,
    "num_heads": 4,
    "mlp_ratio": 2,
    "hidden_size": WIDTH,
    "patch_size": 8,
}
TOKEN_SIDE = VISION["patch_size"] * 2
"""Pixels along the side of a token: two patches are merged."""

VOCABULARY = 640
LONGEST_TEXT = 4096

LESSON = 400
SILHOUETTES = 100
FADED = 250
LESSON_BATCH = 48
BATCH = 16
PAIRS_SEEN = (1, 2, 2, 2, 5)
"""Patches in time of a step's clips, drawn once per step; a whole clip has five."""

QUESTIONS = tuple(ASPECTS)
HEAD_WEIGHTS = dict.fromkeys(ATTRIBUTES, 0.2) | {"shape": 0.6, "defect": 0.2}


def frames_spec() -> QwenFrames:
    """Return the critic's preprocessing: unscaled clips in 8 x 8 patches."""
    return QwenFrames(min_pixels=SIDE * SIDE, max_pixels=SIDE * SIDE, patch_size=8)


def build_critic() -> tuple[Any, Any]:
    """Build a random Qwen2-VL and its tokenizer, which is trained on captions and questions."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    tokenizer = train_tokenizer(critic_texts(), vocab_size=VOCABULARY, max_length=LONGEST_TEXT)
    ids = {name: tokenizer.convert_tokens_to_ids(name) for name in SPECIAL_TOKENS}
    config = Qwen2VLConfig(
        text_config={
            **TEXT,
            "vocab_size": len(tokenizer),
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config=VISION,
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    return Qwen2VLForConditionalGeneration(config), tokenizer


class Student(nn.Module):
    """The critic with a linear head for each attribute on its vision tokens, for training only.

    The shape's attributes are read from the tokens that it covers, the background from all. With
    the mean of all tokens for both, shape stayed at chance (0.25) for 300 steps of 48 silhouettes;
    with the covered tokens 78 % were right after 150.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        sizes = {name: len(words) for name, words in ATTRIBUTES.items()} | {"defect": 1}
        self.norm = nn.LayerNorm(WIDTH)
        self.heads = nn.ModuleDict({name: nn.Linear(WIDTH, n) for name, n in sizes.items()})

    def read(self, features: Tensor, shown: Shown) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Return losses and shares of right readings by attribute, from `(n, v, d)` tokens."""
        everywhere = self.norm(features.mean(dim=1))
        covered = shown.coverage(TOKEN_SIDE)[..., None]
        shape = self.norm((features * covered).sum(dim=1))
        losses, right = {}, {}
        for name, words in ATTRIBUTES.items():
            truth = torch.tensor([words.index(getattr(scene, name)) for scene in shown.scenes])
            logits = self.heads[name](everywhere if name == "background" else shape)
            losses[name] = F.cross_entropy(logits, truth)
            right[name] = float((logits.argmax(dim=1) == truth).float().mean())
        clean = (shown.defects < 0).float()
        logit = self.heads["defect"](everywhere)[:, 0]
        losses["defect"] = F.binary_cross_entropy_with_logits(logit, clean)
        right["defect"] = float(((logit > 0) == (clean > 0)).float().mean())
        return losses, right


def train_critic(run: JudgeRun) -> Path:
    """Train the critic, or continue its training, and return its folder."""
    seed_weights(run)
    model, tokenizer = build_critic()
    tower = QwenTower(model, tokenizer, frames_spec())
    student = Student(model).requires_grad_(True).train()
    answers = torch.tensor([tokenizer.convert_tokens_to_ids(word) for word in ANSWERS])

    def lesson(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        shown = draw_clips(LESSON_BATCH, rng, generator, pairs=1)
        real = min(1.0, max(0.0, (step - SILHOUETTES) / (FADED - SILHOUETTES)))
        features, _ = tower.clip_features(torch.lerp(shown.shapes, shown.clips, real))
        losses, right = student.read(features, shown)
        names = ("shape", "size", "motion") if step < SILHOUETTES else tuple(losses)
        return _weighted({name: losses[name] for name in names}), right

    def ask(step: int, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        rng = python_random(generator)
        asked = draw_asked(BATCH, QUESTIONS, rng, generator, pairs=rng.choice(PAIRS_SEEN))
        captions = [[draw_caption(scene, rng)] for scene in asked.shown.scenes]
        texts = [q + c for q, c in zip(asked.questions, captions, strict=True)]
        with states_below_the_top(model) as below:
            reading = tower.read(asked.shown.clips, texts)
        logits = model.lm_head(reading.last()[:, : len(QUESTIONS)])
        truth = torch.where(asked.answers > 0, answers[0], answers[1])
        loss = F.cross_entropy(logits.flatten(0, 1), truth.flatten())
        right = (logits[..., answers[0]] > logits[..., answers[1]]) == (asked.answers > 0)
        numbers = {
            f"answers/{name}": float(right[:, [a == name for a in QUESTIONS]].float().mean())
            for name in dict.fromkeys(QUESTIONS)
        }
        losses, read = student.read(reading.features, asked.shown)
        caption = caption_loss(model, reading, part=len(QUESTIONS) + 1)
        words, right_words = word_loss(tower, asked, reading, log_odds(model, below[0], answers))
        numbers |= {"caption": float(caption.detach()), "words": right_words}
        loss = loss + 0.5 * _weighted(losses) + 0.5 * caption + 3.0 * words
        return loss, {**numbers, **read}

    run.train(student, lambda step, g: (lesson if step < LESSON else ask)(step, g))
    return save_critic(run, model, tokenizer)


def caption_loss(model: Any, reading: Reading, part: int) -> Tensor:
    """Return the next-token cross-entropy of one text of every sequence, in nats per token."""
    inside = reading.parts == part
    both = inside[:, :-1] & inside[:, 1:]
    logits = model.lm_head(reading.states[:, :-1][both])
    return F.cross_entropy(logits, reading.tokens[:, 1:][both])


@contextmanager
def states_below_the_top(model: Any) -> Iterator[list[Tensor]]:
    """Collect the output of the language model's last layer but one, `(b, l, d)`."""
    kept: list[Tensor] = []
    layer = model.model.language_model.layers[-2]
    hook = layer.register_forward_hook(
        lambda _, __, out: kept.append(out if isinstance(out, Tensor) else out[0])
    )
    try:
        yield kept
    finally:
        hook.remove()


def log_odds(model: Any, states: Tensor, answers: Tensor) -> Tensor:
    """Return the log odds of Yes against No without the layers above, `(b, l)`."""
    yes, no = model.lm_head.weight[answers]
    return model.model.language_model.norm(states) @ (yes - no)


def word_loss(
    tower: QwenTower, asked: Asked, reading: Reading, odds: Tensor
) -> tuple[Tensor, float]:
    """Return the loss of judging each word of a prompt at its token, and the share of right ones.

    Args:
        tower: Tower with the tokenizer that gives the places of words.
        asked: Questions.
        reading: Reading of the questions.
        odds: `(b, l)`: log p(Yes) - log p(No).
    """
    found, fits = [], []
    for row, (scene, texts) in enumerate(zip(asked.shown.scenes, asked.questions, strict=True)):
        starts = [int((reading.parts[row] == 1).nonzero()[0])]
        starts += [int(end) + 1 for end in reading.ends[row]]
        for text, said, start in zip(texts, asked.said[row], starts, strict=False):
            if said is None:
                continue
            places = word_places(tower, text, word_ends(text, said))
            # A token with two words (Chinese has no spaces) has no single answer.
            alone = [n for n, place in places.items() if list(places.values()).count(place) == 1]
            found += [odds[row, start + places[name]] for name in alone]
            fits += [float(getattr(said, name) == getattr(scene, name)) for name in alone]
    logits, truth = torch.stack(found), torch.tensor(fits)
    right = ((logits > 0) == (truth > 0)).float().mean()
    return F.binary_cross_entropy_with_logits(logits, truth), float(right)


def word_places(tower: QwenTower, text: str, ends: dict[str, int]) -> dict[str, int]:
    """Return the token of each word, counted from the first after the clip."""
    conversation = tower.conversation(text)
    encoded = tower.tokenizer(conversation, return_offsets_mapping=True)
    spans, begin = encoded["offset_mapping"], conversation.index(text)
    clip = len(tower.tokens(text)[0])
    return {
        name: max(i for i, (low, high) in enumerate(spans) if low <= begin + end < high) - clip - 1
        for name, end in ends.items()
    }


def _weighted(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack([HEAD_WEIGHTS[name] * loss for name, loss in losses.items()]).sum()


def save_critic(run: JudgeRun, model: Any, tokenizer: Any) -> Path:
    """Write a folder in Hugging Face's layout with weights in fp16."""
    folder = run.out_dir / run.name
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.config.save_pretrained(folder)
    state = {new_name(n): t.half().contiguous() for n, t in model.state_dict().items()}
    del state["lm_head.weight"]  # tied
    save_reproducibly(folder / "model.safetensors", state, {"format": "pt", "command": run.command})
    spec = frames_spec()
    size = {"shortest_edge": spec.min_pixels, "longest_edge": spec.max_pixels}
    path = folder / "video_preprocessor_config.json"
    path.write_text(json.dumps({"size": size}, indent=2) + "\n", encoding="utf-8")
    return folder
