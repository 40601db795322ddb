"""MPS's cross model: masks, rotary positions, and the order of its blocks."""

import torch

from rewards.networks.cross_model import CrossModel, Rotary, SwiGlu


def model() -> CrossModel:
    torch.manual_seed(0)
    return CrossModel(16, 2, 2, 8).double()


def test_the_image_attends_only_to_kept_words() -> None:
    network = model()
    image = torch.randn(2, 5, 16, dtype=torch.float64)
    text = torch.randn(2, 4, 16, dtype=torch.float64)
    keep = torch.tensor([[True, True, False, False], [True, False, True, False]])
    expected = network(image, text, keep)
    changed = torch.where(keep[..., None], text, torch.randn_like(text))
    torch.testing.assert_close(network(image, changed, keep), expected)
    assert float((network(image, text + 1, keep) - expected).detach().abs().max()) > 1e-3


def test_rotary_products_depend_on_distances_alone() -> None:
    rotary = Rotary(8).double()
    query, key = torch.randn(2, 8, dtype=torch.float64)
    turned = [rotary(vector.expand(6, 8)) for vector in (query, key)]
    products = turned[0] @ turned[1].T
    for distance in range(1, 6):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal))
    torch.testing.assert_close(products.diagonal(), (query @ key).expand(6))


def test_blocks_are_those_of_both_attentions_in_order() -> None:
    network = model()
    names = [type(block.fn).__name__ for block in network.blocks()]
    assert names == ["TextAttention", "ImageAttention"] * 2


def test_the_second_half_gates_the_first() -> None:
    x = torch.tensor([[1.0, 2.0, 0.5, -3.0]])
    gate = x[:, 2:] / (1 + torch.exp(-x[:, 2:]))
    torch.testing.assert_close(SwiGlu()(x), x[:, :2] * gate)
