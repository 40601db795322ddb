"""The recipe of a reward tuning: every value that a run depends on, and their conflicts.

The sections and keys are the interface of the YAML files and of the command line
(`train.steps=6`). Nothing here imports torch, and the gradient room does not import this module.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

from base_model.core.family import FAMILY
from base_model.memory.modes import MODES
from reward_tuning.schema.gradient_conflicts import estimate_conflicts, gradient_conflicts
from reward_tuning.schema.guards_section import GuardsSection
from reward_tuning.schema.judge_parts import (
    EachFrameSection,
    FramesSection,
    JudgeSection,
    NetworkSection,
    QwenSection,
    RandomFrames,
    TwoTowerSection,
)
from reward_tuning.schema.judge_roles import (
    FrameRewardSection,
    HeldOutSection,
    RewardSection,
    TrainingReward,
)
from reward_tuning.schema.matching_conflicts import matching_conflicts, regression_conflicts
from reward_tuning.schema.methods import Method
from reward_tuning.schema.mistakes import Conflict
from reward_tuning.schema.primary import primary_fault
from reward_tuning.schema.sections import (
    EvaluationSection,
    GeneratorSection,
    LoraSection,
    PromptsSection,
    RolloutSection,
    SamplingSection,
    TrainSection,
)
from reward_tuning.schema.sharded_conflicts import alike_conflicts, shared_conflicts
from reward_tuning.schema.tracking import Tracking
from reward_tuning.schema.train_conflicts import group_conflicts, kept_conflicts, reuse_conflicts
from reward_tuning.schema.values import FileName
from reward_tuning.section import NotNegative, Section

NOT_GUIDED = "sampling.guidance_scale is 1: nothing is guided; raise it, or leave this out"

JudgeAt = tuple[tuple[str | int, ...], JudgeSection]
"""Path of a judge in the recipe, and the judge."""


def conflicts(sections: dict[str, Any]) -> Iterator[Conflict]:
    """Check values of different sections against each other.

    Args:
        sections: Section name to its validated value. A section that is missing (its own values
            were wrong) skips only the checks that need it.
    """
    sampling = sections.get("sampling")
    method = sections.get("method")
    rewards: Sequence[RewardSection] = sections.get("rewards", [])
    evaluation = sections.get("evaluation")
    held_out: Sequence[HeldOutSection] = evaluation.held_out_rewards if evaluation else []
    judges: list[JudgeAt] = [
        *((("rewards", i), judge) for i, judge in enumerate(rewards)),
        *((("evaluation", "held_out_rewards", i), judge) for i, judge in enumerate(held_out)),
    ]
    prompts = sections.get("prompts")
    if prompts is not None and prompts.train == prompts.held_out:
        yield Conflict(
            ("prompts", "held_out"),
            prompts.held_out,
            "is the same file as prompts.train, so nothing would be held out; give another file",
        )
    asked = 0 if method is None else method.steps_wanted
    if sampling is not None and asked > sampling.steps_run:
        share = "" if sampling.strength == 1.0 else f" * sampling.strength {sampling.strength:g}"
        yield Conflict(
            ("method", "active_steps"),
            asked,
            f"at most sampling.steps{share} = {sampling.steps_run}",
        )
    if sampling is not None:
        yield from sampling_conflicts(sampling, sections.get("train"), evaluation)
    yield from rollout_conflicts(sections.get("rollout"), sections.get("generator"))
    caches = {name: sections.get(name) for name in ("rollout", "evaluation")}
    yield from compile_conflicts(sections.get("train"), caches, sections.get("generator"))
    yield from activation_conflicts(sections.get("train"), sections.get("generator"))
    yield from kept_conflicts(sections.get("train"), sampling, sections.get("rollout"))
    generator, train = sections.get("generator"), sections.get("train")
    yield from shared_conflicts(generator)
    yield from alike_conflicts(generator, method, rewards, train, sections.get("rollout"))
    yield from adapter_conflicts(sections.get("generator"), evaluation, sections.get("train"))
    for path, judge in judges:
        yield from judge_conflicts(path, judge, sampling)
        yield from gradient_conflicts(path, judge, sections.get("train"), method)
        yield from too_few_frames(path, judge, sampling, sections.get("train"))
        yield from encoder_conflicts(path, judge, sections.get("generator"))
    if method is not None:
        yield from latent_conflicts(method.judges_latents, judges)
        yield from reuse_conflicts(method, sections.get("train"))
        yield from group_conflicts(method, sampling, sections.get("train"))
        yield from decoder_conflicts(method, sections.get("train"))
        yield from matching_conflicts(method, sampling, sections.get("train"), rewards)
        yield from regression_conflicts(method, sections.get("train"))
    if "rewards" in sections:
        yield from estimate_conflicts(rewards, sections.get("train"))
    yield from identity_conflicts(judges)
    if evaluation is not None and evaluation.primary is not None and "rewards" in sections:
        labels = [judge.label for _, judge in judges if judge.scores_alone]
        if fault := primary_fault(evaluation.primary, labels, evaluation.seeds):
            yield Conflict(("evaluation", "primary"), evaluation.primary, fault)


def identity_conflicts(judges: Sequence[JudgeAt]) -> Iterator[Conflict]:
    """Check that all judges have different names, and that no held-out judge is trained on."""
    trained_on = {judge.identity for _, judge in judges if isinstance(judge, RewardSection)}
    seen: dict[str, tuple[str | int, ...]] = {}
    for path, judge in judges:
        if judge.label in seen:
            first = ".".join(map(str, seen[judge.label]))
            yield Conflict(
                (*path, "name"),
                judge.label,
                f"{first} has the same name; give each judge its own `name`",
            )
        seen.setdefault(judge.label, path)
        if isinstance(judge, HeldOutSection) and judge.identity in trained_on:
            fields = type(judge).model_fields
            key = next((key for key in ("checkpoint", "url", "command") if key in fields), "kind")
            yield Conflict(
                (*path, key),
                judge.identity,
                "is trained on under rewards, so it cannot distinguish improvement from reward "
                f"hacking; choose another {key}",
            )


def sampling_conflicts(
    sampling: SamplingSection, train: TrainSection | None, evaluation: EvaluationSection | None
) -> Iterator[Conflict]:
    """Check the values of the sampling section against each other and other sections."""
    latents = FAMILY.latent_frames(sampling.frames)
    if sampling.steps_run < 1:
        yield Conflict(
            ("sampling", "strength"),
            sampling.strength,
            f"leaves less than one of sampling.steps = {sampling.steps}",
        )
    if train is not None:
        yield from clip_conflicts(train)
    if train is not None and train.normalise_steps and train.steps_at_once > 1:
        yield Conflict(
            ("train", "steps_at_once"),
            train.steps_at_once,
            "train.normalise_steps needs each step's own gradient; set train.steps_at_once=1",
        )
    if train is not None and train.decoded != "all" and train.decoded_latents > latents:
        yield Conflict(
            ("train", "decoded_latents"),
            train.decoded_latents,
            f"a clip of sampling.frames = {sampling.frames} has {latents} latents",
        )
    if not sampling.divide_by_guidance and sampling.negative != "detached":
        yield Conflict(
            ("sampling", "divide_by_guidance"),
            False,
            f"has no effect with sampling.negative: {sampling.negative}; leave it out",
        )
    yield from interval_conflicts(sampling, evaluation)
    if sampling.guidance_range is None:
        return
    low, high = sampling.guidance_range
    where = ("sampling", "guidance_range")
    if not 1.0 <= low <= high:
        yield Conflict(where, [low, high], "needed is 1 <= lowest <= highest")
    elif sampling.negative == "none":
        yield Conflict(
            where, [low, high], "sampling.negative is none: training runs without guidance"
        )


def interval_conflicts(
    sampling: SamplingSection, evaluation: EvaluationSection | None
) -> Iterator[Conflict]:
    """Check that the intervals of guidance have guidance to limit."""
    of_evaluation = None if evaluation is None else evaluation.guidance_steps
    highest = sampling.guidance_scale
    if sampling.guidance_range is not None:
        highest = max(highest, *sampling.guidance_range)
    if sampling.guidance_steps is not None:
        where, value = ("sampling", "guidance_steps"), list(sampling.guidance_steps)
        if sampling.negative == "none":
            yield Conflict(
                where,
                value,
                "has no effect: sampling.negative is none, so training runs without guidance; "
                "leave it out",
            )
        elif highest == 1.0:
            yield Conflict(where, value, NOT_GUIDED)
    if of_evaluation is not None and sampling.guidance_scale == 1.0:
        yield Conflict(
            ("evaluation", "guidance_steps"),
            list(of_evaluation),
            NOT_GUIDED,
        )


def rollout_conflicts(
    rollout: RolloutSection | None, generator: GeneratorSection | None
) -> Iterator[Conflict]:
    """Check the values of the rollout section against each other and against the weights."""
    if rollout is None:
        return
    if rollout.dtype and generator is not None and generator.dtype != "float32":
        yield Conflict(
            ("rollout", "dtype"),
            rollout.dtype,
            f"the weights are {generator.dtype} already (generator.dtype); leave it null",
        )


def activation_conflicts(
    train: TrainSection | None, generator: GeneratorSection | None
) -> Iterator[Conflict]:
    """Check that there are checkpoints whose inputs can be offloaded."""
    if train is None or generator is None or not train.offload_activations:
        return
    if not (train.gradient_checkpointing or MODES[generator.memory].blocks_rest):
        yield Conflict(
            ("train", "offload_activations"),
            True,
            "needs train.gradient_checkpointing=true: only the inputs of checkpointed blocks are "
            "offloaded",
        )


def compile_conflicts(
    train: TrainSection | None,
    caches: Mapping[str, RolloutSection | EvaluationSection | None],
    generator: GeneratorSection | None,
) -> Iterator[Conflict]:
    """Check that nothing changes within the blocks that are compiled.

    Args:
        train: The section that compiles.
        caches: The sections with a cache of steps, by name.
        generator: The section that says how the weights are stored.
    """
    if train is None or not train.compile:
        return
    where = ("train", "compile")
    for name, section in caches.items():
        if section is not None and section.cache is not None and not section.cache.COMPILES:
            yield Conflict(
                where,
                True,
                f"cannot be combined with {name}.cache={section.cache.kind}, which changes from "
                "step to step what runs; use taylor, or choose one of them",
            )
    mode = MODES["resident" if generator is None else generator.memory]
    if generator is not None and (mode.blocks_rest or mode.blocks_shared):
        yield Conflict(
            where,
            True,
            f"cannot be combined with generator.memory={generator.memory}, which moves weights "
            "inside the forward pass; choose one of them",
        )
    if generator is not None and generator.quantise is not None:
        yield Conflict(
            where,
            True,
            "cannot be combined with generator.quantise, whose unpacking is not compiled",
        )


def adapter_conflicts(
    generator: GeneratorSection | None,
    evaluation: EvaluationSection | None,
    train: TrainSection | None,
) -> Iterator[Conflict]:
    """Check what is measured without the LoRA that the training runs on."""
    if generator is None or evaluation is None or evaluation.adapter:
        return
    if generator.adapter is None:
        text = "there is no generator.adapter to go without; leave it out"
        yield Conflict(("evaluation", "adapter"), False, text)
    elif train is not None and train.replay is not None:
        yield Conflict(
            ("train", "replay"),
            train.replay.source,
            "its loss would be on the generator with generator.adapter, its clips those of the "
            "one without (evaluation.adapter: false); leave it out",
        )


def decoder_conflicts(method: Method, train: TrainSection | None) -> Iterator[Conflict]:
    """Check that the keys of the small decoder have an effect."""
    if train is None:
        return
    if train.decoder != "vae" and method.judges_latents:
        text = "the method judges noisy latents and decodes nothing in training; leave it out"
        yield Conflict(("train", "decoder"), train.decoder, text)
    if train.true_decoder_every is not None and train.decoder == "vae":
        yield Conflict(
            ("train", "true_decoder_every"),
            train.true_decoder_every,
            "every step decodes with the VAE; set train.decoder=small, or leave it out",
        )
    if train.small_decoder is not None and train.decoder == train.sample_decoder == "vae":
        yield Conflict(
            ("train", "small_decoder"),
            train.small_decoder,
            "nothing uses it; set train.decoder=small or train.sample_decoder=small",
        )


def clip_conflicts(train: TrainSection) -> Iterator[Conflict]:
    """Check the keys about several clips of one prompt."""
    if train.batch_size % train.clips_per_prompt:
        yield Conflict(
            ("train", "clips_per_prompt"),
            train.clips_per_prompt,
            f"train.batch_size = {train.batch_size} is not a multiple of it",
        )
    if train.repulsion and train.clips_per_prompt == 1:
        yield Conflict(
            ("train", "repulsion"), train.repulsion, "needs train.clips_per_prompt of 2 or more"
        )


def latent_conflicts(wanted: bool, judges: Sequence[JudgeAt]) -> Iterator[Conflict]:
    """Check that judges of noisy latents come with the method that shows them some."""
    for path, judge in judges:
        latent = judge.kind == "latent"
        if isinstance(judge, HeldOutSection):
            text = (
                "a held-out judge sees decoded frames, as people do; choose another kind"
                if latent
                else None
            )
        elif wanted:
            text = None if latent else "method prfl decodes nothing; it accepts only kind latent"
        else:
            text = "judges noisy latents, which only method prfl provides" if latent else None
        if text is not None:
            yield Conflict((*path, "kind"), judge.kind, text)


def judge_conflicts(
    path: tuple[str | int, ...], judge: JudgeSection, sampling: SamplingSection | None
) -> Iterator[Conflict]:
    """Check the values of one judge against each other and against the clips it sees."""
    if isinstance(judge, RewardSection) and judge.weight == 0.0:
        text = "a judge with weight 0 has no effect; leave it out"
        yield Conflict((*path, "weight"), 0.0, text)
    most = sampling.frames if sampling is not None else None
    asked = judge.frames if isinstance(judge, FramesSection) else "all"
    if most is not None and asked != "all" and asked > most:
        yield Conflict((*path, "frames"), asked, f"a clip has {most} frames (sampling.frames)")
    drawn = judge.over_frames if isinstance(judge, EachFrameSection) else None
    if isinstance(drawn, RandomFrames):
        yield from drawn_frames_conflicts((*path, "over_frames"), drawn, judge, asked, most)
    if isinstance(judge, QwenSection):
        yield from qwen_conflicts(path, judge)
    if isinstance(judge, TwoTowerSection) and judge.relative is not None:
        texts = judge.relative
        if texts.positive == texts.negative:
            text = "positive and negative are the same text"
            yield Conflict((*path, "relative"), texts.positive, text)


def qwen_conflicts(path: tuple[str | int, ...], judge: QwenSection) -> Iterator[Conflict]:
    """Check the sampling of frames of a judge on Qwen2-VL."""
    if judge.count is not None and judge.fps is not None:
        yield Conflict(
            (*path, "fps"), judge.fps, f"cannot be combined with count={judge.count}; leave one out"
        )
    low, high = judge.min_pixels, judge.max_pixels
    if low is not None and high is not None and low > high:
        yield Conflict((*path, "min_pixels"), low, f"above max_pixels={high}")


def encoder_conflicts(
    path: tuple[str | int, ...], judge: JudgeSection, generator: GeneratorSection | None
) -> Iterator[Conflict]:
    """Check that a judge that is the generator's text encoder has the dtype of its weights."""
    if not isinstance(judge, NetworkSection) or not judge.of_generator or generator is None:
        return
    if generator.text_encoder_device is not None:
        yield Conflict(
            ("generator", "text_encoder_device"),
            generator.text_encoder_device,
            f"the judge {judge.label} has checkpoint: generator, so the text encoder is on the "
            "run's device with it; leave it out, or give the judge a folder",
        )
    if judge.device is not None:
        yield Conflict(
            (*path, "device"),
            judge.device,
            "checkpoint: generator shares the text encoder, which is on the run's device; leave "
            "it out, or give the judge a folder",
        )
    if judge.dtype != generator.dtype:
        yield Conflict(
            (*path, "dtype"),
            judge.dtype,
            f"checkpoint: generator shares the text encoder's weights, which are "
            f"{generator.dtype} (generator.dtype); give the judge that dtype",
        )


