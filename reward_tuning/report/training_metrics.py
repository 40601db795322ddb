"""The numbers of metrics.jsonl, of `run`, `finetune` and `distil`, and of finetune.json."""

from __future__ import annotations

from reward_tuning.report.metric import Metric, MetricText, Place

_STEP = MetricText(
    "Optimiser steps done, with this one; skipped steps count.",
    "steps",
    "1, 2, 3, ... by `train.log_every`",
    "After a resume it goes on from the checkpoint; a gap is `log_every`",
)
_GRAD_NORM = MetricText(
    "Norm of the whole gradient of the trained weights, before clipping.",
    "same unit as loss per weight",
    "Between 0.001 and `train.max_grad_norm` in most steps; 0.01 to 0.03 in the demo",
    "Below 0.001: `method.rescale=1`, more or earlier active steps, a larger `rewards.N.weight`. "
    "Above the limit in nearly every step: raise `train.max_grad_norm`, or lower `method.nested`",
)
_RATE = MetricText(
    "Learning rate of this step, after warm-up and schedule.",
    "-",
    "Rises over `train.warmup_steps`, then follows `train.lr_schedule`",
    "Set `train.learning_rate`, `warmup_steps` or `lr_schedule`",
)
_BAD_STEPS = MetricText(
    "Steps skipped so far because loss or gradient was NaN or infinite.",
    "steps",
    "0",
    "Lower `train.learning_rate`, or take `generator.dtype` bfloat16 or float32",
    "lower",
)
_SECONDS = MetricText(
    "Time of this phase of the step.",
    "seconds",
    "Constant from the second step on; the first one also loads and compiles",
    "Rising: the machine shares its cores, or memory is swapped. `docs/generator.md` lists what "
    "makes each phase faster",
    "lower",
)
_STEP_SECONDS = MetricText(
    "Time of the whole step: the sum of its phases.",
    "seconds",
    "Constant; times `train.steps` it is the time of the training, without samples and evaluation",
    "See which phase takes it; `rollout`: `sampling.steps`; `reward`: the judges and the frames "
    "that they read; `sweep`: the active steps; `matching`: `method.draws`",
    "lower",
)
_MEMORY = MetricText(
    "Memory of this phase: the allocator's peak on a CUDA device, elsewhere the memory of the "
    "process at the end of the phase.",
    "bytes",
    "Constant, and below the device's by a tenth or more",
    "`generator.memory`, fewer frames or pixels, `train.batch_size=1` with "
    "`train.gradient_accumulation`",
    "lower",
)


def _shared(place: Place) -> tuple[Metric, ...]:
    kept = (
        ("step", _STEP),
        ("grad_norm", _GRAD_NORM),
        ("learning_rate", _RATE),
        ("bad_steps", _BAD_STEPS),
        ("seconds/step", _STEP_SECONDS),
        ("seconds/PHASE", _SECONDS),
        ("memory/PHASE", _MEMORY),
    )
    return tuple(Metric(place, *one) for one in kept)


