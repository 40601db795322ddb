"""ls, show, cp, validate, help: what they print, what they refuse, what they do not import."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reward_tuning import __version__, cli
from reward_tuning.cli.cp import own_output
from reward_tuning.files.yaml_text import read_yaml
from reward_tuning.schema.judge_kinds import KINDS
from reward_tuning.schema.locate import find_recipe, finetune_recipes, shipped_recipes
from rewards.core.locate import shipped_names
from rewards.core.published import PUBLISHED
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.recipes_for_tests import write_recipe

run = pytest.fixture(command, name="run")
VERBS = ["ls", "show", "cp", "validate", "calibrate", "run", "finetune", "resume", "generate"]
VERBS += ["score", "export", "convert", "render", "pretrain"]


def test_version(run: Command) -> None:
    done = run("--version")
    declared = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert (done.code, done.out) == (0, f"reward-tuning {__version__}\n")
    assert f'\nversion = "{__version__}"\n' in declared


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["ls"],
        ["ls", "--json"],
        ["show", "tiny-drtune-hps"],
        *([verb, "--help"] for verb in VERBS),
    ],
    ids=" ".join,
)
def test_starts_without_torch(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "from reward_tuning.cli import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as left:\n"
        "    assert not left.code, left.code\n"
        "heavy = {'torch', 'numpy', 'transformers', 'diffusers', 'imageio', 'rewards'}\n"
        "print('imported:', *sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "imported:"


def test_verbs() -> None:
    assert [verb.__name__ for verb in cli.VERBS] == VERBS


def test_help_names_every_verb(run: Command) -> None:
    done = run("--help")
    assert done.code == 0
    for verb in VERBS:
        assert f" {verb} " in done.out


def test_unknown_verb_and_option(run: Command) -> None:
    assert run("trian").code == 2
    assert run("ls", "--jsn").code == 2


def test_ls(run: Command) -> None:
    done = run("ls")
    assert done.code == 0
    found = json.loads(run("ls", "--json").out)
    recipes = [*shipped_recipes(), *finetune_recipes()]
    assert [entry["name"] for entry in found["recipes"]] == [r.name for r in recipes]
    for group, entries in found.items():
        assert entries
        for entry in entries:
            assert entry["about"]
            assert entry["name"] in done.out
            if group in ("recipes", "generators", "judges", "prompts"):
                assert Path(entry["path"]).exists()
    prompts = {entry["name"]: entry["about"] for entry in found["prompts"]}
    assert prompts["prompts/scenes-train.jsonl"] == "48 prompts"


def test_ls_says_what_each_judge_is(run: Command) -> None:
    found = json.loads(run("ls", "--json").out)
    judges = {entry["name"]: entry for entry in found["judges"]}
    assert set(judges) == set(shipped_names())
    align = judges["tiny/video-align"]
    assert align["kind"] == "video_align"
    assert align["about"].startswith("video_align: VideoReward of VideoAlign")
    assert align["command"] == "reward-tuning pretrain tiny --only video-align --seed 0"
    kinds = {*KINDS, "tower"}
    assert all(entry["kind"] in kinds for entry in judges.values())
    assert "human preference; 1.9 MB" in judges["tiny/hps.safetensors"]["about"]
    published = {entry["name"]: entry for entry in found["published_judges"]}
    assert list(published) == [entry.name for entry in PUBLISHED]
    assert "1.97 GB, from xswu/HPSv2" in published["hps-v2.1"]["about"]
    weightless = [entry["name"] for entry in found["judges_without_weights"]]
    assert weightless == ["motion_energy", "motion_flow", "flicker", "sharpness"]
    others = [entry["name"] for entry in found["other_judges"]]
    assert others == ["consistency", "dynamic_degree", "python"]


def test_ls_reads_what_a_checkpoint_says_of_itself(
    run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from safetensors.torch import save_file

    import base_model.files.shipped

    (tmp_path / "mini" / "transformer").mkdir(parents=True)
    told = {"command": "reward-tuning pretrain mini [x]"}
    save_file(
        {"w": torch.zeros(250_000)}, tmp_path / "mini" / "transformer" / "m.safetensors", told
    )
    monkeypatch.setattr(base_model.files.shipped, "WEIGHTS", tmp_path)
    (entry,) = json.loads(run("ls", "--json").out)["generators"]
    assert entry["about"] == "1.0 MB; reward-tuning pretrain mini [x]"
    assert "pretrain mini [x]" in run("ls").out  # brackets are no markup
    (tmp_path / "mini" / "transformer" / "m.safetensors").write_bytes(b"cut")
    (entry,) = json.loads(run("ls", "--json").out)["generators"]
    assert entry["about"] == "0.0 MB"


def test_show_is_the_file_with_its_comments(run: Command) -> None:
    done = run("show", "easyanimate-v5.1-7b-hps")
    path = next(r.path for r in shipped_recipes() if r.name == "easyanimate-v5.1-7b-hps")
    assert done == (0, path.read_text(encoding="utf-8"), "")
    assert done.out.startswith("# ")


def test_show_unknown(run: Command) -> None:
    done = run("show", "tiny-drtune-hbs")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: no recipe 'tiny-drtune-hbs'")
    assert "Traceback" not in done.err


@pytest.mark.parametrize("name", [r.name for r in (*shipped_recipes(), *finetune_recipes())])
def test_cp(run: Command, tmp_path: Path, name: str) -> None:
    """Letter for letter, but for the run folder, which is the copy's own."""
    source = find_recipe(name).read_text(encoding="utf-8")
    target = tmp_path / "new" / "my: one.yaml"
    done = run("cp", name, target)
    assert done.out.startswith(f"{target}, its output is runs/my: one\n")
    assert [path.name for path in target.parent.iterdir()] == ["my: one.yaml"]
    copied = target.read_text(encoding="utf-8")
    changed = [
        (a, b) for a, b in zip(source.splitlines(), copied.splitlines(), strict=True) if a != b
    ]
    assert len(changed) == 1
    assert changed[0][0].startswith("output: runs/")
    assert read_yaml(copied) == read_yaml(source) | {"output": "runs/my: one"}


