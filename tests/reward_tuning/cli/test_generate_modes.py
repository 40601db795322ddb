"""`generate` in every mode: the shipped and small random checkpoints of each kind, real files."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from base_model.generator import load_generator
from base_model.sampling.guidance import Guidance
from base_model.sampling.sample import euler_sample
from base_model.sampling.sigmas import sigma_table
from reward_tuning.files.clips import read_clip
from reward_tuning.files.frame_files import fitted, read_picture
from reward_tuning.seeds import derive_seed
from tests.reward_tuning.command_line import Command, command
from tests.reward_tuning.kinds import FRAMES, HEIGHT, WIDTH, write_kind, write_media

run = pytest.fixture(command, name="run")
COMMON = [
    *("--prompt", "a red ball", "--steps", "4", "--guidance-scale", "3", "--device", "cpu"),
    *("--height", str(HEIGHT), "--width", str(WIDTH)),
]
# shipped checkpoint, options, previews
MODES: dict[str, tuple[str, str, set[str]]] = {
    "text to image": ("tiny", "--frames 1", set()),
    "text to image, inpaint": ("tiny-inpaint", "--frames 1", set()),
    "start image": ("tiny-inpaint", "--image start.png", set()),
    "end image": ("tiny-inpaint", "--end-image end.png", set()),
    "both images": ("tiny-inpaint", "--image start.png --end-image end.png", set()),
    "video to video": ("tiny-inpaint", "--video video.mp4 --strength 0.5", set()),
    "video to video without channels": ("tiny", "--video video.mp4 --strength 0.5", set()),
    "masked edit": ("tiny-inpaint", "--video video.mp4 --mask mask.png", {"mask"}),
    "prolongation": ("tiny-inpaint", "--extend video.mp4 --keep-frames 1", {"mask"}),
    "prolongation of a short clip": ("tiny-inpaint", "--extend short.mp4", {"mask"}),
    "control": ("tiny-control", "--control video.mp4", {"control"}),
    "canny": ("tiny-control", "--control video.mp4 --control-type canny", {"control"}),
    "two controls": ("tiny-control", "--control video.mp4 --control other.mp4", {"control"}),
    "control and reference": (
        "tiny-control",
        "--control video.mp4 --reference reference.png",
        {"control"},
    ),
    "trajectory": ("tiny-control", "--trajectory points.json", {"control", "heat-map"}),
    "trajectory and reference": (
        "tiny-control",
        "--trajectory points.json --reference reference.png",
        {"control", "heat-map"},
    ),
    "pose file": ("tiny-camera", "--camera poses.txt", {"camera"}),
    "motion": ("tiny-camera", '--camera "pan left" --camera-speed 2', {"camera"}),
    "motion and reference": (
        "tiny-camera",
        '--camera "zoom in" --reference reference.png',
        {"camera"},
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_media(tmp_path_factory.mktemp("modes"))
    for channels in (16, 33, 48, 38):
        write_kind(folder / str(channels), channels)
    return folder


@pytest.fixture(scope="module")
def texts() -> dict[str, Tensor]:
    """Each checkpoint's clip of the prompt alone, once it is drawn."""
    return {}


words = shlex.split


def strip(path: Path) -> Tensor:
    """`(3, H, f W)` of a png."""
    return torch.from_numpy(np.array(Image.open(path))).permute(2, 0, 1).float() / 255


