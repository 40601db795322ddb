"""Which paths a preset and a name mean."""

from reward_tuning.lora.presets import ATTENTION, MLP, PRESETS, in_block, in_preset, named

PATHS = [
    "proj_out",
    "transformer_blocks.0.attn1.to_q",
    "transformer_blocks.10.attn1.to_out.0",
    "transformer_blocks.10.ff.net.2",
    "transformer_blocks.10.norm1.linear",
]


def test_paths_in_a_block() -> None:
    assert [in_block(path) for path in PATHS] == [
        "proj_out",
        "attn1.to_q",
        "attn1.to_out.0",
        "ff.net.2",
        "norm1.linear",
    ]
    assert in_block("transformer_blocks.0") == "transformer_blocks.0"


def test_presets_grow() -> None:
    assert in_preset(PATHS, "attention") == tuple(PATHS[1:3])
    assert in_preset(PATHS, "attention+mlp") == tuple(PATHS[1:4])
    assert in_preset(PATHS, "all-linear") == tuple(PATHS)
    assert PRESETS["attention+mlp"] == (*ATTENTION, *MLP)


def test_names_are_whole_paths_or_whole_ends() -> None:
    assert named(PATHS, "to_q") == [PATHS[1]]
    assert named(PATHS, "o_q") == []
    assert named(PATHS, PATHS[3]) == [PATHS[3]]
    assert named(PATHS, "proj_out") == ["proj_out"]
