"""The sections of a recipe: each key with its type, its range and what it means.

A misspelt key is refused, never ignored; a switch is no number and a text is no number, so that no
slip of a file trains something else in silence.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, Strict

TIME_STRIDE = 4  # the VAE packs 4 frames into one latent, after a first frame of its own
MOST_NAME_BYTES, MOST_PATH_BYTES = 255, 4095  # of Linux; others take no more
SPACE_STRIDE = 16  # 8 of the VAE times 2 of the transformer's patches

Dtype = Literal["float32", "bfloat16", "float16"]
JudgeKind = Literal["hps", "clip", "aesthetic", "latent"]
LoraPreset = Literal["attention", "attention+mlp", "all-linear"]
LORA_PRESETS: tuple[LoraPreset, ...] = ("attention", "attention+mlp", "all-linear")


def _clip_length(frames: int) -> int:
    if frames % TIME_STRIDE == 1:
        return frames
    below = max(frames - (frames - 1) % TIME_STRIDE, 1)
    raise ValueError(
        f"must be 4k + 1 (1, 5, 9, 13, ...), for the VAE packs four frames into one latent; "
        f"nearest: {below} or {below + TIME_STRIDE}"
    )


def _side(pixels: int) -> int:
    if pixels % SPACE_STRIDE == 0:
        return pixels
    below = pixels // SPACE_STRIDE * SPACE_STRIDE
    nearest = f"{below} or {below + SPACE_STRIDE}" if below else f"{SPACE_STRIDE}"
    raise ValueError(
        f"must be a multiple of {SPACE_STRIDE} (8 of the VAE times 2 of the patches); "
        f"nearest: {nearest}"
    )


def _judged(value: Any) -> Any:
    if value == "all" or (type(value) is int and value >= 1):
        return value
    raise ValueError("allowed: all, or a number of frames from 1 up")


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


def file_name_fault(text: str) -> str | None:
    """Why no file can have this name, or None: such names end in errors of the operating system."""
    if "\0" in text:
        return "no name of a file holds a NUL character"
    longest = max(len(part.encode()) for part in text.split("/"))
    if longest > MOST_NAME_BYTES or len(text.encode()) > MOST_PATH_BYTES:
        return (
            f"too long for a file: {longest} bytes between two slashes (most are "
            f"{MOST_NAME_BYTES}), {len(text.encode())} in all (most are {MOST_PATH_BYTES})"
        )
    return None


def _file_name(text: str) -> str:
    fault = file_name_fault(text)
    if fault:
        raise ValueError(fault)
    return text


def _template(text: str) -> str:
    if "{prompt}" not in text:
        raise ValueError(
            'write {prompt} where the prompt goes, such as "a clean picture: {prompt}"'
        )
    return text


Frames = Annotated[int, Field(ge=1), AfterValidator(_clip_length)]
Side = Annotated[int, Field(ge=SPACE_STRIDE), AfterValidator(_side)]
Positive = Annotated[int, Field(ge=1)]
NotNegative = Annotated[int, Field(ge=0)]
Text = Annotated[str, Field(min_length=1)]
FileName = Annotated[Text, AfterValidator(_file_name)]


class Section(BaseModel):
    """Frozen, strict, without unknown keys, without NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class GeneratorSection(Section):
    """Which video generator is tuned, and in which precision its frozen weights stay."""

    checkpoint: FileName = Field(
        description="A shipped name (tiny), a folder, or a hub id; original or diffusers layout"
    )
    dtype: Dtype = Field(
        default="float32", description="Of the frozen weights; the adapter stays float32"
    )


class PromptsSection(Section):
    """The prompt files: txt, jsonl or csv (see `reward_tuning.prompts`)."""

    train: FileName = Field(description="Prompts to train on")
    held_out: FileName = Field(description="Prompts that only the evaluation sees")


