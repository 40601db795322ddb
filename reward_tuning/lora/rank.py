"""An adapter of smaller rank: the best approximation of each module's product, and its error.

The product P = up down of a module has the singular values of the small matrix R_up R_down^T, where
up = Q_up R_up and down^T = Q_down R_down. P itself, of the size of the layer, is never formed. By
Eckart and Young (1936), the first k singular values and vectors give the product of rank k with the
smallest Frobenius distance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from reward_tuning.errors import TuningError
from reward_tuning.lora.adapter import LoraWeights
from reward_tuning.lora.metadata import STRENGTH, TRUNCATION
from reward_tuning.lora.names import Factors


@dataclass(frozen=True)
class Truncation:
    """An adapter of smaller rank, and its distance from the one that it approximates.

    Attributes:
        weights: The new adapter; alpha / rank stays the same.
        before: Rank of the old one.
        modules: Relative Frobenius error of each module's product, by path.
        total: The same of all modules together.
    """

    weights: LoraWeights
    before: int
    modules: Mapping[str, float]
    total: float

    @property
    def worst(self) -> str:
        """Path of the module with the largest error."""
        return max(self.modules, key=lambda path: self.modules[path])

    def __str__(self) -> str:
        """Describe the result in one line."""
        return (
            f"rank {self.before} to {self.weights.rank}: relative error of the LoRA's change "
            f"{self.total:.3g}, of the worst module {self.modules[self.worst]:.3g} ({self.worst})"
        )

    @property
    def metadata(self) -> dict[str, str]:
        """Entry for the header of the file."""
        found = {
            "rank": self.weights.rank,
            "before": self.before,
            "error": round(self.total, 9),
            "worst_error": round(self.modules[self.worst], 9),
            "worst_module": self.worst,
        }
        return {TRUNCATION: json.dumps(found)}


def truncated(weights: LoraWeights, rank: int, *, dtype: torch.dtype = torch.float32) -> Truncation:
    """Return the best adapter of a smaller rank, with its measured error.

    Args:
        weights: Adapter of rank r.
        rank: New rank k, 1 to r.
        dtype: Type in which the factors will be stored; the error includes this rounding.

    Raises:
        TuningError: k is not in 1 to r.
    """
    if not 1 <= rank <= weights.rank:
        raise TuningError(
            f"the rank is {rank}; allowed: 1 to {weights.rank}, the rank of this LoRA: a larger "
            "one would add nothing"
        )
    state: dict[str, Factors] = {}
    modules: dict[str, float] = {}
    lost = norms = 0.0
    for path, (down, up) in weights.state.items():
        state[path] = _best((down, up), rank) if rank < weights.rank else (down, up)
        stored_down, stored_up = (factor.to(dtype).float() for factor in state[path])
        norm = _norm(up, down)
        # P - P' = [up, -up'] [down; down'], of rank r + k
        error = _norm(torch.cat([up, -stored_up], dim=1), torch.cat([down, stored_down]))
        modules[path] = error / norm if norm else error
        lost, norms = lost + error**2, norms + norm**2
    total = math.sqrt(lost / norms) if norms else 0.0
    new = LoraWeights(rank, weights.strength * rank, state)
    return Truncation(new, weights.rank, modules, total)


def _best(factors: Factors, rank: int) -> Factors:
    """Return the factors of the best product of rank k; the singular values are shared evenly."""
    down, up = (factor.double() for factor in factors)
    q_up, r_up = torch.linalg.qr(up)
    q_down, r_down = torch.linalg.qr(down.T)
    left, values, right = torch.linalg.svd(r_up @ r_down.T, full_matrices=False)
    values = values[:rank].sqrt()
    new_up = (q_up @ left[:, :rank]) * values
    new_down = values[:, None] * (right[:rank] @ q_down.T)
    missing = rank - len(values)  # a layer narrower than the rank
    return pad(new_down, (0, 0, 0, missing)).float(), pad(new_up, (0, missing)).float()


def _norm(up: Tensor, down: Tensor) -> float:
    """Return the Frobenius norm of a product in the memory of its factors."""
    r_up = torch.linalg.qr(up.double(), mode="r")[1]
    r_down = torch.linalg.qr(down.double().T, mode="r")[1]
    return float(torch.linalg.matrix_norm(r_up @ r_down.T))


def scaled_by(weights: LoraWeights, strength: float) -> LoraWeights:
    """Return an adapter that does at strength 1 what this one does at `strength`.

    Alpha takes a strength above 0, so the factors keep their bits; the up factors take the sign.

    Raises:
        TuningError: The strength is 0 or not finite.
    """
    if not math.isfinite(strength) or strength == 0:
        raise TuningError(
            f"the strength is {strength}; allowed: a finite number other than 0, which would leave "
            "nothing (above 1 exaggerates, below 0 reverses the effect)"
        )
    state = weights.state
    if strength < 0:
        state = {path: (down, -up) for path, (down, up) in state.items()}
    return LoraWeights(weights.rank, weights.alpha * abs(strength), state)


def strength_metadata(strength: float, about: Mapping[str, str]) -> dict[str, str]:
    """Return the entry for the strength that a file has baked in, with those of earlier exports."""
    try:
        before = float(about.get(STRENGTH, "1"))
    except ValueError:  # edited by hand
        before = 1.0
    return {} if strength == 1 else {STRENGTH: f"{before * strength:g}"}
