"""From file and overrides to a recipe; how every mistake is told."""

from pathlib import Path

import pytest

from reward_tuning.errors import TuningError
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.gradient.methods import METHODS
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.loading import dump_recipe, load_recipe, parse_override
from tests.reward_tuning.recipes_for_tests import write_recipe


def told(path: Path, *overrides: str) -> list[str]:
    """Lines of the error, without the first."""
    with pytest.raises(TuningError) as caught:
        load_recipe(path, overrides)
    first, *rest = str(caught.value).splitlines()
    count = len(rest)
    assert first == f"{count} mistake{'s' if count > 1 else ''} in {path}"
    return [line.strip() for line in rest]


def told_once(path: Path, *overrides: str) -> str:
    (line,) = told(path, *overrides)
    return line


# --- loading


def test_loads(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path))
    assert recipe.train.steps == 10
    assert recipe.prompts.train == str(tmp_path / "train.txt")
    assert recipe.generator.checkpoint == "owner/model"
    assert recipe.rewards[0].checkpoint == "hps-v2.1"
    assert recipe.output == "runs/a"


def test_dumped_recipe_loads_back_equal_from_elsewhere(tmp_path: Path) -> None:
    recipe = load_recipe(
        write_recipe(tmp_path / "a"),
        ["lora.targets=[to_q, to_v]", "train.ema_decay=0.99", 'sampling.negative_prompt="1e-3"'],
    )
    text = dump_recipe(recipe, ["torch 2.15.0", "sha256 of the transformer: ab\nsecond line"])
    assert text.startswith("# torch 2.15.0\n# sha256 of the transformer: ab\n# second line\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "recipe.yaml").write_text(text, encoding="utf-8")
    assert load_recipe(tmp_path / "b" / "recipe.yaml") == recipe


def test_dump_writes_every_value(tmp_path: Path) -> None:
    data = read_yaml(dump_recipe(load_recipe(write_recipe(tmp_path))))
    assert data["train"]["adam_eps"] == 1e-10
    assert data["train"]["ema_decay"] is None
    assert data["method"] == {
        "kind": "drtune",
        "active_steps": 4,
        "early_stop": True,
        "stop_range": 0.4,
        "rescale": 1.0,
        "smallest_step": 0.25,
    }


def test_overrides(tmp_path: Path) -> None:
    recipe = load_recipe(
        write_recipe(tmp_path),
        [
            "train.steps=6",
            "output=elsewhere",
            "train.learning_rate=1e-5",
            "rewards.0.weight=0.5",
            "rewards.1={kind: clip, checkpoint: clip-vit-l-14, target: 0.3}",
            "method={kind: draft_k, active_steps: 2}",
            "train.ema_decay=0.9",
            "evaluation.steps=4",
        ],
    )
    assert recipe.train.steps == 6
    assert recipe.output == "elsewhere"
    assert recipe.train.learning_rate == 1e-5
    assert [reward.weight for reward in recipe.rewards] == [0.5, 1.0]
    assert recipe.rewards[1].target == 0.3
    assert recipe.method.kind == "draft_k"
    assert recipe.evaluation.steps == 4


def test_override_makes_a_section_that_the_file_leaves_out(tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    text = "\n".join(line for line in path.read_text().splitlines() if not line.startswith("lora"))
    text = text.replace("  rank: 8\n", "").replace("  alpha: 4\n", "")
    path.write_text(text.replace("  targets: attention\n", ""))
    assert "lora" not in read_yaml(path.read_text())
    assert load_recipe(path, ["lora.rank=2"]).lora.rank == 2


def test_parse_override() -> None:
    assert parse_override("rewards.0.weight=2") == (("rewards", 0, "weight"), 2)
    assert parse_override("a.b=x=y") == (("a", "b"), "x=y")
    assert parse_override("a=") == (("a",), None)


@pytest.mark.parametrize("text", ["train.steps", "=3", "train..steps=3", "a=[1"])
def test_bad_overrides(text: str) -> None:
    with pytest.raises(TuningError, match="override"):
        parse_override(text)


def test_names_in_overrides_start_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_recipe(tmp_path / "recipes")
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "mine.txt").write_text("a fox\n")
    monkeypatch.chdir(tmp_path / "here")
    recipe = load_recipe(path, ["prompts.train=mine.txt"])
    assert recipe.prompts.train == str(tmp_path / "here" / "mine.txt")
    assert recipe.prompts.held_out == str(tmp_path / "recipes" / "held.txt")


def test_checkpoints_relative_to_the_recipe(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path,
        generator__checkpoint="models/mine",
        rewards=[{"kind": "hps", "checkpoint": "judges/hps.pt"}],
    )
    (tmp_path / "models" / "mine").mkdir(parents=True)
    (tmp_path / "judges").mkdir()
    (tmp_path / "judges" / "hps.pt").touch()
    recipe = load_recipe(path)
    assert recipe.generator.checkpoint == str(tmp_path / "models" / "mine")
    assert recipe.rewards[0].checkpoint == str(tmp_path / "judges" / "hps.pt")


# --- mistakes


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    path = write_recipe(
        tmp_path,
        sampling__frames=10,
        sampling__hight=64,
        train__steps="many",
        prompts__train="nowhere.txt",
        generator__checkpoint="nothing",
        rewards=[{"kind": "hbs", "checkpoint": "hps-v2.1", "wieght": 2}],
    )
    lines = told(path, "method.active_steps=0", "nonsense", "lora=3")
    starts = [line.split(":")[0] for line in lines]
    assert sorted(starts) == sorted(
        [
            "sampling.frames",
            "sampling.hight",
            "train.steps",
            "prompts.train",
            "generator.checkpoint",
            "rewards.0.kind",
            "rewards.0.wieght",
            "method.active_steps",
            "command line",
            "lora",
        ]
    )


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("train.stepz=6", "train.stepz: unknown key (got 6); did you mean train.steps?"),
        (
            "learning_rate=1e-3",
            "learning_rate: unknown key (got 0.001); did you mean train.learning_rate?",
        ),
        ("lora_rank=4", "lora_rank: unknown key (got 4); did you mean lora.rank?"),
        (
            "train.guidance_scale=2",
            "train.guidance_scale: unknown key (got 2); did you mean sampling.guidance_scale?",
        ),
        (
            "prompts.zzz=1",
            "prompts.zzz: unknown key (got 1); allowed in prompts: held_out, train",
        ),
        ("train.steps=yes", "train.steps: got 'yes'; a whole number is wanted"),
        ("train.steps=true", "train.steps: got true; a whole number is wanted"),
        ("train.steps=2.5", "train.steps: got 2.5; a whole number is wanted"),
        ("train.steps=0", "train.steps: got 0; must be greater than or equal to 1"),
        ("train.learning_rate=null", "train.learning_rate: got null; a number is wanted"),
        ("train.anchor=.nan", "train.anchor: got nan; a finite number is wanted"),
        (
            "generator.dtype=bf16",
            "generator.dtype: got 'bf16'; allowed: float32, bfloat16, float16; "
            "did you mean bfloat16?",
        ),
        (
            "method.kind=draftk",
            f"method.kind: got 'draftk'; allowed: {', '.join(METHODS)}; did you mean draft_k?",
        ),
        (
            "method={active_steps: 3}",
            f"method.kind: is missing; allowed: {', '.join(METHODS)}",
        ),
        (
            "method={kind: draft_k, active_steps: 3, early_stop: true}",
            "method.early_stop: unknown key (got true); it is a key of kind drtune; allowed in "
            "method: active_steps, kind, nested, rescale, smallest_step",
        ),
        (
            "rewards.0.tower=clip-vit-l-14",
            "rewards.0.tower: unknown key (got 'clip-vit-l-14'); it is a key of kind aesthetic, "
            "aesthetic_v2_5; "
            "allowed in rewards.0: architecture, augmentation, checkpoint, chunk, dtype, "
            "frames, gradient_checkpointing, grayscale, kind, mean, name, over_frames, preprocess, "
            "prompt, relative, robust_radius, sha256, std, target, weight",
        ),
        (
            "rewards.0.over_frames={kind: softmin, sharpness: 9.0}",
            "rewards.0.over_frames.kind: got 'softmin'; allowed: mean, soft_min, best, random; did "
            "you mean soft_min?",
        ),
        (
            "evaluation.held_out_rewards.0.weight=2",
            "evaluation.held_out_rewards.0.weight: unknown key (got 2); did you mean "
            "rewards.0.weight or train.replay.weight?",
        ),
        (
            "rewards.0.chunks=2",
            "rewards.0.chunks: unknown key (got 2); did you mean rewards.0.chunk?",
        ),
        (
            "rewards.0={kind: hps}",
            "rewards.0.checkpoint: is missing; wanted: A shipped name "
            "(tiny/hps.safetensors), a file, a published name (hps-v2.1) or a hub id with its file "
            "(owner/name/file, owner/name/file@revision)",
        ),
        (
            "method={kind: drtune}",
            "method.active_steps: is missing; wanted: K, evenly spaced steps that receive gradient",
        ),
        ("train=5", "train: got 5; a section with keys is wanted"),
        ("rewards=[]", "rewards: got []; must not be empty"),
        ('output=""', "output: got ''; must not be empty"),
        (
            "rewards.2.weight=1",
            "rewards.2.weight: rewards has 1 entry, counted from 0, so there is no 2",
        ),
        ("rewards.x=1", "rewards.x: rewards is a list; give a position from 0 to 0, not x"),
        ("seed.x=1", "seed.x: seed is 3, which has no keys"),
        (
            "method.active_steps=17",
            "method.active_steps: got 17; at most sampling.steps = 16",
        ),
    ],
)
def test_mistakes(tmp_path: Path, override: str, line: str) -> None:
    assert told_once(write_recipe(tmp_path), override) == line


