"""The Python interface: light to import, and the same clips as the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import reward_tuning as rt
from reward_tuning.cli import main
from reward_tuning.lora.adapter import adapted_layers

PROMPT = "a small red circle moves to the right"
SMALL = {"steps": 2, "guidance_scale": 3.0, "seed": 4}


@pytest.mark.slow
def test_importing_loads_no_torch_and_every_name_is_there() -> None:
    code = (
        "import sys, reward_tuning as rt; assert 'torch' not in sys.modules; "
        "assert set(rt.__all__) <= set(dir(rt)); "
        "print(*[getattr(rt, name).__name__ for name in rt.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == rt.__all__


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        rt.evalute  # noqa: B018


def test_clips_are_those_of_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as left:
        main(
            [
                *(
                    "generate",
                    "--checkpoint",
                    "tiny",
                    "--prompt",
                    PROMPT,
                    "--prompt",
                    "a blue star",
                ),
                *("--steps", "2", "--guidance-scale", "3", "--seed", "4", "--frames", "1"),
                *("--guidance-steps", "0", "0.5"),
                *("--output", str(tmp_path), "--format", "png", "--device", "cpu"),
            ]
        )
    assert left.value.code in (0, None)
    generator = rt.load_generator("tiny")
    settings: dict[str, Any] = {"size": (1, 64, 64), "guidance_steps": (0.0, 0.5), **SMALL}
    clips = rt.generate(generator, [PROMPT, "a blue star"], **settings)
    for clip, path in zip(clips, sorted(tmp_path.glob("*.png")), strict=True):
        assert torch.allclose(rt.read_clip(path), clip, atol=0.51 / 255)  # eight bits a value
    (line, _) = (tmp_path / "clips.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["guidance_steps"] == [0.0, 0.5]
    everywhere = rt.generate(generator, PROMPT, **settings | {"guidance_steps": (0.0, 1.0)})
    assert not torch.allclose(everywhere[0], clips[0], atol=0.01)
    with pytest.raises(rt.GeneratorError, match="interval of guidance"):
        rt.generate(generator, PROMPT, **settings | {"guidance_steps": (0.5, 0.2)})


def test_size_of_a_loaded_generator_must_be_given() -> None:
    with pytest.raises(rt.TuningError, match=r"size is None.*size=\(49, 384, 672\)"):
        rt.generate(rt.load_generator("tiny"), PROMPT)


def test_wrong_size_and_missing_lora_are_refused() -> None:
    generator = rt.load_generator("tiny")
    with pytest.raises(rt.GeneratorError, match="10"):
        rt.generate(generator, PROMPT, size=(10, 64, 64))
    with pytest.raises(rt.TuningError, match="no LoRA at nowhere"):
        rt.generate(generator, PROMPT, size=(1, 64, 64), lora="nowhere")


@pytest.mark.slow
def test_run_resume_and_generate_with_its_lora(tmp_path: Path) -> None:
    changes = ["train.steps=1", "train.batch_size=2", "evaluation.prompts=2", "evaluation.steps=2"]
    seen: list[str] = []
    result = rt.run(
        "tiny-demo",
        [*changes, f"output={tmp_path / 'run'}"],
        progress=lambda event: seen.append(event.stage),
    )
    assert (result.folder, result.steps) == (tmp_path / "run", 1)
    assert "training" in seen
    again = rt.resume(result.folder)
    assert again.evaluation == result.evaluation
    generator = rt.load_generator("tiny")
    base = rt.generate(generator, PROMPT, size=(1, 64, 64), **SMALL)  # type: ignore[arg-type]
    clips = {
        scale: rt.generate(
            generator,
            PROMPT,
            size=(1, 64, 64),
            lora=result.folder,
            lora_scale=scale,
            **SMALL,  # type: ignore[arg-type]
        )
        for scale in (0.0, 1.0)
    }
    assert torch.equal(clips[0.0], base)
    assert not torch.equal(clips[1.0], base)
    never = rt.generate(
        generator,
        PROMPT,
        size=(1, 64, 64),
        lora=result.folder,
        lora_schedule="below:0.0001",
        **SMALL,  # type: ignore[arg-type]
    )
    assert torch.equal(never, base)
    with pytest.raises(rt.TuningError, match="the LoRA schedule is 'late'"):
        rt.generate(generator, PROMPT, lora_schedule="late")
    assert not adapted_layers(generator.transformer)


def test_resume_of_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(rt.TuningError, match="is not a run folder"):
        rt.resume(tmp_path)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": 0}, "steps is 0; allowed: 1 or more"),
        ({"guidance_scale": float("nan")}, "guidance_scale is nan; allowed: finite"),
        ({"lora_scale": float("inf")}, "lora_scale is inf; allowed: finite"),
    ],
)
def test_numbers_that_give_no_clip_are_refused(options: dict[str, float], text: str) -> None:
    with pytest.raises(rt.TuningError, match=text):
        rt.generate("tiny", PROMPT, size=(1, 64, 64), **options)  # type: ignore[arg-type]