_OF_RUN = (
    (
        "loss",
        MetricText(
            "Weighted sum of the judges' losses, over all clips of the step; for a plain reward, "
            "minus the weighted score. Before the division by the guidance scale.",
            "as the judges' scores",
            "Falls slowly, under the noise of the prompts",
            "Flat: raise `train.learning_rate`; look at `grad_norm`. Falls while a held-out judge "
            "falls: the judge is being fooled, see docs/overoptimisation.md. Exactly 0: the hinge "
            "`rewards.N.target` is reached",
            "lower",
        ),
    ),
    (
        "reward/JUDGE",
        MetricText(
            "Mean score that a judge gave to the step's clips: of other prompts in every step, so "
            "it is noisy. It is trained on, so a rise alone proves nothing.",
            "as the judge",
            "Rises slowly; stays below the score of good clips (renders, your best samples)",
            "Flat: raise `train.learning_rate` or `rewards.N.weight`. Above the score of good "
            "clips: stop earlier, add an anchor or a second judge",
            "higher",
        ),
    ),
    (
        "active_steps[].step",
        MetricText(
            "Index of an active step of the chain, from 0, the noisiest.",
            "sampler steps",
            "Those of the plan, which the run prints at its start; from `sampling.steps` on, fresh "
            "looks at the end",
            "`method` decides it",
        ),
    ),
    (
        "active_steps[].weight",
        MetricText(
            "Size of the derivative of the reward input to this step's velocity, |w|.",
            "-",
            "The fall of sigma at this step; as in the plan",
            "The noise levels decide it; `train.normalise_steps` evens the steps out",
        ),
    ),
    (
        "active_steps[].grad_norm",
        MetricText(
            "Norm of this step's own contribution to the gradient; null where one call swept "
            "several steps.",
            "as grad_norm",
            "Within a factor of ten of the other active steps; 0.001 to 0.01 in the demo",
            "One step far above the others drowns them: `train.normalise_steps`",
        ),
    ),
    (
        "active_steps[].adjoint_norm",
        MetricText(
            "Norm of the adjoint, the gradient of the reward to this step's output.",
            "loss per latent",
            "Equal at all steps where no gradient flows through the states (DRTune); with "
            "`method.nested` above 0 it may grow, by 1 to 2.2 times with the division by guidance",
            "Grows tenfold or more: the chain explodes; lower `method.nested`, or set "
            "`train.adjoint_limit`",
        ),
    ),
    (
        "active_steps[].rerun_error",
        MetricText(
            "Relative distance of the re-run step from the rollout, the largest of the batches.",
            "share of the step's length",
            "0, or the rounding of `generator.dtype`; the run stops above 0.1",
            "Above rounding: dropout is on, or an adapter has another strength in the sweep",
            "lower",
        ),
    ),
    (
        "spread/JUDGE",
        MetricText(
            "How far the scores lie apart, root mean square, that the estimate of this judge's "
            "gradient compares: of a prompt's clips with `gradient: group`, of near clips with "
            "`paired`. Of this process's clips; only for estimated judges.",
            "score",
            "Above the noise of the judge itself: what it says of the same clip twice",
            "0: there is nothing to follow; raise `train.clips_per_prompt` or "
            "`train.pair_distance`",
        ),
    ),
    (
        "rollout/steps",
        MetricText(
            "Sampler steps of the rollouts of this process.",
            "steps",
            "The stop of the plan times the batches",
            "`method` and `sampling.steps` decide it",
        ),
    ),
    (
        "rollout/full_steps",
        MetricText(
            "Sampler steps of the rollouts that ran every block of the transformer.",
            "steps",
            "Equal to `rollout/steps` without `rollout.cache`; fewer with it",
            "Equal with `rollout.cache`: raise it",
        ),
    ),
    (
        "rollout/kept_steps",
        MetricText(
            "Steps that kept their graph from the rollout, so that the sweep did not run them "
            "again.",
            "steps",
            "The steps that the sweep visits, or `train.keep_graphs` times the batches if that is "
            "less",
            "Fewer: raise `train.keep_graphs`, or `train.keep_graphs_memory`, where there is room",
        ),
    ),
    (
        "further/updates",
        MetricText(
            "Updates on this step's rollout after the first; with `train.updates_per_rollout`.",
            "updates",
            "`train.updates_per_rollout` - 1",
            "Fewer: the velocity moved by more than `train.reuse_limit`, or a gradient was not "
            "finite; lower `train.learning_rate` or `updates_per_rollout`",
        ),
    ),
    (
        "further/rerun_error",
        MetricText(
            "Relative distance of the last further update's velocities from the rollout's, the "
            "largest of all batches and processes; 0 at the posterior mean of an early stop.",
            "share of the step's length",
            "Below `train.reuse_limit`",
            "Grows: the adapter moves fast; lower `train.learning_rate`",
            "lower",
        ),
    ),
    (
        "further/grad_norm",
        MetricText(
            "Mean norm of the further updates' gradients, before clipping; null where none was "
            "made.",
            "same unit as loss per weight",
            "Near `grad_norm`",
            "As `grad_norm`",
        ),
    ),
    (
        "group/clips",
        MetricText(
            "Clips that this process rolled out and scored to choose those of the step; with "
            "`train.group`.",
            "clips",
            "`train.group.clips` for each prompt of the step",
            "`train.group` decides it",
        ),
    ),
    (
        "group/score",
        MetricText(
            "Mean score of these clips: the judges' sum as the loss weights them.",
            "as minus the loss",
            "Rises slowly",
            "As `reward/JUDGE`",
            "higher",
        ),
    ),
    (
        "group/deviation",
        MetricText(
            "Standard deviation of that score among the clips of one prompt, mean over prompts.",
            "as minus the loss",
            "Well above 0: there is something to choose from",
            "Near 0: the clips of a prompt are alike, and the choice is worth nothing; leave "
            "`train.group` out",
        ),
    ),
    (
        "group/kept",
        MetricText(
            "Mean score of the clips that were kept.",
            "as minus the loss",
            "Near `group/score` with `keep: extremes`; above it with `best`, below it with `worst`",
            "`train.group.keep` decides it",
        ),
    ),
    (
        "matching/advantage",
        MetricText(
            "Mean size of the clips' advantages, as they weight the matching; with a method that "
            "matches the run's own clips.",
            "standard deviations; with `method.normalise: none` as minus the loss",
            "0.7 to 1 with `normalise`: group or batch",
            "0: all clips of each prompt have the same score; add a judge with finer scores",
        ),
    ),
    (
        "matching/deviation",
        MetricText(
            "Standard deviation of the score among the clips of one prompt, the judges' sum as "
            "the loss weights them; mean over prompts.",
            "as minus the loss",
            "Well above the rounding of a score; falls slowly as the clips grow alike",
            "Near 0: the clips of a prompt are alike, and there is nothing to learn from; take "
            "prompts or a judge that tell them apart",
        ),
    ),
    (
        "matching/error",
        MetricText(
            "Flow-matching loss of the step's own clips, without weights, at levels drawn anew in "
            "each update.",
            "squared velocity",
            "Noisy around one level",
            "Rises throughout: bad clips are pushed away without bound; set `train.anchor`, or "
            "lower `train.learning_rate`",
            "lower",
        ),
    ),
    (
        "matching/loss",
        MetricText(
            "The method's own loss in the step's first update: awm the error weighted by the "
            "advantages, nft the errors of the positive and the negative velocity.",
            "squared velocity",
            "awm: small, of either sign; nft: near `matching/error`",
            "Look at `reward/JUDGE` instead: it does not fall as a loss does, because every step "
            "has clips of its own",
        ),
    ),
    (
        "motion",
        MetricText(
            "Mean absolute difference of neighbouring latent frames of the clips that the judges "
            "read; 0 for single pictures. Of other prompts in every step, so it is noisy.",
            "latent units",
            "Its mean over 20 steps stays within 0.8 to 1.25 of that of the first 20",
            "Falling: judges of single frames prefer stills; set `train.motion`, or add a judge of "
            "motion. Rising while other judges fall: outlines flicker; look at the clips",
            "near the base",
        ),
    ),
    (
        "drift",
        MetricText(
            "Mean square distance of the velocity to the base's, at the active steps or where "
            "clips are matched; null without `train.anchor`.",
            "squared velocity",
            "Rises from 0 and levels off",
            "Rises throughout: raise `train.anchor`, or lower `train.learning_rate`",
            "lower",
        ),
    ),
    (
        "replay",
        MetricText(
            "Flow-matching loss of the replayed clips; null in steps that replay none.",
            "squared velocity",
            "Does not rise; it is not smallest at the base, whose clips are guided ones",
            "Rises: raise `train.replay.weight`, or lower `train.learning_rate`",
            "lower",
        ),
    ),
)
_OF_FINETUNE = (
    (
        "loss",
        MetricText(
            "Mean flow-matching loss of the step's clips, at noise levels drawn anew in each step, "
            "so it is noisy.",
            "squared velocity",
            "Falls, fast at first; compare `held_out/loss`, which has fixed noise",
            "Flat: raise `train.learning_rate`. Falls while `held_out/loss` rises: the clips are "
            "learnt by heart; stop earlier, or give more clips",
            "lower",
        ),
    ),
    (
        "epoch",
        MetricText(
            "Passes over the clips so far.",
            "passes",
            "Grows by the same amount in every step",
            "Many passes over few clips are learnt by heart: lower `train.steps`",
        ),
    ),
    (
        "batches[][]",
        MetricText(
            "Shape of each batch: clips, frames, height, width.",
            "clips, frames, pixels",
            "Shapes of the buckets of `data.sides`",
            "`data.sides` and `data.frames` decide it",
        ),
    ),
    (
        "held_out/loss",
        MetricText(
            "Mean flow-matching loss of the held-out clips, at fixed noise levels and with the "
            "same noise each time, so two values compare.",
            "squared velocity",
            "Falls; on the embedded generator from 1.051 to 0.499 in 100 steps",
            "Rises for two measurements: stop there, or lower `train.learning_rate`; look at "
            "`samples/` too",
            "lower",
        ),
    ),
    (
        "held_out/LEVEL",
        MetricText(
            "The same at one noise level, from 0.1 (nearly clean) to 0.9 (nearly noise).",
            "squared velocity",
            "Falls at every level; high levels decide layout and motion, low ones detail",
            "Falls at one end alone: `flow.scheme` and `flow.logit_mean` move the training to "
            "other levels",
            "lower",
        ),
    ),
)
_OF_SUMMARY = (
    ("steps", _STEP),
    ("bad_steps", _BAD_STEPS),
    (
        "clips",
        MetricText(
            "Clips that could be used.",
            "clips",
            "All rows of the list; the others are named in clips.json, with the reason",
            "Mend or remove the files that clips.json names",
            "higher",
        ),
    ),
    (
        "epochs",
        MetricText(
            "Passes over the clips, whole run.",
            "passes",
            "-",
            "Many passes over few clips are learnt by heart: lower `train.steps`",
        ),
    ),
)