def test_sections_are_compared_although_another_is_wrong(tmp_path: Path) -> None:
    lines = told(write_recipe(tmp_path), "method.active_steps=17", "lora.rank=0")
    assert lines == [
        "lora.rank: got 0; must be greater than or equal to 1",
        "method.active_steps: got 17; at most sampling.steps = 16",
    ]


def test_a_wrong_kind_hides_no_other_mistake(tmp_path: Path) -> None:
    lines = told(write_recipe(tmp_path), "rewards.0={kind: hsp, checkpoint: hps-v2.1, chunk: 0}")
    assert lines == [
        f"rewards.0.kind: got 'hsp'; allowed: {', '.join(KINDS)}; did you mean hps?",
        "rewards.0.chunk: got 0; must be greater than or equal to 1",
    ]
    lines = told(write_recipe(tmp_path), "rewards.0={checkpoint: hps-v2.1, tower: 3}")
    assert lines == [  # no kind is like it: an aesthetic judge is the one that has a tower
        f"rewards.0.kind: is missing; allowed: {', '.join(KINDS)}",
        "rewards.0.tower: got 3; a text is wanted",
    ]
    like = "{kind: aesthetik, checkpoint: laion-aesthetic-v2, relative: {positive: a, negative: b}}"
    kind, relative = told(write_recipe(tmp_path), f"rewards.0={like}")
    assert kind.endswith("did you mean aesthetic?")  # and not one of those that know `relative`
    assert relative.startswith("rewards.0.relative: unknown key")


