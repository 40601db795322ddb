from pathlib import Path

import pytest
import torch

from base_model.errors import GeneratorError
from base_model.generator import Condition, Generator
from base_model.loading.checkpoint import load_transformer, load_vae
from base_model.training.input_channels import with_input_channels
from tests.goldens import write_checkpoint


@pytest.mark.parametrize("channels", [33, 38, 48])
def test_new_channels_change_nothing_until_they_are_trained(tmp_path: Path, channels: int) -> None:
    write_checkpoint(tmp_path)
    vae = load_vae(tmp_path)
    before = Generator(load_transformer(tmp_path), vae)
    assert before.transformer.config.in_channels == 16
    x = torch.randn(1, 16, 2, 4, 6, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 8, 48, generator=torch.Generator().manual_seed(1))
    expected = before.velocity(x, 0.7, Condition(text))
    after = Generator(with_input_channels(load_transformer(tmp_path), channels), vae)
    assert after.kind.channels == channels
    assert torch.equal(after.velocity(x, 0.7, Condition(text)), expected)
    extra = torch.randn(1, channels - 16, 2, 4, 6, generator=torch.Generator().manual_seed(2))
    field = after.kind.field
    assert field is not None
    condition = Condition(text, **{field: extra})
    assert torch.equal(after.velocity(x, 0.7, condition), expected)  # their weights are 0
    after.transformer.proj.weight.requires_grad_()
    after.velocity(x, 0.7, condition).square().sum().backward()
    assert after.transformer.proj.weight.grad[:, 16:].abs().max() > 0
    back = with_input_channels(after.transformer.requires_grad_(False), 16)
    assert torch.equal(Generator(back, vae).velocity(x, 0.7, Condition(text)), expected)


def test_no_other_number_of_channels(tmp_path: Path) -> None:
    write_checkpoint(tmp_path)
    with pytest.raises(GeneratorError, match="20"):
        with_input_channels(load_transformer(tmp_path), 20)
