"""A recipe for others: the same recipe, without paths of the machine."""

from pathlib import Path

from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.sharing.public_recipe import public_recipe

RECIPE = """# reward-tuning 0.1.0
# generator sha256:00
seed: 0
output: /home/me/runs/a
generator: {checkpoint: /data/models/7b, dtype: float32}
rewards:
- {kind: hps, checkpoint: 'C:\\Users\\me\\hps.safetensors', weight: 1.0}
- {kind: clip, checkpoint: tiny/clip.safetensors}
"""


def test_absolute_paths_are_cut_and_the_rest_stays(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE, encoding="utf-8")
    text = public_recipe(path)
    assert text.startswith("# reward-tuning 0.1.0\n# generator sha256:00\n")
    data = read_yaml(text)
    assert data["output"] == "a"
    assert data["generator"] == {"checkpoint": "7b", "dtype": "float32"}
    assert [one["checkpoint"] for one in data["rewards"]] == [
        "hps.safetensors",
        "tiny/clip.safetensors",
    ]
    assert data["rewards"][0]["weight"] == 1.0
    assert "/home/me" not in text