def test_cp_keeps_comments_and_recipes_without_output() -> None:
    text = "seed: 1\noutput: 'a b'  # mine\nother: {output: x}\n  output: y\n"
    assert own_output(text, "b")[0] == text.replace("'a b'", "runs/b")
    assert own_output("seed: 1\n", "b") == ("seed: 1\n", "")


def test_cp_into_a_folder(run: Command, tmp_path: Path) -> None:
    assert run("cp", "tiny-drtune-hps", tmp_path).code == 0
    assert (tmp_path / "tiny-drtune-hps.yaml").is_file()


def test_cp_does_not_overwrite(run: Command, tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    target.write_text("mine")
    done = run("cp", "tiny-drtune-hps", target)
    assert done.code == 2
    assert "--overwrite" in done.err
    assert target.read_text() == "mine"
    assert run("cp", "tiny-drtune-hps", target, "--overwrite").code == 0
    assert target.read_text().startswith("# ")


def test_cp_where_nothing_can_be_written(run: Command, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("cp", "tiny-drtune-hps", tmp_path / "file" / "mine.yaml")
    assert done.code == 2
    assert done.err.startswith("error: ")


def test_validate_prints_the_resolved_recipe(run: Command, tmp_path: Path) -> None:
    path = write_recipe(tmp_path)
    done = run("validate", path, "train.steps=7")
    assert done.code == 0
    data = read_yaml(done.out)
    assert data["train"]["steps"] == 7
    assert data["train"]["adam_eps"] == 1e-10
    assert data == json.loads(run("validate", path, "train.steps=7", "--json").out)
    # neither judge is here, and that is no mistake of the recipe
    assert "hf download xswu/HPSv2 HPS_v2.1_compressed.pt" in done.err


def test_validate_tells_all_mistakes(run: Command, tmp_path: Path) -> None:
    done = run("validate", write_recipe(tmp_path), "train.stepz=7", "sampling.frames=8")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("error: 2 mistakes in ")
    assert "did you mean train.steps?" in done.err
    assert "nearest: 5 or 9" in done.err
    assert "Traceback" not in done.err


def test_a_key_of_several_kinds_is_suggested_once(run: Command) -> None:
    done = run("validate", "tiny-draft-hps", "method.negative=detached")
    meant = done.err.partition("did you mean ")[2].partition("?")[0].split(" or ")
    assert "sampling.negative" in meant
    assert len(meant) == len(set(meant)) > 1


def test_long_errors_are_cut_and_what_is_left_out_is_counted(run: Command, tmp_path: Path) -> None:
    name = "".join(f"{i} " for i in range(2000))
    for arguments in (["show", name], ["validate", write_recipe(tmp_path), f"{name}=1"]):
        done = run(*arguments)
        assert done.code == 2
        assert len(done.err) < 500
    assert re.search(r"\d characters left out", run("show", name).err)
    assert run("show", "gone").err.endswith("`reward-tuning ls` lists the shipped ones\n")
    done = run("validate", write_recipe(tmp_path), *(f"{i}x{name}={i}" for i in range(40)))
    assert len(done.err) < 2000
    assert re.search(r"and \d+ more", done.err)


def test_validate_reads_prompts_and_makes_a_plan(run: Command, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, method__active_steps=16, evaluation__prompts=3)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "a"}\nnothing\n')
    done = run("validate", path, f"prompts.train={tmp_path / 'bad.jsonl'}")
    assert done.code == 2
    assert "line 2: not valid JSON" in done.err
    assert "evaluation.prompts: 3 are wanted and prompts.held_out has 2" in done.err
    assert "method.active_steps is 16" in done.err  # the earliest stop leaves fewer


def test_unexpected_exceptions_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, besides: str = "") -> Path:
        raise ValueError("a defect")

    monkeypatch.setattr(sys.modules["reward_tuning.cli.show"], "find_recipe", broken)
    with pytest.raises(ValueError, match="a defect"):
        cli.main(["show", "x"])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("reward_tuning.errors", "TuningError"),
        ("base_model.errors", "GeneratorError"),
        ("rewards.errors", "RewardError"),
    ],
)
def test_the_three_families_end_in_one_line(
    run: Command, monkeypatch: pytest.MonkeyPatch, module: str, name: str
) -> None:
    import importlib

    family = getattr(importlib.import_module(module), name)

    def refuse(_: str, besides: str = "") -> Path:
        raise family("what is wrong, and the next step")

    monkeypatch.setattr(sys.modules["reward_tuning.cli.show"], "find_recipe", refuse)
    assert run("show", "x") == (2, "", "error: what is wrong, and the next step\n")


def test_module_runs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "reward_tuning.cli", "show", "gone"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: no recipe 'gone'")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that is always full")
@pytest.mark.parametrize("words", [["ls"], ["ls", "--json"]])
def test_a_full_place_that_is_printed_to_is_told(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "reward_tuning.cli", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.startswith("error: cannot write to stdout: No space left")
    assert done.stderr.count("\n") == 1
