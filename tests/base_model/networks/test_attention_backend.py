import pytest
import torch
from torch.nn.attention import SDPBackend, _cur_sdpa_kernel_backends

from base_model.errors import GeneratorError
from base_model.generator import Condition, Generator, GuidedCondition
from base_model.networks.attention_backend import Attention, attention_backend
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from tests.goldens import load_golden, relative


@pytest.mark.parametrize("attention", ["math", "flash"])
def test_every_backend_gives_the_same_velocity(generator: Generator, attention: Attention) -> None:
    tensors = load_golden("sampling_7b_style").tensors
    condition, noise = Condition(tensors["in.text"]), tensors["in.noise"]
    expected = generator.velocity(noise, 0.5, condition)
    with attention_backend(attention, noise):
        assert relative(generator.velocity(noise, 0.5, condition), expected) < 1e-5


def test_the_choice_ends_with_the_block() -> None:
    before = _cur_sdpa_kernel_backends()
    with attention_backend("math"):
        assert _cur_sdpa_kernel_backends() == [SDPBackend.MATH]
    with attention_backend("auto"):
        assert _cur_sdpa_kernel_backends() == before
    assert _cur_sdpa_kernel_backends() == before


def test_an_unknown_backend() -> None:
    message = "'xformers' is unknown; allowed: auto, math"
    with pytest.raises(GeneratorError, match=message), attention_backend("xformers"):  # type: ignore[arg-type]
        pass


@pytest.mark.parametrize("attention", ["efficient", "cudnn"])
def test_a_backend_that_cannot_run_here(attention: Attention) -> None:
    message = f"'{attention}' cannot run on cpu in torch.float32"
    with (
        pytest.raises(GeneratorError, match=message),
        attention_backend(attention, torch.zeros(1)),
    ):
        pass


def test_sampling_with_a_backend(generator: Generator) -> None:
    tensors = load_golden("sampling_7b_style").tensors
    condition = GuidedCondition(
        Condition(tensors["in.text"]), Condition(tensors["in.negative_text"])
    )
    during = []
    latents = euler_sample(
        generator,
        condition,
        tensors["in.noise"],
        sigma_table(6),
        Guidance(6.0),
        on_step=lambda *_: during.append(_cur_sdpa_kernel_backends()),
        attention="math",
    )
    assert during == [[SDPBackend.MATH]] * 6
    assert relative(latents, tensors["out.latents"]) < 1e-5
    with pytest.raises(GeneratorError, match="'cudnn' cannot run on cpu"):
        euler_sample(
            generator,
            condition,
            tensors["in.noise"],
            sigma_table(1),
            Guidance(6.0),
            attention="cudnn",
        )
