"""Sections of a recipe other than methods and judges: each key with its range and meaning."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, Strict, model_validator

from base_model.memory.modes import MODES_HELP, Memory
from reward_tuning.schema.cache_kinds import CacheChoice
from reward_tuning.schema.judge_roles import HeldOutReward
from reward_tuning.schema.loop_section import LoopSection
from reward_tuning.schema.values import (
    ALLOWED_INTERVAL,
    DeviceName,
    Dtype,
    FileName,
    Frames,
    Side,
    Text,
    is_interval,
)
from reward_tuning.section import NotNegative, Positive, Section

LoraPreset = Literal["attention", "attention+mlp", "all-linear"]
LORA_PRESETS: tuple[LoraPreset, ...] = ("attention", "attention+mlp", "all-linear")


def _count_or_auto(value: Any) -> Any:
    if value == "auto" or (type(value) is int and value >= 0):
        return value
    raise ValueError("allowed: auto, or a number of steps from 0 up")


def _segments_or_not(value: Any) -> Any:
    if value == "segments" or type(value) is bool:
        return value
    raise ValueError("allowed: true, false, or segments")


def _targets(value: Any) -> Any:
    if isinstance(value, str):
        if value in LORA_PRESETS:
            return value
    elif (
        isinstance(value, list | tuple)
        and value
        and all(isinstance(path, str) and path for path in value)
    ):
        return tuple(value)
    raise ValueError(
        f"allowed: a preset ({', '.join(LORA_PRESETS)}) or a list of module path endings, "
        "such as [attn1.to_q, attn1.to_v]"
    )


def _strengths(value: tuple[float, ...]) -> tuple[float, ...]:
    if 0.0 in value or 1.0 in value or len({*value}) != len(value):
        raise ValueError("allowed: each strength once, without 0 and 1, which always are evaluated")
    return value


def _interval(value: tuple[float, float]) -> tuple[float, float]:
    if not is_interval(value):
        raise ValueError(f"allowed: {ALLOWED_INTERVAL}, such as [0.2, 0.9]")
    return value


Interval = Annotated[tuple[float, float], Strict(False), AfterValidator(_interval)]
Strength = Annotated[float, Field(gt=0.0, le=10.0)]


class GeneratorSection(Section):
    """The video generator to tune, and the precision of its frozen weights."""

    checkpoint: FileName = Field(
        description="A shipped name (tiny), a folder, or a hub id; original or diffusers layout"
    )
    transformer: FileName | None = Field(
        default=None,
        description="A transformer in place of the checkpoint's: a .safetensors file, its folder, "
        "or a checkpoint that has one; null = the checkpoint's",
    )
    vae: FileName | None = Field(
        default=None, description="A VAE in place of the checkpoint's, named likewise"
    )
    text_encoder: FileName | None = Field(
        default=None,
        description="A text encoder in place of the checkpoint's, named likewise; its tokenizer "
        "comes with it where it has one",
    )
    dtype: Dtype = Field(
        default="float32", description="Dtype of the frozen weights; the adapter stays float32"
    )
    vae_dtype: Dtype | None = Field(
        default=None,
        description="Dtype of the VAE in training, its samples and its evaluation; null = dtype. "
        "bfloat16 halves the time of decoding with gradient on a CPU with instructions for it "
        "(avx512_bf16); `reward-tuning evaluate` and `generate` decode in the generator's dtype",
    )
    vae_device: DeviceName | None = Field(
        default=None,
        description="Where the VAE works and stays, such as cuda:1 or cpu: latents are moved "
        "there, frames and gradients back; null = the run's device. Not for `finetune`",
    )
    memory: Memory = Field(
        default="resident",
        description=f"Where the frozen weights are. {MODES_HELP}. Moving blocks turns gradient "
        "checkpointing on. No number changes; without effect on the CPU",
    )
    quantise: Literal["int8", "nf4", "fp8", "int8-compute", "fp8-compute"] | None = Field(
        default=None,
        description="Store the linear layers of the transformer's blocks in 8 bits (int8, fp8) or "
        "4.5 (nf4) a weight; int8-compute and fp8-compute round activations and gradients, too, "
        "and compute in 8 bits. int8 and nf4 need bitsandbytes, fp8-compute a card with products "
        "in float8. null = in dtype",
    )
    text_encoder_device: DeviceName | None = Field(
        default=None,
        description="Where prompts are encoded, once and before the transformer is loaded: cpu for "
        "a card that the text encoder does not fit on (17 GB of the published ones in bfloat16), "
        "or another card (cuda:1); null = the run's device",
    )
    adapter: FileName | None = Field(
        default=None,
        description="A LoRA that stays under the trained one, unchanged: a shipped name "
        "(tiny-4-steps), a run folder, such as of `reward-tuning distil`, a LoRA's folder or file; "
        "null = none. The exported LoRA does not contain it",
    )


class PromptsSection(Section):
    """The prompt files (see `reward_tuning.inputs.prompts`)."""

    train: FileName = Field(description="Prompts to train on")
    held_out: FileName = Field(description="Prompts that only the evaluation sees")


class SamplingSection(Section):
    """Sampling of a clip from noise, in training and in the evaluation."""

    steps: Positive = Field(default=25, description="Euler steps of the flow, N")
    shift: float = Field(
        default=1.0,
        ge=-3.0,
        le=3.0,
        description="mu of the training rollout's table: larger values spend more of the steps at "
        "high noise. Samples and the evaluation keep the published 1",
    )
    guidance_scale: float = Field(
        default=6.0, ge=1.0, description="Classifier-free guidance; 1 = no guidance"
    )
    guidance_range: Annotated[tuple[float, float] | None, Strict(False)] = Field(
        default=None,
        description="Lowest and highest scale that training draws from, uniformly, one for each "
        "batch, so that the adapter serves more than one; null = always guidance_scale. The "
        "evaluation uses guidance_scale",
    )
    guidance_steps: Interval | None = Field(
        default=None,
        description="Interval of sigma, [low, high], both ends included, in which training is "
        "guided (arXiv 2404.07724); at other noise levels the positive branch runs alone, at half "
        "the cost. Samples and evaluation have a key of their own, evaluation.guidance_steps. "
        "null = all noise levels",
    )
    guidance_rescale: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="CFG rescale (arXiv 2305.08891): share of the guided velocity that gets the "
        "standard deviation of the positive branch; 0 = off",
    )
    strength: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the steps that run; below 1 they start from the prompt's noised "
        "video, so every prompt needs a `video`; 1 = from noise",
    )
    frames: Frames = Field(default=49, description="Frames of a clip, 4k + 1")
    height: Side = Field(default=256, description="Pixels, a multiple of 16")
    width: Side = Field(default=256, description="Pixels, a multiple of 16")
    negative_prompt: str = Field(default="", description="Text of the negative guidance branch")
    negative: Literal["detached", "joint", "none"] = Field(
        default="detached",
        description="The negative branch in the gradient: detached (no gradient through it; loss "
        "and method.nested divided by the scale), joint (gradient through both, as the published "
        "script), none (training runs without guidance)",
    )
    divide_by_guidance: bool = Field(
        default=True,
        description="With negative: detached, divide the loss by the guidance scale; false = the "
        "raw gradient, larger by the scale (FlowBP's cfg_grad_norm_compensate: false)",
    )

    @property
    def steps_run(self) -> int:
        """Number of steps that run, counted as in the published pipeline."""
        return int(self.steps * self.strength)


class RolloutSection(Section):
    """Computation of the steps of a training rollout that receive no gradient.

    The steps that the sweep runs again are always computed in full. Samples and evaluation have
    `evaluation.cache`.
    """

    cache: CacheChoice = Field(
        default=None,
        description="Cache of steps, which saves little with fewer than about 16: first-block "
        "(diffusers 0.35 or newer), teacache or taylor, as a name, with its number (teacache:0.08) "
        "or all its numbers ({kind: taylor, interval: 2, warm_up: 4}); a number alone is the "
        "threshold of first-block; null = off",
    )
    dtype: Literal["bfloat16"] | None = Field(
        default=None,
        description="Dtype of the matrix products (autocast) if generator.dtype is float32; the "
        "states between the steps stay float32; null = as the weights",
    )

    @model_validator(mode="before")
    @classmethod
    def _drop_former_key(cls, data: Any) -> Any:
        """Drop `compile: false`, which the recipes in older run folders list."""
        if not isinstance(data, dict) or "compile" not in data:
            return data
        if data["compile"] is not False:
            raise ValueError("the key `compile` is now train.compile; move it there")
        return {key: value for key, value in data.items() if key != "compile"}


class LoraSection(Section):
    """The adapter."""

    rank: Positive = Field(default=64, description="r of the two factors (r, in) and (out, r)")
    alpha: float = Field(
        default=64.0, gt=0.0, description="The adapter's output is scaled by alpha / rank"
    )
    targets: Annotated[LoraPreset | tuple[str, ...], BeforeValidator(_targets)] = Field(
        default="attention",
        description="attention, attention+mlp, all-linear (as the original trainer), or a list "
        "of module path endings",
    )
    init: FileName | None = Field(
        default=None,
        description="A LoRA that the adapter starts from, of the same rank, alpha and targets: a "
        "run folder (such as of `reward-tuning finetune`), a LoRA's folder or file. The evaluation "
        "compares with the base that carries it; null = it starts as the base",
    )


class ReplaySection(Section):
    """Flow-matching steps on good clips, in addition to the reward's gradient."""

    weight: float = Field(
        ge=0.0,
        description="Weight of the flow-matching loss in an update, around 1 for the base's clips; "
        "0 only measures it",
    )
    source: FileName = Field(
        default="base",
        description="base = clips that the base samples as the run begins; or a .jsonl file with a "
        '{"prompt": ..., "video": path} a line, of clips with the frames and size of `sampling`',
    )
    clips: Positive = Field(
        default=32,
        description="Number of clips that the base samples, of the first training prompts; a file "
        "is used as a whole",
    )
    every: Positive = Field(
        default=1, description="Number of updates from one replay to the next; 1 = every update"
    )