@pytest.mark.parametrize("name", MODES)
def test_a_clip_of_each_mode(
    run: Command,
    folder: Path,
    texts: dict[str, Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    checkpoint, options, previews = MODES[name]
    monkeypatch.chdir(folder)
    frames = [] if "--frames" in options else ["--frames", str(FRAMES)]
    arguments = ["generate", "--checkpoint", checkpoint, *COMMON, *frames]
    done = run(*arguments, *words(options), "--previews", "--output", tmp_path / "out.png")
    assert done.code == 0, done.err
    found = strip(tmp_path / "out.png")
    assert found.shape == (3, HEIGHT, WIDTH * (FRAMES if frames else 1))
    written = {path.name for path in tmp_path.iterdir()}
    assert written == {"out.png", *(f"out.{preview}.png" for preview in previews)}
    if frames:
        text = texts.get(checkpoint)
        if text is None:
            assert run(*arguments, "--output", tmp_path / "text.png").code == 0
            text = texts[checkpoint] = strip(tmp_path / "text.png")
        assert float((text - found).abs().mean()) > 1e-4


def test_the_page_of_the_generator_has_a_line_for_each_of_these() -> None:
    """And no other: mode, checkpoint, options, what was measured."""
    page = (Path(__file__).parents[3] / "docs" / "generator.md").read_text(encoding="utf-8")
    table = page[page.index("| mode | checkpoint |") :].split("\n\n")[0].splitlines()[2:]
    named = []
    for line in table:
        _, _, checkpoint, options, measured, _ = re.split(r"(?<!\\)\|", line)
        assert measured.strip(), line
        named += [(checkpoint.strip(" `"), one) for one in re.findall(r"`(--[^`]*)`", options)]
    assert sorted(named) == sorted(
        (checkpoint, options) for checkpoint, options, _ in MODES.values()
    )


@torch.no_grad()
def test_image_to_video_by_hand(run: Command, folder: Path, tmp_path: Path) -> None:
    done = run(
        *("generate", "--checkpoint", folder / "33", *COMMON, "--frames", FRAMES, "--seed", 6),
        *("--image", folder / "start.png", "--output", tmp_path / "out.png"),
    )
    assert done.code == 0, done.err
    generator = load_generator(folder / "33")
    image = fitted(read_picture(folder / "start.png")[None], HEIGHT, WIDTH)
    condition = generator.condition(
        generator.encode_prompts(["a red ball"], [""]),
        image=image,
        frames=FRAMES,
        noise_seeds=[derive_seed(6, "kept pixels")],
    )
    noise = generator.initial_noise(generator.latent_shape(1, FRAMES, HEIGHT, WIDTH), [6])
    latents = euler_sample(generator, condition, noise, sigma_table(4), Guidance(3.0))
    wanted = torch.cat(list(generator.decode(latents)[0]), dim=2)
    assert float((strip(tmp_path / "out.png") - wanted).abs().max()) < 0.6 / 255


@torch.no_grad()
def test_video_to_video_by_hand(run: Command, folder: Path, tmp_path: Path) -> None:
    done = run(
        *("generate", "--checkpoint", folder / "33", *COMMON, "--frames", FRAMES),
        *("--video", folder / "video.mp4", "--strength", 0.5, "--output", tmp_path / "out.png"),
    )
    assert done.code == 0, done.err
    assert "step 4 of 4" in done.err or "clips 0/1" in done.err
    generator = load_generator(folder / "33")
    video = fitted(read_clip(folder / "video.mp4")[:FRAMES], HEIGHT, WIDTH)[None]
    sigmas = sigma_table(4)[2:]  # half of four steps
    noise = generator.initial_noise(generator.latent_shape(1, FRAMES, HEIGHT, WIDTH), [0])
    start = (1 - sigmas[0]) * generator.encode(video) + sigmas[0] * noise
    text = generator.condition(generator.encode_prompts(["a red ball"], [""]))
    latents = euler_sample(generator, text, start, sigmas, Guidance(3.0))
    wanted = torch.cat(list(generator.decode(latents)[0]), dim=2)
    assert float((strip(tmp_path / "out.png") - wanted).abs().max()) < 0.6 / 255


BAD: dict[str, tuple[int, str, str]] = {
    "a text-to-video checkpoint": (
        16,
        "--image start.png",
        "start.png: The transformer has 16 input channels, the text-to-video kind, which does not "
        "take the image. Use the inpaint checkpoint (33 channels",
    ),
    "control for inpaint": (33, "--control video.mp4", "Use the control checkpoint (48 channels"),
    "18 columns": (38, "--camera columns.txt", "columns.txt, line 2: 18 columns"),
    "no motion": (38, "--camera 'pan sideways'", "'pan sideways' is not a motion"),
    "outside": (48, "--trajectory outside.json", "outside.json"),
    "mask of another size": (
        33,
        "--video video.mp4 --mask small-mask.png",
        "small-mask.png: 47 x 96 (height x width), its video",
    ),
    "short control": (48, "--control short.mp4", "short.mp4: 3 frames are fewer than the clip's 5"),
    "corrupt": (33, "--video corrupt.mp4 --strength 0.5", "corrupt.mp4: not a video that can"),
    "no picture": (33, "--image video.mp4", "video.mp4: not a picture that can be read"),
    "no file": (33, "--image gone.png", "image"),
    "depth": (48, "--control video.mp4 --control-type depth", "needs a network of its own"),
    "mask alone": (33, "--mask mask.png", "mask needs video, which is not given"),
    "keep alone": (33, "--keep-frames 1", "keep frames needs extend"),
    "type alone": (48, "--control-type canny", "control type needs control"),
    "speed of a file": (38, "--camera poses.txt --camera-speed 2", "which sets its own speed"),
    "nothing left": (33, "--video video.mp4 --strength 1", "with strength 1 and no mask nothing"),
    "no video": (33, "--strength 0.5", "starts from a video, and none is given"),
    "no step": (33, "--video video.mp4 --strength 0.1", "0.1 of 4 steps is less than one step"),
    "strength": (33, "--video video.mp4 --strength 1.5", "strength 1.5; allowed: above 0, up to 1"),
    "attention": (16, "--attention none", "--attention: got 'none'; allowed: auto, math, flash"),
    "too long": (33, "--extend video.mp4", "extend"),
    "image and video": (33, "--image start.png --video video.mp4 --mask mask.png", "both define"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(
    run: Command, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    channels, options, message = BAD[name]
    monkeypatch.chdir(folder)
    done = run(
        *("generate", "--checkpoint", folder / str(channels), *COMMON, "--frames", FRAMES),
        *(*words(options), "--output", tmp_path / "out.png"),
    )
    assert done.code == 2
    assert message in done.err
    assert "Traceback" not in done.err
    assert list(tmp_path.iterdir()) == []
