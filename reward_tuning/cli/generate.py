"""`reward-tuning generate`: clips from prompts and conditions."""

from collections.abc import Sequence
from pathlib import Path

from reward_tuning.cli.draw import draw
from reward_tuning.cli.generate_options import (
    ConditionOptions,
    CostOptions,
    ModelOptions,
    OutputOptions,
    PromptOptions,
    SamplingOptions,
)
from reward_tuning.cli.option_sections import takes_sections
from reward_tuning.cli.request import Request, requested_prompts, strength_or_default
from reward_tuning.errors import TuningError
from reward_tuning.files.clip_names import (
    CLIP_LIST,
    PREVIEWS,
    clip_paths,
    is_clip_file,
    preview_path,
    refuse_existing,
)


@takes_sections
def generate(
    target: OutputOptions,
    model: ModelOptions,
    texts: PromptOptions,
    sampling: SamplingOptions,
    conditions: ConditionOptions,
    cost: CostOptions,
) -> None:
    """Generate clips from prompts and conditions; write mp4, gif or png files.

    Pictures and clips are scaled to cover the frame, then cropped around the centre.
    A longer video is cut to its first frames.
    """
    # every refusal that needs no weights comes before `draw` loads them
    loras = _loras(model.lora or [], model.lora_scale or [])
    prompts = requested_prompts(texts, sampling.negative_prompt, conditions.files())
    strengths = [strength_or_default(conditions.strength, one.files) for one in prompts]
    for one, strength in zip(prompts, strengths, strict=True):
        one.files.check(strength)
    output = target.output
    paths = clip_paths(output, len(prompts), target.formats or ["mp4"])
    if not target.overwrite:
        refuse_existing(_written(output, paths, conditions.previews))
    draw(
        Request(
            checkpoint=model.checkpoint,
            loras=loras,
            prompts=prompts,
            strengths=strengths,
            paths=paths,
            about=None if is_clip_file(output) else output / CLIP_LIST,
            previews=conditions.previews,
            sampling=sampling,
            cost=cost,
            lora_schedule=model.lora_schedule,
        )
    )


def _loras(paths: Sequence[Path], scales: Sequence[float]) -> tuple[tuple[Path, float], ...]:
    """Pair each adapter with its scale; refuse options that do not pair up."""
    if scales and not paths:
        raise TuningError(f"--lora-scale {scales[0]:g} is for --lora, which is not given")
    if scales and len(scales) != len(paths):
        raise TuningError(
            f"--lora is given {len(paths)} times and --lora-scale {len(scales)} times; give one "
            "scale for each LoRA, in the same order. All clips of a call use the same scales; "
            "call again for others"
        )
    if not paths:
        return ()
    from reward_tuning.evidence.adapters import adapter_path

    return tuple(zip(map(adapter_path, paths), scales or [1.0] * len(paths), strict=True))


def _written(output: Path, paths: Sequence[Sequence[Path]], previews: bool) -> list[Path]:
    """List every file that the command may write."""
    every = [path for of_clip in paths for path in of_clip]
    if previews:
        every += [preview_path(of_clip[0], name) for of_clip in paths for name in PREVIEWS]
    return every if is_clip_file(output) else [*every, output / CLIP_LIST]