class GroupSection(Section):
    """More clips of a prompt than are trained on: rolled out and scored without gradient."""

    clips: Positive = Field(
        description="Clips of each prompt that are rolled out and scored; `train.clips_per_prompt` "
        "of them are kept"
    )
    keep: Literal["extremes", "best", "worst"] = Field(
        default="extremes",
        description="Clips that are kept: extremes = those whose scores vary most (arXiv "
        "2504.13818; of two, the best and the worst), best or worst = those of the highest or the "
        "lowest scores",
    )
    steps: Positive | None = Field(
        default=None,
        description="Euler steps of the clips that are scored; those that are kept are rolled out "
        "again with sampling.steps. Fewer are cheaper, and rank the clips less well. null = "
        "sampling.steps",
    )


class TrainSection(LoopSection):
    """The optimiser and the loop."""

    batch_size: Positive = Field(description="Prompts that a device rolls out at a time")
    offload_activations: bool = Field(
        default=False,
        description="Keep the inputs of checkpointed blocks in the CPU's memory until the backward "
        "pass needs them: 1.1 GB less on the card for each kept step and branch of the 12B at "
        "256x256 and 49 frames, for their way there and back. No number changes. Needs "
        "gradient_checkpointing",
    )
    active_sets: Positive = Field(
        default=1,
        description="Sets of active steps drawn for each rollout: they share its reward gradient, "
        "and their gradients are averaged. Worth it where the rollout costs much more than the "
        "sweep. Only for methods that draw several steps",
    )
    updates_per_rollout: Positive = Field(
        default=1,
        description="Optimiser updates for each rollout: those after the first run the sweep "
        "again with the updated adapter, on other active steps, at the rollout's states and with "
        "its reward gradient, or match its clips at other noise levels (awm, nft); neither rollout "
        "nor judges run again. `steps`, the learning rate's "
        "schedule, rows and checkpoints count rollouts",
    )
    reuse_limit: float | None = Field(
        default=0.1,
        gt=0.0,
        description="Make no further update on a rollout once a velocity has moved by more than "
        "this share of its length since; null = no limit. Without effect with "
        "updates_per_rollout: 1",
    )
    restarts: NotNegative = Field(
        default=0,
        description="Further chains from each rollout's end, noised again to restart_sigma: judged "
        "and swept as the rollout itself, at a part of its cost. Only for methods that read the "
        "end",
    )
    restart_sigma: float = Field(
        default=0.5,
        gt=0.0,
        lt=1.0,
        description="Noise level of a restart; the nearest sigma of the table is used",
    )
    adam_eps: float = Field(
        default=1e-10,
        gt=0.0,
        description="AdamW's eps; reward gradients are small, so far below 1e-8",
    )
    adjoint_limit: float | None = Field(
        default=None,
        ge=1.0,
        description="Shorten the gradient that flows through the states to this many times the "
        "length it began with, clip by clip (2 to 4 holds an exploding chain); null = exact",
    )
    normalise_steps: bool = Field(
        default=False,
        description="Every active step contributes a gradient of the same norm. The size of the "
        "reward's gradient is then lost, a hinge that is nearly reached included",
    )
    steps_at_once: Positive = Field(
        default=1,
        description="Active steps that the sweep runs in one call where the method stops the "
        "gradient at their inputs (DRTune, FlowBP-Sparse): faster on small models, at the memory "
        "of so many steps; the same gradient to rounding, but active_steps.grad_norm in the "
        "metrics is null. Not with normalise_steps",
    )
    keep_graphs: Annotated[Literal["auto"] | NotNegative, BeforeValidator(_count_or_auto)] = Field(
        default=0,
        description="Largest number of steps of a batch that keep their graph from the rollout, so "
        "that the sweep does not run them again: the same gradient to rounding in less time, at "
        "the memory of so many steps while the reward is differentiated; auto = as many as fit "
        "into keep_graphs_memory; 0 = none",
    )
    keep_graphs_memory: float = Field(
        default=1.0,
        gt=0.0,
        description="GB on each device for the graphs that keep_graphs=auto keeps; the bytes of "
        "one are measured at the start of a run",
    )
    decoded: Literal["all", "first", "random-window", "stratified"] = Field(
        default="all",
        description="Part of a clip that is decoded and judged in training: all, its first latents "
        "(as the published script; costs motion), a window at a random place, or one random latent "
        "of each part of the clip",
    )
    decoded_latents: Positive = Field(
        default=1, description="Latents (4 frames each, the first 1) of `decoded`; all ignores it"
    )
    clips_per_prompt: Positive = Field(
        default=1,
        description="Clips of one prompt, each from its own noise, side by side in a batch",
    )
    group: GroupSection | None = Field(
        default=None,
        description="Roll out and score more clips of a prompt, and train on those of the highest "
        "or lowest scores; null = train on every clip",
    )
    pairs: Positive = Field(
        default=1,
        description="Clips near each clip that a judge with gradient: paired compares it with, "
        "each a further rollout without gradient",
    )
    pair_distance: float = Field(
        default=0.5,
        gt=0.0,
        le=1.0,
        description="Share of new noise d in the start of such a clip, sqrt(1 - d^2) e + d e'",
    )
    motion: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of a term that rewards motion, insensitive to flicker, noise and "
        "brightness. Judges of single frames prefer a still; 0 = off",
    )
    motion_target: float | None = Field(
        default=None,
        gt=0.0,
        description="Motion above which that term gives no gradient, such as the base's; "
        "null = no limit",
    )
    repulsion: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of a penalty on the similarity (cosine of a judge's image features) of "
        "clips of one prompt; needs clips_per_prompt of 2 or more; 0 = off",
    )
    merge: Literal["sum", "pcgrad"] = Field(
        default="sum",
        description="How the gradients of several judges become one: their sum, or pcgrad (arXiv "
        "2001.06782), which removes from each, clip by clip, the component against another",
    )
    ema_decay: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="Moving average of the adapter, exported; null = off",
    )
    anchor: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of the squared distance of the velocity to the base's, on active steps "
        "or where clips are matched; 0 = off",
    )
    anchor_steps: Positive | None = Field(
        default=None,
        description="Number of active steps, drawn anew for each batch, on which the anchor is "
        "computed, weighted so that its mean stays the same; each of the others saves the base's "
        "velocity, both branches. null = all",
    )
    replay: ReplaySection | None = Field(
        default=None,
        description="Flow-matching steps on good clips against over-optimisation; null = off",
    )
    decoder: Literal["vae", "small", "small-gradient"] = Field(
        default="vae",
        description="The decoder of the judged frames in training: the VAE's; small, distilled "
        "from it and several times faster, with a gradient that is only roughly the VAE's; or "
        "small-gradient, which shows the VAE's frames and differentiates the small one. Evaluation "
        "and guards always decode with the VAE",
    )
    small_decoder: FileName | None = Field(
        default=None,
        description="File of the small decoder, as `reward-tuning pretrain small-decoder` writes "
        "it; null = the one in the package for this VAE, if there is one",
    )
    true_decoder_every: Annotated[int, Field(ge=2)] | None = Field(
        default=None,
        description="With a decoder other than vae, every n-th optimiser step uses the VAE's; "
        "null = none does",
    )
    sample_decoder: Literal["vae", "small"] = Field(
        default="vae",
        description="The decoder of the sample clips before and during training, which `watch` "
        "shows; those after training come from the VAE's",
    )
    decoder_checkpointing: Annotated[
        bool | Literal["segments"], BeforeValidator(_segments_or_not)
    ] = Field(
        default=True,
        description="What the VAE's decoder computes again in the backward pass, with the same "
        "gradient to the bit: true each latent frame, of which two input frames for each "
        "convolution are kept; segments most of these too, for 0.6 more forward passes of the "
        "decoder (49 frames) and half the memory; false nothing, which is faster where it fits",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile the transformer's blocks for every call of the run: rollout, "
        "sweep, samples and evaluation; the same values to rounding. Needs a C++ compiler on a "
        "CPU, Triton on a GPU, and some minutes in the first run; later ones find the code in the "
        "user's cache folder. taylor is the only cache of steps that it can be combined with",
    )