def too_few_frames(
    path: tuple[str | int, ...],
    judge: JudgeSection,
    sampling: SamplingSection | None,
    train: TrainSection | None,
) -> Iterator[Conflict]:
    """Check that a judge that compares frames sees enough of them, in every step of training.

    A window of decoded latents may begin with the first one, which is a single frame. A judge whose
    gradient is estimated sees whole clips.
    """
    if not isinstance(judge, FramesSection):
        return
    whole = isinstance(judge, FrameRewardSection) and judge.estimated
    least = judge.least_frames
    needs = f"a judge of kind {judge.kind} compares frames and needs at least {least} of a clip"
    if judge.frames != "all" and judge.frames < least:
        yield Conflict((*path, "frames"), judge.frames, f"{needs}; give more, or all")
    if sampling is not None and sampling.frames < least:
        yield Conflict((*path, "kind"), judge.kind, f"{needs}; sampling.frames={sampling.frames}")
    elif (
        isinstance(judge, RewardSection)
        and not whole
        and train is not None
        and train.decoded != "all"
    ):
        shown = FAMILY.time_stride * (train.decoded_latents - 1) + 1
        if shown < least:
            yield Conflict(
                (*path, "kind"),
                judge.kind,
                f"{needs}; train.decoded={train.decoded} with train.decoded_latents="
                f"{train.decoded_latents} may show it only {shown}; set train.decoded=all, or more "
                "latents",
            )


