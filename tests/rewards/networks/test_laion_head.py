"""LAION's head."""

from rewards.networks.laion_head import build_head

# Written down from the published file: index -> (out, in) of the linear layers.
PUBLISHED_HEAD = {0: (1024, 768), 2: (128, 1024), 4: (64, 128), 6: (16, 64), 7: (1, 16)}


def test_head_has_the_published_layout() -> None:
    expected = {f"layers.{i}.weight": shape for i, shape in PUBLISHED_HEAD.items()}
    expected |= {f"layers.{i}.bias": shape[:1] for i, shape in PUBLISHED_HEAD.items()}
    head = build_head(768)
    assert {k: tuple(v.shape) for k, v in head.state_dict().items()} == expected
    assert sum(p.numel() for p in head.parameters()) == 927_969
