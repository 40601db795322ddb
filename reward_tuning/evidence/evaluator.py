"""Sample and measure every side of an evaluation; what the caches hold is not done again."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from base_model.sampling.sample import start_step
from base_model.sampling.sigmas import sigma_table
from reward_tuning.evidence.clip_cache import ClipCache
from reward_tuning.evidence.loaded import Loaded
from reward_tuning.evidence.metric_names import DIVERSITY, DRIFT, SHARPNESS, MetricNames
from reward_tuning.evidence.request import Setup
from reward_tuning.evidence.reward_sharpness import reward_sharpness
from reward_tuning.evidence.score_cache import ScoreCache, Value
from reward_tuning.evidence.sides_plan import PlannedSide
from reward_tuning.judges.judge import FramedJudge
from reward_tuning.lora.adapter import adapter_state
from reward_tuning.lora.attached import attached
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.tuning.clip_features import clip_features, feature_distance, feature_judge
from reward_tuning.tuning.drift import velocity_drift
from reward_tuning.tuning.evaluation import SideScores, clip_scores, evaluation_seed

Place = tuple[int, int]
"""Index of a prompt, and number of its clip."""
SeenFn = Callable[[int, int, Tensor], None]
"""Receives a prompt's index, the number of the clip, and its frames `(f, 3, H, W)` on the CPU."""


@dataclass(frozen=True)
class Evaluator:
    """The sampling and measuring of an evaluation.

    Attributes:
        setup: What all sides have in common.
        loaded: Generator and judges, loaded when they are first needed.
        names: The metrics, and their names in the cache.
        clips: Cache of the clips.
        scores: Cache of the values.
        progress: Called after every sampling step.
    """

    setup: Setup
    loaded: Loaded
    names: MetricNames
    clips: ClipCache
    scores: ScoreCache
    progress: ProgressFn

    def evaluate(
        self, side: PlannedSide, base: PlannedSide, shown: Collection[Place], seen: SeenFn
    ) -> SideScores:
        """Sample and measure one side.

        Args:
            side: The side.
            base: The base that is sampled alike, evaluated already; the side itself if it is one.
            shown: Places of the clips that `seen` must receive.
            seen: Called with their frames.

        Returns:
            Values by metric and prompt, the means over the clips of a prompt: judges, measures of
            any clip, the oracle where it applies, `sharpness_*`, `drift` (of first clips), and
            `feature_diversity` with two clips or more.

        Raises:
            TuningError: The disk is full, or the adapter does not fit.
        """
        setup, stage = self.setup, f"evaluation of {side.name}"
        places = [(i, k) for i in range(len(setup.prompts)) for k in range(setup.seeds)]
        for start in range(0, len(places), setup.batch_size):
            part = places[start : start + setup.batch_size]
            self.progress(ProgressEvent(stage, start, len(places)))
            batch = _Batch(self, side, base, part, (stage, start, len(places)))
            batch.run(shown, seen)
        self.progress(ProgressEvent(stage, len(places), len(places)))
        return self._collected(side, base, places)

    def _collected(
        self, side: PlannedSide, base: PlannedSide, places: Sequence[Place]
    ) -> SideScores:
        """Return the values of a side from the cache."""
        found: dict[str, dict[int, list[float]]] = {}
        looks: dict[int, list[Tensor]] = {}
        for place in places:
            have = self.scores.values(self.loaded.facts(side, *place).key)
            for metric, name in self._names(side, base, place).items():
                value = have[name]
                if isinstance(value, list):
                    looks.setdefault(place[0], []).append(torch.tensor(value))
                else:
                    found.setdefault(metric, {}).setdefault(place[0], []).append(value)
        values = {
            metric: {index: math.fsum(few) / len(few) for index, few in of.items()}
            for metric, of in found.items()
        }
        if looks:
            values[DIVERSITY] = {index: feature_distance(few) for index, few in looks.items()}
        return SideScores(values)

    def _names(self, side: PlannedSide, base: PlannedSide, place: Place) -> dict[str, str]:
        """Return each metric of a clip with its name in the cache."""
        found = self.names.of_clip(self.setup.prompts[place[0]])
        if side.adapter is not None and place[1] == 0:
            found[DRIFT] = f"{DRIFT}:{self.loaded.facts(base, *place).key}"
        return found