def drawn_frames_conflicts(
    path: tuple[str | int, ...],
    drawn: RandomFrames,
    judge: JudgeSection,
    asked: int | Literal["all"],
    most: int | None,
) -> Iterator[Conflict]:
    """Check frames that are drawn at random: only in training, and not more than are judged."""
    if isinstance(judge, HeldOutSection):
        yield Conflict(
            (*path, "kind"),
            "random",
            "only in training; the evaluation judges the same frames each time",
        )
    judged = most if asked == "all" else asked
    if judged is not None and drawn.count > judged:
        yield Conflict((*path, "count"), drawn.count, f"the judge sees {judged} frames")


class Recipe(Section):
    """Every value that a run depends on."""

    seed: NotNegative = Field(default=0, description="Seed of every random draw")
    output: FileName = Field(description="The run folder")
    tracking: Tracking
    generator: GeneratorSection
    prompts: PromptsSection
    sampling: SamplingSection = Field(default_factory=SamplingSection)
    rollout: RolloutSection = Field(default_factory=RolloutSection)
    method: Method
    rewards: list[TrainingReward] = Field(min_length=1, description="One judge or more")
    lora: LoraSection = Field(default_factory=LoraSection)
    train: TrainSection
    guards: GuardsSection = Field(default_factory=GuardsSection)
    evaluation: EvaluationSection = Field(default_factory=EvaluationSection)

    @model_validator(mode="after")
    def _sections_agree(self) -> "Recipe":
        sections = {name: getattr(self, name) for name in type(self).model_fields}
        found = [
            InitErrorDetails(
                type=PydanticCustomError("conflict", "{text}", {"text": conflict.text}),
                loc=conflict.path,
                input=conflict.value,
            )
            for conflict in conflicts(sections)
        ]
        if found:
            raise ValidationError.from_exception_data("Recipe", found)
        return self