class SamplingSection(Section):
    """How a clip is drawn from noise: the same while training and in the evaluation."""

    steps: Positive = Field(default=25, description="Euler steps of the flow, N")
    shift: float = Field(
        default=1.0,
        ge=-3.0,
        le=3.0,
        description="mu of the training rollout's table: more spends more of the steps at high "
        "noise. Samples and the evaluation keep the published 1",
    )
    guidance_scale: float = Field(
        default=6.0, ge=1.0, description="Classifier-free guidance; 1 = no guidance"
    )
    guidance_range: Annotated[tuple[float, float] | None, Strict(False)] = Field(
        default=None,
        description="Lowest and highest scale that training draws from, uniformly, one for each "
        "batch, so that the adapter serves more than one; null = always guidance_scale. The "
        "evaluation takes guidance_scale",
    )
    guidance_rescale: float = Field(
        default=0.0,
        ge=0.0,
        le=1.0,
        description="Share of the guided velocity that gets the contrast of the positive branch "
        "back (arXiv 2305.08891); 0 = off",
    )
    strength: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Share of the steps that is run, from the prompt's noised video on; below 1 "
        "every prompt needs a `video`. 1 = from noise",
    )
    frames: Frames = Field(default=49, description="Frames of a clip, 4k + 1")
    height: Side = Field(default=256, description="Pixels, a multiple of 16")
    width: Side = Field(default=256, description="Pixels, a multiple of 16")
    negative_prompt: str = Field(default="", description="Text of the negative guidance branch")
    negative: Literal["detached", "joint", "none"] = Field(
        default="detached",
        description="The negative branch in the gradient: detached (no gradient through it, loss "
        "divided by the scale), joint (gradient through both, as the published script), none "
        "(training runs without guidance)",
    )

    @property
    def steps_run(self) -> int:
        """Steps of the table that are run, as the published pipeline counts them."""
        return int(self.steps * self.strength)


class RolloutSection(Section):
    """How training computes the steps of a rollout that receive no gradient.

    The steps that the sweep runs again are always computed in full; samples and evaluation, too.
    """

    cache: float | None = Field(
        default=None,
        gt=0.0,
        description="First-block cache: where what the first block adds has changed by no more "
        "than this share since the last step computed in full, the other blocks are not run "
        "(0.05 to 0.2; diffusers 0.35 or newer); null = off",
    )
    dtype: Literal["bfloat16"] | None = Field(
        default=None,
        description="Of the matrix products (autocast) where generator.dtype is float32; the "
        "states between the steps stay float32; null = as the weights",
    )
    compile: bool = Field(
        default=False,
        description="torch.compile the transformer for these steps; needs a C++ compiler on a CPU, "
        "Triton on a GPU, and some minutes at the first step. Not with cache",
    )


Rescale = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="0 = each active step keeps its own Euler weight; 1 = the active steps "
        "together carry the weight of the whole chain",
    ),
]
SmallestStep = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="Steps shorter than this share of the median are not counted as active: the "
        "last step of the published table alone is no gradient; 0 = count every step",
    ),
]


Nested = Annotated[
    float,
    Field(
        ge=0.0,
        le=1.0,
        description="Share of the gradient that flows on through the states; 1 = exact",
    ),
]


class DraftMethod(Section):
    """DRaFT (arXiv 2309.17400): gradient through every step.

    As with every method, the keys are the keywords of its function in `reward_tuning.methods`.
    """

    kind: Literal["draft"]
    nested: Nested = 1.0


