"""Training of the weights in the package: the embedded generator and the embedded judges."""

from __future__ import annotations

from pathlib import Path

from reward_tuning.errors import TuningError
from reward_tuning.files.atomic_write import check_writable
from reward_tuning.progress import ProgressEvent, ProgressFn, silent

BASE = "tiny"
"""Shipped checkpoint from which the conditioned ones start; they are stored as its deltas."""

DEFAULT_OUTPUT = Path("pretrain/tiny")


def pretrain_tiny(
    *,
    only: str | None = None,
    seed: int = 0,
    output: Path | None = None,
    progress: ProgressFn = silent,
) -> Path:
    """Train the embedded weights from scratch, or continue an interrupted training.

    Args:
        only: One stage: `text`, `vae-images`, `vae-clips`, `transformer`, `transformer-shapes`,
            `generator` (writes the checkpoint); `inpaint`, `control`, `camera` (checkpoints that
            differ from the shipped `tiny`); or a judge: `clip`, `hps`, `aesthetic`,
            `clip-held-out`, `latent-clip`, `pickscore`, `siglip`, `aesthetic-v2-5`,
            `image-reward`, `mps`, `qwen-critic`, `video-align`, `hpsv3`, `vjepa2`. None runs all in
            order.
        seed: Seed of every random draw; the same seed gives the same weights on one machine.
        output: Folder for `training/` (checkpoints and logs of the stages), `generator/` (the
            checkpoint), `tiny-inpaint/` and the like (deltas of the shipped `tiny`) and `judges/`.
        progress: Callback, called every few steps.

    Returns:
        The output folder.

    Raises:
        TuningError: The stage is unknown, its predecessors have not been run, or the output folder
            holds other files.
    """
    from base_model.tiny.condition_stages import CONDITION_STAGES, ConditionTraining
    from base_model.tiny.pretraining import STAGES, TinyPretraining
    from base_model.training.loop import OtherRunError
    from reward_tuning.pretrain.judges import JUDGES, train_judge

    output = output or DEFAULT_OUTPUT
    stages = (*STAGES, "generator", *CONDITION_STAGES, *JUDGES)
    if only is not None and only not in stages:
        raise TuningError(f"pretrain: unknown stage {only!r}; allowed: {', '.join(stages)}")

    def report(stage: str, done: int, total: int, numbers: dict[str, float]) -> None:
        progress(ProgressEvent(stage, done, total, metrics=numbers))

    training = output / "training"
    if output.is_dir() and any(output.iterdir()) and not training.is_dir():
        raise TuningError(
            f"pretrain: {output} holds files but no earlier pre-training (no training/), and its "
            "generator/ and judges/ would be overwritten; choose a new or empty folder"
        )
    check_writable(output)
    training.mkdir(parents=True, exist_ok=True)  # marks the folder as a pre-training
    pretraining = TinyPretraining(training, seed=seed, report=report)
    for stage in stages if only is None else (only,):
        try:
            if stage in JUDGES:
                train_judge(stage, output / "judges", seed, report, training=training)
            elif stage == "generator":
                command = f"reward-tuning pretrain tiny --seed {seed}"
                pretraining.write_checkpoint(output / "generator", command=command)
            elif stage in CONDITION_STAGES:
                conditions = ConditionTraining(stage, training, base=BASE, seed=seed, report=report)
                command = f"reward-tuning pretrain tiny --only {stage} --seed {seed}"
                conditions.write_checkpoint(output / f"tiny-{stage}", command=command)
            else:
                pretraining.run(stage)
        except (FileNotFoundError, OtherRunError, FloatingPointError) as error:
            raise TuningError(f"pretrain {stage}: {error}") from error
    return output