class EvaluationSection(Section):
    """Base against tuned, on held-out prompts, with the same noise for both."""

    prompts: Positive = Field(
        default=32, description="Held-out prompts to evaluate on, from the first on"
    )
    seeds: Positive = Field(default=1, description="Clips for each prompt and side")
    steps: Positive | None = Field(default=None, description="Euler steps; null = sampling.steps")
    guidance_steps: Interval | None = Field(
        default=None,
        description="Interval of sigma, [low, high], in which samples and evaluation are guided, "
        "as with `generate --guidance-steps`; null = all noise levels, as the published pipelines",
    )
    cache: CacheChoice = Field(
        default=None,
        description="Cache of steps for samples and evaluation, named as in rollout.cache; base "
        "and tuned share it, so it only changes the clips that are compared. `generate` uses "
        "taylor for the embedded generator and teacache for the published ones unless told "
        "otherwise. teacache and first-block decide for a batch of clips as a whole, taylor by a "
        "fixed plan. null = every step in full",
    )
    batch_size: Positive | None = Field(
        default=None, description="Clips sampled at a time; null = train.batch_size"
    )
    held_out_rewards: list[HeldOutReward] = Field(
        default_factory=list, description="Judges that are never trained on"
    )
    primary: Text | None = Field(
        default=None,
        description="The metric that decides whether the run helped, named beforehand: "
        "the verdicts on all others are corrected for their number; null = the first held-out "
        "judge, else the first training judge",
    )
    clips: NotNegative = Field(
        default=8, description="Clips of each side that are kept, of the first prompts"
    )
    strengths: Annotated[tuple[Strength, ...], Strict(False), AfterValidator(_strengths)] = Field(
        default=(),
        description="Further strengths of the adapter to evaluate, such as [0.5, 1.25]; 0 (the "
        "base) and 1 (tuned) always are",
    )
    strength_prompts: Annotated[int, Field(ge=2)] = Field(
        default=16, description="Prompts that these strengths are evaluated on, from the first on"
    )
    adapter: bool = Field(
        default=True,
        description="Keep `generator.adapter` on for everything that is shown or measured: sample "
        "clips, the guards and the evaluation. false = take it off for them: for a LoRA that is "
        "trained on a few-step generator and will be used without that",
    )