class DraftKMethod(Section):
    """DRaFT-K (arXiv 2309.17400): gradient through the last K steps, states included."""

    kind: Literal["draft_k"]
    active_steps: Positive = Field(description="K, the last steps that receive gradient")
    nested: Nested = 1.0
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class DraftLVMethod(Section):
    """DRaFT-LV (arXiv 2309.17400): the last step, and the end noised again n times."""

    kind: Literal["draft_lv"]
    copies: Positive = Field(default=2, description="n, fresh looks at the end")
    smallest_sigma: float = Field(
        default=0.05,
        gt=0.0,
        le=1.0,
        description="The copies are noised at least so far; the table's last sigma is next to none",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class AlignPropMethod(Section):
    """AlignProp (arXiv 2310.03739): DRaFT-K with K drawn anew for each update."""

    kind: Literal["alignprop"]
    truncation: Literal["uniform", "gaussian"] = Field(
        default="uniform",
        description="K from 1 to all alike, or a cut-off around 0.84 of the steps",
    )
    nested: Nested = 1.0
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class DRTuneMethod(Section):
    """DRTune (arXiv 2405.00760): spaced steps, gradient stopped at the denoiser's input."""

    kind: Literal["drtune"]
    active_steps: Positive = Field(description="K, evenly spaced steps that receive gradient")
    early_stop: bool = Field(
        default=True,
        description="true = the reward reads the posterior mean at a stop drawn anew each time; "
        "false = it reads the true end of the chain",
    )
    stop_range: float = Field(
        default=0.4,
        gt=0.0,
        lt=1.0,
        description="An early stop lies in this last share of the steps",
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class ReFLMethod(Section):
    """ReFL (arXiv 2304.05977): one late step, the reward on its posterior mean."""

    kind: Literal["refl"]
    stop_range: float = Field(
        default=0.25,
        gt=0.0,
        le=1.0,
        description="The step lies in this last share of the steps",
    )


class FlowBPSparseMethod(Section):
    """FlowBP-Sparse (arXiv 2606.11075): random steps, late ones likelier, inputs detached."""

    kind: Literal["flowbp_sparse"]
    active_steps: Positive = Field(description="K, steps drawn for each update")
    lateness: float = Field(
        default=2.0, ge=0.0, description="Step i is drawn with weight (i + 1) ** lateness"
    )
    rescale: Rescale = 1.0
    smallest_step: SmallestStep = 0.25


class FlowBPBridgeMethod(Section):
    """FlowBP-Bridge (arXiv 2606.11075): sparse steps, gradient through the input of one."""

    kind: Literal["flowbp_bridge"]
    active_steps: Annotated[int, Field(ge=2)] = Field(
        default=5, description="K, the bridge and steps on both sides"
    )
    nested: Nested = 0.1
    lateness: float = Field(
        default=2.0,
        ge=0.0,
        description="On each side step m is drawn with weight m ** lateness",
    )
    rescale: Rescale = 0.0
    smallest_step: SmallestStep = 0.25


class LeapAlignMethod(Section):
    """LeapAlign (arXiv 2604.15311): two leaps over the chain, some gradient between them."""

    kind: Literal["leapalign"]
    nested: Nested = 0.3
    leap_floor: float | None = Field(
        default=0.1,
        gt=0.0,
        description="tau: clips whose leaps stay near the rollout weigh more, up to 1 / (2 tau); "
        "null = all alike",
    )


class DirectAlignMethod(Section):
    """Direct-Align of SRPO (arXiv 2509.06942): noise the end, one model call, known noise off."""

    kind: Literal["direct_align"]
    stride: float = Field(
        default=0.1, gt=0.0, le=1.0, description="How far the one call goes, in sigma"
    )
    sigma_range: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.2, 0.95), description="Where it starts, drawn uniformly; within (0, 1)"
    )
    discount: bool = Field(
        default=True,
        description="Late steps, where rewards are hacked, count less: 3 s' / (1 + 2 s')",
    )


class PRFLMethod(Section):
    """PRFL (arXiv 2511.21541): rewards of kind latent judge a noisy state; nothing is decoded."""

    kind: Literal["prfl"]
    step_range: Annotated[tuple[float, float], Strict(False)] = Field(
        default=(0.0, 1.0),
        description="Part of the steps that the trained one is drawn from: 0 the first, 1 the last",
    )


class EasyAnimateMethod(Section):
    """EasyAnimate's published reward script: its strategies, without rescale."""

    kind: Literal["easyanimate"]
    strategy: Literal["last", "tail", "uniform", "random"] = Field(
        default="tail", description="Its --backprop_strategy"
    )
    active_steps: Positive = Field(default=10, description="Its --backprop_num_steps")
    first_step: NotNegative = Field(default=0, description="Its --backprop_random_start_step")
    last_step: NotNegative | None = Field(
        default=None, description="Its --backprop_random_end_step, included; null = the last"
    )
    stop_input_gradient: bool = Field(
        default=False, description="Its --stop_latent_model_input_gradient"
    )


Method = Annotated[
    DraftMethod
    | DraftKMethod
    | DraftLVMethod
    | AlignPropMethod
    | DRTuneMethod
    | ReFLMethod
    | LeapAlignMethod
    | FlowBPSparseMethod
    | FlowBPBridgeMethod
    | DirectAlignMethod
    | PRFLMethod
    | EasyAnimateMethod,
    Field(discriminator="kind"),
]


