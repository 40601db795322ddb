"""How many steps of a batch may keep their graphs: `train.keep_graphs: auto`.

The number depends on the bytes of one graph and on the recipe's budget alone, not on what happens
to be free: a resumed run, and every process of a run, keeps as many.
"""

from __future__ import annotations

import weakref

import torch
from torch import Tensor

from reward_tuning.inputs.prompts import Prompt
from reward_tuning.progress import ProgressEvent, ProgressFn
from reward_tuning.sampling.free_memory import gigabytes
from reward_tuning.sampling.sampler import ClipSampler, RolloutVelocity
from reward_tuning.schema.recipe import Recipe


class _Saved:
    """A saved tensor, as long as a graph holds it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor.detach()  # an output itself would hold its own graph in a cycle


class SavedBytes:
    """Tensors that autograd saves for backward within a `with`.

    Args:
        module: Its weights and buffers are in memory anyway and not counted.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        tensors = [*module.parameters(), *module.buffers()]
        self._own = {tensor.untyped_storage().data_ptr() for tensor in tensors}
        self._saved: list[weakref.ref[_Saved]] = []

    def __enter__(self) -> SavedBytes:
        """Begin to count."""
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            self._pack, lambda saved: saved.tensor
        )
        self._hooks.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        """End."""
        self._hooks.__exit__(*exception)

    def held(self) -> int:
        """Return the bytes that graphs hold now, each storage counted once."""
        storages = {}
        for reference in self._saved:
            if (saved := reference()) is not None:
                storage = saved.tensor.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
        return sum(size for place, size in storages.items() if place not in self._own)

    def _pack(self, tensor: Tensor) -> _Saved:
        saved = _Saved(tensor)
        self._saved.append(weakref.ref(saved))
        return saved


def graph_bytes(sampler: ClipSampler, prompt: Prompt, clips: int, sigmas: Tensor) -> int:
    """Measure what the graph of one step holds, by one model call.

    Args:
        sampler: The generator with its adapter attached.
        prompt: Any whose states are known: only shapes matter.
        clips: Clips of a batch.
        sigmas: `(N + 1,)`, the table of the rollouts.

    Returns:
        Bytes, with gradient through the state, which not every method needs. With block
        checkpointing, what is held between forward and backward pass.
    """
    velocity = RolloutVelocity(sampler, sampler.condition([prompt] * clips), sigmas)
    x = sampler.noise(range(clips)).requires_grad_()
    with torch.enable_grad(), SavedBytes(sampler.generator.transformer) as saved:
        v = velocity.with_gradient(x, 0)
    held = saved.held()
    del v  # and its graph, once it is counted
    return held


def graphs_that_fit(
    recipe: Recipe,
    sampler: ClipSampler,
    prompt: Prompt,
    sigmas: Tensor,
    progress: ProgressFn,
    *,
    batches: int = 1,
) -> int:
    """Return the number of graphs of a batch that fit into `train.keep_graphs_memory`.

    Args:
        recipe: Resolved.
        sampler: The generator with its adapter attached.
        prompt: Any training prompt.
        sigmas: `(N + 1,)`, the table of the rollouts.
        progress: Told what was found.
        batches: Batches that hold their graphs at a time.
    """
    train = recipe.train
    one = graph_bytes(sampler, prompt, train.batch_size, sigmas)
    count = int(train.keep_graphs_memory * 1e9 // (batches * one))
    of = "" if batches == 1 else f" for each of {batches} batches at a time"
    note = (
        f"train.keep_graphs: auto has room for {count} graphs of {gigabytes(one)} each{of} in "
        f"{train.keep_graphs_memory:g} GB (train.keep_graphs_memory)"
    )
    if not count:
        note += f", so it keeps none; {batches * one * 1.1 / 1e9:.2g} GB keep one"
    progress(ProgressEvent("loading", note=note))
    return count