@pytest.mark.parametrize("value", ["nothing", "./a/b", "a/b/c", "gone/model.safetensors/x"])
def test_missing_generator(tmp_path: Path, value: str) -> None:
    line = told_once(write_recipe(tmp_path, generator__checkpoint=value))
    assert line.startswith(f"generator.checkpoint: got '{value}'; ")
    assert "hub id" in line


@pytest.mark.parametrize("value", ["nothing", "tiny/hps.pt", "./owner/name/file.pt", "a/b"])
def test_missing_judge(tmp_path: Path, value: str) -> None:
    line = told_once(write_recipe(tmp_path), f"rewards.0.checkpoint={value}")
    assert line.startswith(f"rewards.0.checkpoint: got '{value}'; no such judge")
    assert "hps-v2.1" in line


def test_hub_file_is_a_judge(tmp_path: Path) -> None:
    recipe = load_recipe(write_recipe(tmp_path), ["rewards.0.checkpoint=xswu/HPSv2/HPS_v2.1.pt"])
    assert recipe.rewards[0].checkpoint == "xswu/HPSv2/HPS_v2.1.pt"
    pinned = ["rewards.0.checkpoint=owner/name/some/file.pt@v1.0-3"]
    assert load_recipe(write_recipe(tmp_path), pinned).rewards[0].checkpoint.endswith("@v1.0-3")


def test_missing_prompts(tmp_path: Path) -> None:
    line = told_once(write_recipe(tmp_path, prompts__held_out="gone.jsonl"))
    assert line.startswith("prompts.held_out: got 'gone.jsonl'; no such prompt file")
    assert str(tmp_path / "gone.jsonl") in line


def test_missing_recipe() -> None:
    with pytest.raises(TuningError, match=r"no recipe 'tiny-drtune-hbs'.*tiny-drtune-hps"):
        load_recipe("tiny-drtune-hbs")


def test_recipe_that_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(TuningError, match="is a folder"):
        load_recipe(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a recipe has sections with keys; got null"),
        (b"- 1\n", "a recipe has sections with keys; got [1]"),
        (b"seed: 1\nseed: 2\n", "line 2: the key `seed` appears in line 1 already"),
        (b"seed: [1\n", "not valid YAML"),
        (b"# caf\xe9\n", "not UTF-8 text (byte 5)"),
    ],
)
def test_files_that_are_no_recipe(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(TuningError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