class Judge(Section):
    """One frozen judge, as a training reward and a held-out reward both name it."""

    kind: JudgeKind = Field(
        description="hps, clip or aesthetic; latent (of noisy latents) with method prfl only"
    )
    checkpoint: FileName = Field(
        description="A shipped name (tiny/hps.safetensors), a file, a published name (hps-v2.1) or "
        "a hub id with its file (owner/name/file)"
    )
    architecture: Text | None = Field(
        default=None,
        description="open_clip's model name, for a file that does not say; null = it says",
    )
    tower: FileName | None = Field(
        default=None,
        description="aesthetic only: the CLIP under the head; null = as the head's file says",
    )
    name: Text | None = Field(
        default=None, description="Name in metrics and tables; null = made of kind"
    )
    frames: Annotated[Literal["all"] | int, BeforeValidator(_judged)] = Field(
        default="all",
        description="How many frames are judged: all, or n spread evenly over the clip (1 = the "
        "first frame)",
    )
    chunk: Positive | None = Field(
        default=None,
        description="Frames judged at a time, to save memory (exact); null = all at once",
    )
    dtype: Dtype = Field(
        default="float32", description="Of the judge's towers; scores stay float32"
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute each block of the judge in the backward pass to save memory",
    )

    @property
    def label(self) -> str:
        """Name in metrics and tables."""
        return self.name or self.kind

    def judged_frames(self, frames: int) -> list[int]:
        """Return the positions of the judged frames in a clip of so many frames.

        Args:
            frames: Frames of the clip, at least as many as this judge asks for.

        Returns:
            Increasing positions in [0, frames), first and last included where two or more are
            judged.
        """
        every = tuple(range(frames))
        return list(every if self.frames == "all" else spread(self.frames, every))