@dataclass(frozen=True)
class _Batch:
    """Clips of one side that are sampled, decoded and measured together."""

    of: Evaluator
    side: PlannedSide
    base: PlannedSide
    part: Sequence[Place]
    about: tuple[str, int, int]

    def run(self, shown: Collection[Place], seen: SeenFn) -> None:
        """Do what the caches lack, and show the clips that are asked for."""
        missing = {place: self._missing(place) for place in self.part}
        asked = [place for place in self.part if place in shown]
        lacking = {metric for of in missing.values() for metric in of}
        if not lacking and not asked and all(self._on_disk(place) for place in self.part):
            return
        latents = self._latents()
        if DRIFT in lacking:
            self._add_drift([place for place in self.part if DRIFT in missing[place]])
        lacking -= {DRIFT}
        if not lacking and not asked:
            return
        with self.of.loaded.at_work():
            with torch.no_grad():
                frames = self.of.loaded.sampler.generator.decode(latents)
            if lacking:
                self._measure(frames, latents, lacking, missing)
        for place, clip in zip(self.part, frames.float().cpu(), strict=True):
            if place in shown:
                seen(*place, clip)

    def _key(self, place: Place) -> str:
        return self.of.loaded.facts(self.side, *place).key

    def _on_disk(self, place: Place) -> bool:
        return self.of.clips.path(self._key(place)).exists()

    def _missing(self, place: Place) -> set[str]:
        have = self.of.scores.values(self._key(place))
        names = self.of._names(self.side, self.base, place)
        return {metric for metric, name in names.items() if name not in have}

    def _latents(self) -> Tensor:
        """Return the clips, `(b, 16, t, h/8, w/8)`; sample those that the cache lacks."""
        found = {place: self.of.clips.read(self._key(place)) for place in self.part}
        absent = [place for place in self.part if found[place] is None]
        if absent:
            for place, latents in zip(absent, self._sampled(absent), strict=True):
                facts = self.of.loaded.facts(self.side, *place)
                self.of.clips.write(facts.key, facts, latents)
                found[place] = latents.float().cpu()
        whole = [clip for clip in found.values() if clip is not None]
        return torch.stack(whole).to(self.of.loaded.sampler.generator.device)

    def _sampled(self, places: Sequence[Place]) -> Tensor:
        side, setup = self.side, self.of.setup
        table = sigma_table(side.steps)[start_step(side.steps, setup.sampling.strength) :]
        stage, done, total = self.about

        def report(step: int) -> None:
            phase = f"step {step + 1} of {len(table) - 1}"
            self.of.progress(ProgressEvent(stage, done, total, phase))

        with self._attached():
            return self.of.loaded.guided(side.guidance_scale).latents(
                [setup.prompts[i] for i, _ in places],
                [evaluation_seed(setup.seed, *place) for place in places],
                table,
                report,
            )

    def _attached(self) -> AbstractContextManager[None]:
        """Return the context in which the generator carries this side's adapter, if it has one."""
        if self.side.adapter is None:
            return nullcontext()
        transformer = self.of.loaded.sampler.generator.transformer
        return attached(transformer, self.side.adapter.weights, self.side.strength)

    def _add_drift(self, places: Sequence[Place]) -> None:
        of = self.of
        clips = _Batch(of, self.base, self.base, places, self.about)._latents()
        setup, sampler = of.setup, of.loaded.sampler
        with self._attached():
            found = velocity_drift(
                sampler,
                adapter_state(sampler.generator.transformer),
                None,
                {i: clip for (i, _), clip in zip(places, clips, strict=True)},
                {i: setup.prompts[i] for i, _ in places},
                seed=setup.seed,
                batch_size=len(places),
            )
        for i, k in places:
            name = of._names(self.side, self.base, (i, k))[DRIFT]
            of.scores.add(self._key((i, k)), {name: found[i]})

    def _measure(
        self,
        frames: Tensor,
        latents: Tensor,
        lacking: Collection[str],
        missing: Mapping[Place, Collection[str]],
    ) -> None:
        """Measure what is missing, and cache it."""
        of = self.of
        prompts = [of.setup.prompts[i] for i, _ in self.part]
        judges = [judge for judge in of.loaded.judges if judge.label in lacking]
        scored = clip_scores(frames, latents, prompts, judges, oracle=of.names.oracle)
        found: dict[str, list[Value]] = {n: list(of_n.tolist()) for n, of_n in scored.items()}
        sharpened = [
            judge
            for judge in of.loaded.judges
            if isinstance(judge, FramedJudge) and SHARPNESS + judge.label in lacking
        ]
        texts = [prompt.reward_text for prompt in prompts]
        for label, sharp in reward_sharpness(frames, texts, sharpened).items():
            found[SHARPNESS + label] = list(sharp.tolist())
        if DIVERSITY in lacking:
            seer = feature_judge([one for one in of.loaded.judges if one.label == of.names.seer])
            assert seer is not None
            found[DIVERSITY] = list(clip_features(seer, frames).tolist())
        for row, place in enumerate(self.part):
            names = of._names(self.side, self.base, place)
            new = {names[m]: found[m][row] for m in missing[place] if m in found}
            of.scores.add(self._key(place), new)
