"""The numbers of evaluation.json, by their keys."""

from __future__ import annotations

from reward_tuning.report.metric import Metric, MetricText

_PROMPTS = MetricText(
    "Held-out prompts that both sides were asked.",
    "prompts",
    "32 or more; below 24 no verdict is given",
    "Raise `evaluation.prompts`",
    "higher",
)
_SEEDS = MetricText(
    "Clips for each prompt and side.",
    "clips",
    "1; 2 or more measure diversity and narrow the intervals",
    "Set `evaluation.seeds`",
)
_SIDE = MetricText(
    "Mean of a judge or measure over the prompts of this side.",
    "as the metric",
    "Compare it with the base's, not with another model's",
    "See the metric",
)
_DIFFERENCE = {
    "mean": MetricText(
        "Tuned less base, mean over the prompts.",
        "as the metric",
        "On the good side of 0, with its whole interval",
        "See the metric",
    ),
    "low": MetricText(
        "Lower end of the 95 % interval of the difference.",
        "as the metric",
        "Above 0 where higher is better",
        "Interval around 0: no change seen; more prompts narrow it, four times as many halve it",
    ),
    "high": MetricText(
        "Upper end of the 95 % interval of the difference.",
        "as the metric",
        "Below 0 where lower is better",
        "Interval around 0: no change seen; more prompts narrow it, four times as many halve it",
    ),
    "up": MetricText(
        "Prompts whose value rose.",
        "prompts",
        "More than `down` where higher is better",
        "Few of many: a rise on some prompts alone; look at the worst ones",
    ),
    "down": MetricText(
        "Prompts whose value fell.",
        "prompts",
        "Fewer than `up` where higher is better",
        "Look at these prompts: sort by loss",
    ),
    "p": MetricText(
        "Probability of a difference this large, or larger, where there is none.",
        "0 to 1",
        "Below 0.05 for a change that is seen",
        "More prompts",
    ),
    "p_adjusted": MetricText(
        "The same, corrected for the number of metrics; the metric that was named beforehand needs "
        "no correction.",
        "0 to 1",
        "Below 0.05 for a change that is seen",
        "More prompts; or name the one metric that decides beforehand",
    ),
    "prompts": MetricText(
        "Prompts on which both sides have a value.",
        "prompts",
        "All",
        "Fewer: the evaluation of some prompts is missing; run `reward-tuning evaluate` again",
    ),
}
_CHECKPOINT = {
    "step": MetricText(
        "Step of the exported checkpoint.",
        "steps",
        "The last step, or where the held-out judge was highest",
        "Far from the end: the later steps gained nothing; train for fewer",
    ),
    "of": MetricText("Steps of the recipe.", "steps", "`train.steps`", "-"),
    "stopped_at": MetricText(
        "Step at which a guard ended the run; null where none did.",
        "steps",
        "null",
        "See the rule in the text; docs/overoptimisation.md lists the cures",
    ),
}


def _all_metrics() -> list[tuple[str, MetricText]]:
    return [
        ("prompts", _PROMPTS),
        ("seeds", _SEEDS),
        ("format", MetricText("Version of the file.", "-", "2", "-")),
        (
            "questions[].seed",
            MetricText(
                "Seed of the noise of a prompt's first clip, the same for all sides.",
                "-",
                "Another for each prompt",
                "`generate --seed` with it repeats the clip",
            ),
        ),
        (
            "rendered/METRIC",
            MetricText(
                "Embedded world only: score of exact renders of the same prompts, which a perfect "
                "generator would reach.",
                "as the metric",
                "Above both sides",
                "A judge scores the tuned clips higher than renders: it is being fooled",
            ),
        ),
        ("base/METRIC", _SIDE),
        ("tuned/METRIC", _SIDE),
        *((f"difference/METRIC/{key}", text) for key, text in _DIFFERENCE.items()),
        (
            "sides[].strength",
            MetricText(
                "Factor of the adapter's effect; 0 is the base.",
                "-",
                "0.5 to 1; an over-optimised adapter is better at 0.25 to 0.5",
                "`--strengths` compares several",
            ),
        ),
        (
            "sides[].steps",
            MetricText(
                "Sampler steps of this side.",
                "steps",
                "Those that you will use",
                "`--steps` compares several: the gain should hold at all",
            ),
        ),
        (
            "sides[].guidance_scale",
            MetricText(
                "Guidance scale of this side; 1 is none.",
                "-",
                "The one that you will use",
                "`--guidance` compares several: the gain should hold at all",
            ),
        ),
        (
            "sides[].against",
            MetricText(
                "Index of the side that this one is compared with; null for a base.",
                "-",
                "A base of the same steps and guidance",
                "-",
            ),
        ),
        (
            "sides[].scores/METRIC[]",
            MetricText(
                "Value of a metric for one prompt, the mean over its seeds; null where it was not "
                "evaluated.",
                "as the metric",
                "Compare it with the base's value for the same prompt",
                "The worst prompts show what was lost; look at their clips",
            ),
        ),
        ("sides[].means/METRIC", _SIDE),
        (
            "sides[].ratios/METRIC",
            MetricText(
                "Mean of a measure as a ratio to that of the base.",
                "ratio",
                "0.8 to 1.25 for motion, 0.8 or more for diversity, 0.9 to 1.1 for light",
                "See the measure",
                "near the base",
            ),
        ),
        (
            "sides[].gain_kept/JUDGE",
            MetricText(
                "Share of a judge's gain that stays after changes that no viewer sees.",
                "share",
                "Near 1",
                "Far below 1: the gain is in patterns of pixels; see `sharpness_JUDGE`",
                "higher",
            ),
        ),
        (
            "sides[].step",
            MetricText(
                "Step of the checkpoint of this side; null where it is none.",
                "steps",
                "-",
                "-",
            ),
        ),
        (
            "comparisons",
            MetricText(
                "Comparisons with the base that the p values are corrected for.",
                "comparisons",
                "Few: the fewer, the more each can show",
                "Fewer judges, strengths, steps and guidance scales at a time",
            ),
        ),
        *(
            (
                f"sampling/{key}",
                MetricText(
                    "Setting of every clip of the evaluation.", unit, "As you will use", "-"
                ),
            )
            for key, unit in (
                ("seed", "-"),
                ("frames", "frames"),
                ("height", "pixels"),
                ("width", "pixels"),
                ("guidance_rescale", "0 to 1"),
                ("guidance_steps[]", "sigma; only where an interval is set"),
            )
        ),
        *((f"sides[].difference/METRIC/{key}", text) for key, text in _DIFFERENCE.items()),
        *((f"checkpoint/{key}", text) for key, text in _CHECKPOINT.items()),
    ]


EVALUATION_METRICS = tuple(Metric("evaluation", key, text) for key, text in _all_metrics())