def spread(count: int, frames: tuple[int, ...]) -> tuple[int, ...]:
    """`count` of these frames, evenly; from two on the first and the last are among them."""
    if count >= len(frames):
        return frames
    if count == 1:
        return frames[:1]
    # (a * b + c // 2) // c rounds to the nearest whole number without floating point
    last, gaps = len(frames) - 1, count - 1
    return tuple(frames[(i * last + gaps // 2) // gaps] for i in range(count))


class RelativeSection(Section):
    """SRPO's semantic-relative preference: (1 + k) cos(frame, positive) - cos(frame, negative)."""

    positive: Annotated[str, AfterValidator(_template)] = Field(
        description='What is wanted, with a place for the prompt: "a clean picture: {prompt}"'
    )
    negative: Annotated[str, AfterValidator(_template)] = Field(
        description='What is not wanted: "a distorted picture: {prompt}"'
    )
    k: float = Field(default=0.0, ge=0.0, description="Extra weight of the positive text")


class AugmentationSection(Section):
    """Random changes of the frames that a judge sees in training, one draw a clip."""

    crop: float = Field(
        default=0.0, ge=0.0, lt=1.0, description="Largest share of each side that is cut off"
    )
    flip: bool = Field(
        default=False,
        description="Mirror half of the clips; not where prompts say left or right",
    )
    noise: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Largest standard deviation of white noise"
    )


class RewardSection(Judge):
    """One judge whose score is raised."""

    weight: float = Field(default=1.0, description="Factor of this judge's loss; not 0")
    target: float | None = Field(
        default=None,
        description="Hinge: at a score of target or above this judge gives no gradient; "
        "null = no upper end",
    )
    unit: float = Field(
        default=1.0,
        gt=0.0,
        description="The loss counts scores in this unit, such as the spread of the base's clips, "
        "so that the weights of several judges can be compared",
    )
    augmentation: AugmentationSection | None = Field(
        default=None,
        description="Crop, mirror or noise what the judge sees in training; null = as it is",
    )
    flatten: float = Field(
        default=0.0,
        ge=0.0,
        le=0.5,
        description="Train on the worst score within this distance (root mean square of a pixel "
        "in [0, 1]), so that sharp peaks of the judge do not pay; one more pass of it; 0 = off",
    )
    relative: RelativeSection | None = Field(
        default=None,
        description="hps and clip only: judge one text against another, so that the judge's own "
        "tastes fall out; null = the prompt alone",
    )


class HeldOutSection(Judge):
    """One judge that only the evaluation asks; nothing is trained on it."""

    @property
    def label(self) -> str:
        """Name in metrics and tables."""
        return self.name or f"{self.kind}_held_out"


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


Beta = Annotated[float, Field(ge=0.0, lt=1.0)]


class ReplaySection(Section):
    """Flow-matching steps on clips that are known to be good, beside the reward's gradient."""

    weight: float = Field(
        ge=0.0,
        description="Of the flow-matching loss in an update, around 1 for the base's clips; 0 only "
        "measures it",
    )
    source: FileName = Field(
        default="base",
        description="base = clips that the base samples as the run begins; or a .jsonl file with a "
        '{"prompt": ..., "video": path} a line, of clips with the frames and size of `sampling`',
    )
    clips: Positive = Field(
        default=32,
        description="How many the base samples, of the first training prompts; of a file all count",
    )
    every: Positive = Field(
        default=1, description="Updates from one with it to the next; 1 = every one"
    )


class TrainSection(Section):
    """The optimiser and the loop."""

    steps: Positive = Field(description="Optimiser steps")
    batch_size: Positive = Field(description="Prompts a device rolls out at a time")
    gradient_accumulation: Positive = Field(default=1, description="Batches an optimiser step")
    active_sets: Positive = Field(
        default=1,
        description="Plans drawn for each rollout: one rollout and one reward gradient, swept with "
        "the mean of so many sets of active steps. Only for methods that read the end",
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
        description="How far a restart noises the end; the table's nearest sigma is taken",
    )
    learning_rate: float = Field(
        default=1e-4, gt=0.0, description="AdamW, constant after the warm-up"
    )
    warmup_steps: NotNegative = Field(default=0, description="Steps of linear warm-up from 0")
    weight_decay: float = Field(default=0.0, ge=0.0, description="AdamW's decoupled weight decay")
    betas: Annotated[tuple[Beta, Beta], Strict(False)] = Field(
        default=(0.9, 0.999), description="AdamW's decay rates of the two moments"
    )
    adam_eps: float = Field(
        default=1e-10,
        gt=0.0,
        description="AdamW's eps; reward gradients are small, so far below 1e-8",
    )
    max_grad_norm: float | None = Field(
        default=1.0,
        gt=0.0,
        description="Clip the norm of the whole gradient to this; null = no clipping",
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
    decoded: Literal["all", "first", "random-window", "stratified"] = Field(
        default="all",
        description="What of a clip is decoded and judged in training: all, its first latents (as "
        "the published script; costs motion), a window at a random place, or one random latent of "
        "each part of the clip",
    )
    decoded_latents: Positive = Field(
        default=1, description="Latents (4 frames each, the first 1) of `decoded`; all ignores it"
    )
    clips_per_prompt: Positive = Field(
        default=1, description="Clips of one prompt, each from a noise of its own, side by side"
    )
    motion: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of a term that rewards motion; flicker, noise and brightness do not "
        "feed it. Judges of single frames like a still; 0 = off",
    )
    motion_target: float | None = Field(
        default=None,
        gt=0.0,
        description="Motion from which on that term gives no gradient, such as the base's; "
        "null = no upper end",
    )
    repulsion: float = Field(
        default=0.0,
        ge=0.0,
        description="Weight of the likeness (cosine of a judge's image features) of clips of one "
        "prompt, to be brought down; needs clips_per_prompt of 2 or more; 0 = off",
    )
    merge: Literal["sum", "pcgrad"] = Field(
        default="sum",
        description="How the gradients of several judges become one: their sum, or pcgrad (arXiv "
        "2001.06782), which takes from each, clip by clip, what runs against another",
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
        description="Weight of the squared distance of the velocity to the base's; 0 = off",
    )
    replay: ReplaySection | None = Field(
        default=None,
        description="Flow-matching steps on good clips against over-optimisation; null = off",
    )
    gradient_checkpointing: bool = Field(
        default=False,
        description="Recompute each transformer block in the backward pass to save memory",
    )
    decoder_checkpointing: bool = Field(
        default=True,
        description="Recompute each latent of the decoder in the backward pass, so that memory "
        "does not grow with what is decoded; false is faster where it fits",
    )
    offload_judges: bool = Field(
        default=False,
        description="The judges lie in the CPU's memory except while the reward is differentiated "
        "or the evaluation scores: less memory in rollout and sweep, one copy to the device a "
        "batch; without effect on the CPU",
    )
    offload_vae: bool = Field(default=False, description="The same for the VAE")
    checkpoint_every: Positive = Field(default=50, description="Steps between two checkpoints")
    keep_checkpoints: Positive = Field(
        default=3, description="Older checkpoints than so many are deleted"
    )
    max_bad_steps: Positive = Field(
        default=5, description="Stop after so many steps in a row with NaN or infinity"
    )
    log_every: Positive = Field(default=1, description="Steps between two lines of metrics.jsonl")
    sample_every: NotNegative = Field(
        default=0, description="Steps between two sets of sample clips; 0 = before and after only"
    )


class EvaluationSection(Section):
    """Base against tuned, on held-out prompts, with the same noise for both."""

    prompts: Positive = Field(
        default=32, description="Held-out prompts to evaluate on, from the first on"
    )
    seeds: Positive = Field(default=1, description="Clips a prompt and a side")
    steps: Positive | None = Field(default=None, description="Euler steps; null = sampling.steps")
    batch_size: Positive | None = Field(
        default=None, description="Clips sampled at a time; null = train.batch_size"
    )
    held_out_rewards: list[HeldOutSection] = Field(
        default_factory=list, description="Judges that are never trained on"
    )
