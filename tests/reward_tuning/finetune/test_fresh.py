"""Random weights, as the constructor draws them."""

from pathlib import Path

import torch

from base_model.generator import load_generator
from reward_tuning.finetune.fresh import fresh_weights
from tests.goldens import write_checkpoint


def test_fresh_weights_are_the_constructors_and_the_seeds(tmp_path: Path) -> None:
    checkpoint = write_checkpoint(tmp_path)
    transformers = [load_generator(checkpoint, text_encoder=False).transformer for _ in range(3)]
    torch.manual_seed(17)
    before = torch.get_rng_state()
    for transformer, seed in zip(transformers, (17, 17, 18), strict=True):
        fresh_weights(transformer, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    config = {k: v for k, v in dict(transformers[0].config).items() if not k.startswith("_")}
    new = type(transformers[0])(**config)  # from the global seed 17
    first, same, other = (dict(t.named_parameters()) for t in transformers)
    for name, drawn in new.named_parameters():
        assert torch.equal(first[name], drawn)
        assert torch.equal(first[name], same[name])
    assert not torch.equal(first["proj.weight"], other["proj.weight"])