_OF_DISTIL = (
    (
        "loss",
        MetricText(
            "Mean over the phases of `loss_by_phase`.",
            "squared velocity",
            "Falls, fast at first, then slowly: 0.54 to 0.21 in 100 steps of `distil/tiny-4-steps`",
            "Flat: raise `train.learning_rate` or `lora.rank`; the samples of the last steps tell "
            "whether it matters",
            "lower",
        ),
    ),
    (
        "loss_by_phase/PHASE",
        MetricText(
            "Squared distance of the student's velocity at the start of a phase (phase 1 starts at "
            "pure noise) to the constant velocity that leads to where the teacher ends it. Of "
            "other prompts in every step, so it is noisy.",
            "squared velocity",
            "Falls in every phase; it stays largest where the teacher's path bends most",
            "One phase stays high: more `student.steps`, which make each phase shorter",
            "lower",
        ),
    ),
)

RUN_METRICS = (*_shared("run"), *(Metric("run", *one) for one in _OF_RUN))
DISTIL_METRICS = (
    *_shared("distil"),
    *(Metric("distil", *one) for one in _OF_DISTIL),
)
FINETUNE_METRICS = (
    *_shared("finetune"),
    *(Metric("finetune", *one) for one in _OF_FINETUNE),
    *(Metric("finetune.json", *one) for one in _OF_SUMMARY),
    *(
        Metric("finetune.json", f"{side}/{key}", text)
        for side in ("base", "tuned")
        for key, text in (
            ("loss", _OF_FINETUNE[3][1]),
            ("by_level/LEVEL", _OF_FINETUNE[4][1]),
        )
    ),
)
