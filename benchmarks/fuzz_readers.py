"""Throws damaged files at every reader of files that people write, and counts what is no message.

    python benchmarks/fuzz_readers.py                     # 20,000 cases of each target
    python benchmarks/fuzz_readers.py prompts yaml --cases 1000 --seed 7

A case is a file that is right, changed by one to four slips: bytes turned, parts cut, doubled or
moved, numbers of 400 or 5,000 digits, NaN, nesting a thousand deep, halves of letters, NUL, names
that no file has. A reader may read it, or say what is wrong in one of the project's errors, in at
most 2,000 characters (500 for LoRA files). Anything else, a Python warning included, is counted as
a fault and printed with the seed that repeats it. The exit code is the number of targets with
faults.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import re
import struct
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from base_model.conditions.camera import clip_poses, plucker_rays, pose_table, read_pose_file
from base_model.conditions.camera_motions import motion_matrices, motion_poses
from base_model.conditions.trajectory import heat_maps, read_points_file
from base_model.errors import GeneratorError
from reward_tuning.errors import TuningError
from reward_tuning.evidence.any_recipe import load_any_recipe
from reward_tuning.files.clips import clip_frames, probe_clip
from reward_tuning.files.gif_file import gif_bytes
from reward_tuning.files.yaml_text import read_yaml, write_yaml
from reward_tuning.finetune.metadata import read_metadata
from reward_tuning.inputs.prompts import read_prompts
from reward_tuning.judges.clip_files import read_file_prompts
from reward_tuning.schema.loading import dump_recipe
from reward_tuning.schema.locate import shipped_folder
from reward_tuning.tuning.replay_sources import read_sources
from rewards import RewardError

LONGEST_MESSAGE = 2000
LONGEST_OF = {"lora": 500}
SLOWEST = 60.0  # seconds of work on one case: a turned byte makes a BMP of 139 million pixels
CASES = 20_000
SHOWN = 5  # faults of a target that are printed whole

NUMBERS = (
    "0", "-1", "1e400", "-1e400", "NaN", "Infinity", "1e-400", "0.1", "9" * 19, "-" + "9" * 400,
    "9" * 5000, "1_000", "0x10", "010", "1" + "0" * 309, "18446744073709551616", "2.5", "1e5",
)  # fmt: skip
TEXTS = (
    "", " ", "\0", "\ud83d", "\udcff", "\u200b", "\ufeff", "null", "true", "#", "a" * 300,
    "a/" * 2100, "../..", "~nobody/a", "~", "/", ".", "a\nb", '"', "'", "\\", ",", ";", "\t", "{",
    "[", ":", "- ", "é", "红", "😀", "\u2028", "\x1b[31m", "%s%n", "nul.mp4", "-", "!!int", "&a",
    "*a", '"\\ud83d"', "\\ud83d", '"a\\0b"', "a: b", "| ", "> ", "<<", "? ", "=", "promt",
    "file_pth", "contol_file_path", "x" * 5000,
)  # fmt: skip
NUMBER = re.compile(r"-?\d+(\.\d+)?(e-?\d+)?")
VALUE = re.compile(r"(?<=[:=] )[^\s,{}\[\]]+")
VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**63, 2**64, 10**400, 1.5, float("nan"), float("inf"),
    "", "a", "\0", "\ud83d", "a" * 300, [], {}, [[]], [None], {"": None}, {"a": {"a": []}},
)  # fmt: skip


@dataclass
class Case:
    """One damaged input and the draws behind it."""

    draw: random.Random
    folder: Path

    def file(self, name: str, content: bytes) -> Path:
        """Write a file of the case."""
        path = self.folder / name
        path.write_bytes(content)
        return path

    def damaged(self, text: str) -> bytes:
        """A text after one to four slips, as bytes."""
        data = text
        for _ in range(self.draw.randint(1, 4)):
            data = self._slip(data)
        content = data.encode("utf-8", errors="surrogatepass")
        if self.draw.random() < 0.15:
            content = self.turned(content)
        return content

    def text(self, text: str) -> str:
        """A text after one to four slips."""
        return self.damaged(text).decode("utf-8", errors="surrogateescape")

    def _slip(self, text: str) -> str:
        draw = self.draw
        start = draw.randrange(len(text) + 1)
        end = min(len(text), start + int(draw.expovariate(0.1)))
        before, part, after = text[:start], text[start:end], text[end:]
        slips: tuple[Callable[[], str], ...] = (
            lambda: before + after,
            lambda: before + part + part + after,
            lambda: before,
            lambda: before + draw.choice(TEXTS) + after,
            lambda: before + draw.choice(NUMBERS) + after,
            lambda: before + self._nested(part) + after,
            lambda: self._in_json(text),
            lambda: self._instead(text, NUMBER, NUMBERS),
            lambda: self._instead(text, VALUE, (*TEXTS, *NUMBERS)),
            lambda: self._shuffled(text),
            lambda: text.replace("\n", draw.choice(("\r\n", "\r", "\n\n", "\0\n", "\n#\n"))),
        )
        return draw.choice(slips)()

    def _nested(self, part: str) -> str:
        opened, closed = self.draw.choice(("[]", "{}"))
        deep = self.draw.choice((3, 50, 1000, 100_000))
        return opened * deep + part + closed * (deep * self.draw.randrange(2))

    def _shuffled(self, text: str) -> str:
        lines = text.splitlines(keepends=True)
        self.draw.shuffle(lines)
        return "".join(lines)

    def _instead(self, text: str, pattern: re.Pattern[str], others: Sequence[str]) -> str:
        """Put something else for one of the places of a pattern."""
        found = list(pattern.finditer(text))
        if not found:
            return text
        one = self.draw.choice(found)
        return text[: one.start()] + self.draw.choice(others) + text[one.end() :]

    def _in_json(self, text: str) -> str:
        """Put a wrong value somewhere into a JSON document, or into one of its lines."""
        lines = text.splitlines() or [""]
        place = self.draw.randrange(len(lines))
        for whole in (True, False):
            try:
                data = json.loads(text if whole else lines[place])
            except ValueError:
                continue
            except RecursionError:
                return text
            changed = json.dumps(self._changed(data), ensure_ascii=self.draw.random() < 0.5)
            return changed if whole else "\n".join([*lines[:place], changed, *lines[place + 1 :]])
        return text

    def _changed(self, data: Any) -> Any:
        draw = self.draw
        if draw.random() < 0.3 or not data or not isinstance(data, list | dict):
            return draw.choice(VALUES)
        if isinstance(data, list):
            place = draw.randrange(len(data))
            return [*data[:place], self._changed(data[place]), *data[place + 1 :]]
        key = draw.choice(list(data))
        if draw.random() < 0.3:
            others = {k: v for k, v in data.items() if k != key}
            return {**others, draw.choice(TEXTS): data[key]}
        return {**data, key: self._changed(data[key])}

    def turned(self, content: bytes) -> bytes:
        """Bytes of which one to five are others."""
        changed = bytearray(content)
        for _ in range(self.draw.randint(1, 5)):
            if changed:
                changed[self.draw.randrange(len(changed))] = self.draw.randrange(256)
        return bytes(changed)


ROW_FILES = {
    ".csv": 'prompt,reward_prompt,image\n"a, red star",star,\na blue circle,,a.png\n',
    ".tsv": "prompt\treward_prompt\na red star\tstar\na blue circle\t\n",
    ".jsonl": '{"prompt": "a red star", "reward_prompt": "star", "control": ["a.png"]}\n'
    '{"prompt": "a blue circle", "camera": "pan left", "camera_speed": 2, "keep_frames": 3}\n',
    ".ndjson": '{"prompt": "a red star", "extend": "a.png", "keep_frames": 3}\n',
    ".json": '["a red star", {"prompt": "a blue circle", "video": "a.png"}]',
    ".txt": "a red star\n# a comment\n\n一个红色五角星\n",
}


def prompts(case: Case) -> None:
    """Prompt files, files of clips and prompts, and files of clips to replay."""
    ending = case.draw.choice(list(ROW_FILES))
    text = ROW_FILES[ending]
    read: Callable[[Path], object] = read_prompts
    if ending != ".txt" and case.draw.random() < 0.4:
        key, read = case.draw.choice((("file", read_file_prompts), ("video", read_sources)))
        text = text.replace("reward_prompt", key).replace('"camera"', f'"{key}"')
    read(case.file(f"p{ending}", case.damaged(text)))


METADATA = {
    ".csv": 'file_path,text,type,control_file_path\na.mp4,"a, b",video,\nb.png,c,image,p.txt\n',
    ".json": '[{"file_path": "a.mp4", "text": "a", "type": "video", "width": 640},\n'
    ' {"file_path": "b.png", "text": "", "control_file_path": null}]',
    ".jsonl": '{"file_path": "a.mp4", "text": "a"}\n{"file_path": "b.mp4", "text": "b"}\n',
    ".tsv": "file_path\ttext\na.mp4\ta\n",
}


def metadata(case: Case) -> None:
    """Lists of clips to train on."""
    ending = case.draw.choice(list(METADATA))
    path = case.file(f"m{ending}", case.damaged(METADATA[ending]))
    folder = None if case.draw.random() < 0.8 else case.folder / "clips"
    for row in read_metadata(path, folder):
        assert not row.file.is_dir()
        row.file.is_file()


def cameras(case: Case) -> None:
    """Pose files and motions in words."""
    if case.draw.random() < 0.3:
        speed = case.draw.choice((1.0, 0.0, -1.0, 1e308, float("nan"), float("inf"), 2.5))
        motion_poses(case.text("pan left and up then zoom in"), 9, speed)
        return
    table = pose_table(motion_matrices("pan left then roll clockwise", 9))
    lines = ["https://example.org/clip", *(" ".join(f"{v:.6g}" for v in row) for row in table)]
    poses = read_pose_file(case.file("poses.txt", case.damaged("\n".join(lines) + "\n")))
    rays = plucker_rays(clip_poses(poses, min(len(poses), 9)), 4, 6)
    assert rays.isfinite().all(), "rays that are not finite"


POINTS = (
    '{"coordinates": "relative", "objects": [{"name": "ball", "points": [{"x": 0.1, "y": 0.5, '
    '"frame": 0}, {"x": 0.9, "y": 0.5, "frame": 8}]}, {"points": [{"x": 0.5, "y": 0.5}]}]}',
    '[{"x": 10, "y": 20}, {"x": 30, "y": 40}]',
    '[[{"x": 10, "y": 20, "frame": 1}], [{"x": 5, "y": 6}]]',
)


def trajectories(case: Case) -> None:
    """Points files."""
    path = case.file("points.json", case.damaged(case.draw.choice(POINTS)))
    heat_maps(read_points_file(path), 9, 64, 64, source=str(path))


OVERRIDES = (
    "train.steps=6", "rewards.0.weight=2", "output=runs/x", "prompts.train=tiny/train.jsonl",
    "rewards.0={kind: hps, checkpoint: tiny/hps.safetensors}", "seed=3", "method.kind=draft",
)  # fmt: skip


def recipes(case: Case) -> None:
    """Recipes of both verbs, with overrides."""
    found = sorted(shipped_folder("recipes").rglob("tiny*.yaml"))
    path = case.draw.choice(found)
    text = path.read_text(encoding="utf-8")
    body = text[text.index("seed:") :] if "seed:" in text else text
    if case.draw.random() < 0.8:
        path = case.file("recipe.yaml", case.damaged(body))
    overrides = [
        case.text(one) if case.draw.random() < 0.6 else one
        for one in case.draw.sample(OVERRIDES, case.draw.randint(0, 2))
    ]
    loaded = load_any_recipe(path, overrides)
    again = case.file("again.yaml", dump_recipe(loaded).encode())
    assert load_any_recipe(again) == loaded, "what is written does not load back equal"


YAML = """\
seed: 0
generator: {checkpoint: tiny, dtype: float32}
rewards:
  - {kind: hps, checkpoint: tiny/hps.safetensors, weight: 1.0}
  - kind: clip
    weight: 3.0e-4
text: "a: b"
list: [1, 2.5, null, true, off, 1:30, 010, .inf]
folded: >
  two
  lines
"""


def yaml(case: Case) -> None:
    """YAML on its own: what is read is written so that it reads back equal."""
    data = read_yaml(case.text(YAML))
    again = read_yaml(write_yaml(data))
    assert repr(again) == repr(data), "what is written does not read back equal"


MODULE = "transformer_blocks.0.attn1.to_q"
PREFIXES = ("", "transformer.", "base_model.model._orig_mod.", "diffusion_model.", "text_encoder.")
FACTORS = (("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight"))
ADAPTER_CONFIG = (
    '{"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["to_q"], "bias": "none", '
    '"use_rslora": false, "rank_pattern": {"to_q": 2}, "alpha_pattern": {}, "task_type": null, '
    '"init_lora_weights": true, "modules_to_save": null}'
)
STATE = '{"step": 3, "recipe": {"lora": {"rank": 2, "alpha": 4.0}}}'
ODD_SHAPES = ((), (0,), (1,), (2,), (8, 2), (2, 8), (0, 8), (2, 8, 1, 1), (2, 8, 3, 3), (4, 8))
ODD_TYPES = {"F32": 4, "F16": 2, "BF16": 2, "F64": 8, "I32": 4, "BOOL": 1, "U8": 1, "F8_E4M3": 1}
BESIDE = ("adapter_config.json", "state.json", "adapter_model.safetensors", "adapter.safetensors",
          "adapter_model.bin", "lora.pt")  # fmt: skip


def lora(case: Case) -> None:
    """LoRA files: header and values of a safetensors file, pickles, and the config beside them."""
    from reward_tuning.lora.export import import_adapter

    draw = case.draw
    names = ["adapter_model.safetensors", "adapter.safetensors", "adapter_model.bin", "lora.pt"]
    name = draw.choice(names)
    if name.endswith((".bin", ".pt")):
        content = _pickle()
        if draw.random() < 0.3:
            content = content[: draw.randrange(len(content))]
        path = case.file(name, case.turned(content) if draw.random() < 0.9 else content)
    else:
        path = case.file(name, _tensor_file(case))
    if draw.random() < 0.5:
        config = case.damaged(ADAPTER_CONFIG) if draw.random() < 0.8 else ADAPTER_CONFIG.encode()
        case.file("adapter_config.json", config)
    if draw.random() < 0.5:
        case.file("state.json", case.damaged(STATE))
    found = import_adapter(case.folder if draw.random() < 0.3 else path, _transformer())
    for down, up in found.state.values():
        assert down.isfinite().all(), "factors that are not finite"
        assert (up * found.strength).isfinite().all(), "a strength that is not finite"


def _tensor_file(case: Case) -> bytes:
    """A safetensors file: slips in its header, or a right header of tensors that are not."""
    draw = case.draw
    stem = draw.choice(PREFIXES) + MODULE
    if draw.random() < 0.3:
        stem = "lora_unet__" + MODULE.replace(".", "_")
    down, up = draw.choice(FACTORS)
    tensors = {f"{stem}.{down}": ("F32", (2, 8)), f"{stem}.{up}": ("F32", (8, 2))}
    if draw.random() < 0.5:
        tensors[f"{stem}.alpha"] = ("F32", ())
    odd = draw.random() < 0.6
    for key in [key for key in tensors if odd and draw.random() < 0.4]:
        kind, shape = tensors.pop(key)
        if draw.random() < 0.5:
            kind = draw.choice(list(ODD_TYPES))
        if draw.random() < 0.5:
            shape = draw.choice(ODD_SHAPES)
        other = case.text(key).encode("utf-8", "replace").decode()
        tensors[other if draw.random() < 0.4 else key] = (kind, shape)
    config = case.text(ADAPTER_CONFIG).encode("utf-8", "replace").decode()
    about = {"lora_adapter_metadata": config, "original_alpha": draw.choice(NUMBERS)}
    header: dict[str, Any] = {}
    if draw.random() < 0.5:
        header["__metadata__"] = {key: about[key] for key in about if draw.random() < 0.7}
    place = 0
    for key, (kind, shape) in tensors.items():
        size = ODD_TYPES[kind] * int(np.prod(shape, dtype=int))
        header[key] = {"dtype": kind, "shape": shape, "data_offsets": [place, place + size]}
        place += size
    text = json.dumps(header)
    head = text.encode() if odd else case.damaged(text)
    values = np.ones(place // 4 + 1, dtype=np.float32).tobytes()[:place]
    if draw.random() < 0.3:
        values = draw.randbytes(place)  # not numbers, some of them
    content = struct.pack("<Q", len(head)) + head + values
    return content[: draw.randrange(len(content))] if draw.random() < 0.1 else content


@cache
def _pickle() -> bytes:
    import torch

    file, stem = io.BytesIO(), f"transformer.{MODULE}"
    torch.save(
        {f"{stem}.lora_A.weight": torch.ones(2, 8), f"{stem}.lora_B.weight": torch.ones(8, 2)}, file
    )
    return file.getvalue()


_made: list[Any] = []


def _transformer() -> Any:
    """One attention layer, of `MODULE`'s name."""
    from torch import nn

    if not _made:
        layer = nn.Module()
        layer.attn1 = nn.ModuleDict({"to_q": nn.Linear(8, 8)})
        model = nn.Module()
        model.transformer_blocks = nn.ModuleList([layer])
        _made.append(model)
    return _made[0]


def pictures(case: Case) -> None:
    """Pictures and animations: bytes turned and cut, no slips of texts."""
    ending = case.draw.choice(list(_pictures()))
    content = _pictures()[ending]
    if case.draw.random() < 0.3:
        content = content[: case.draw.randrange(len(content))]
    if case.draw.random() < 0.8:
        content = case.turned(content)
    path = case.file(f"p.{ending}", content)
    for frame in clip_frames(path, range(probe_clip(path).frames)):
        assert frame.isfinite().all(), "levels that are not finite"


@cache
def _pictures() -> dict[str, bytes]:
    """A file of each kind, by its ending."""
    video = np.random.default_rng(0).integers(0, 256, (3, 8, 12, 3), dtype=np.uint8)
    image, found = Image.fromarray(video[0]), {"gif": gif_bytes(video, 8)}
    for ending in ("png", "jpg", "webp", "bmp", "tif"):
        file = io.BytesIO()
        image.save(file, Image.registered_extensions()[f".{ending}"])
        found[ending] = file.getvalue()
    return found


TARGETS: dict[str, Callable[[Case], None]] = {
    "prompts": prompts,
    "metadata": metadata,
    "cameras": cameras,
    "trajectories": trajectories,
    "recipes": recipes,
    "yaml": yaml,
    "pictures": pictures,
    "lora": lora,
}


@dataclass
class Outcome:
    """What the cases of one target came to.

    Attributes:
        read: Cases that were read.
        refused: Cases that were refused with a message.
        faults: Kind of each other outcome to how often, and the seed of the first.
        examples: Kind to traceback.
    """

    read: int = 0
    refused: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)


def fuzz(target: str, cases: int, seed: int, *, told: Callable[[int], None] = id) -> Outcome:
    """Run the cases of one target.

    Args:
        target: Of `TARGETS`.
        cases: How many.
        seed: Of the first; each further case one more, so that any can be repeated alone.
        told: Called with the number of each case that is done.
    """
    outcome = Outcome()
    if target == "lora":
        _transformer()  # torch and its neighbours take seconds, of no case
        import reward_tuning.lora.export  # noqa: F401
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        for told_by_pillow in (UserWarning, Image.DecompressionBombWarning):
            warnings.simplefilter("ignore", told_by_pillow)
        folder = Path(name)
        for ending in ("png", "mp4"):
            (folder / f"a.{ending}").touch()
        for number in range(seed, seed + cases):
            case = Case(random.Random(f"{target}/{number}"), folder)
            for left in BESIDE:
                (folder / left).unlink(missing_ok=True)
            longest = LONGEST_OF.get(target, LONGEST_MESSAGE)
            kind = _outcome(TARGETS[target], case, outcome, longest)
            if kind:
                outcome.faults[kind] += 1
                if kind not in outcome.first:
                    outcome.first[kind] = f"{target} --cases 1 --seed {number}"
            told(number - seed + 1)
    return outcome


def _outcome(run: Callable[[Case], None], case: Case, outcome: Outcome, longest: int) -> str:
    """Run a case; the kind of fault, or nothing."""
    began = time.process_time()  # of a machine that does something else, too
    try:
        run(case)
        outcome.read += 1
        kind = ""
    except (TuningError, GeneratorError, RewardError) as error:
        outcome.refused += 1
        length = len(str(error))
        kind = f"a message of more than {longest} letters" * (length > longest)
        if kind:
            outcome.examples.setdefault(kind, f"{length}: {str(error)[:500]}")
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)
        ours = [one for one in place if "site-packages" not in one.filename] or place
        where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        kind = f"{type(error).__name__} at {where}"
        outcome.examples.setdefault(kind, "".join(traceback.format_exception(error))[-3000:])
    if time.process_time() - began > SLOWEST:
        kind = kind or f"a case of more than {SLOWEST:.0f} seconds"
    return kind


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the number of targets with faults."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], default=[])
    parser.add_argument("--cases", type=int, default=CASES)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    bad = 0
    for target in options.targets or TARGETS:
        began = time.monotonic()
        found = fuzz(target, options.cases, options.seed)
        seconds = time.monotonic() - began
        print(
            f"{target}: {options.cases} cases, {found.read} read, {found.refused} refused, "
            f"{sum(found.faults.values())} faults, {seconds:.0f} s",
            flush=True,
        )
        for kind, count in found.faults.most_common():
            print(f"  {count} x {kind}; {found.first[kind]}")
        for kind, _ in found.faults.most_common(SHOWN):
            print(f"--- {kind}\n{found.examples.get(kind, '')}", flush=True)
        bad += bool(found.faults)
    return bad


if __name__ == "__main__":
    sys.exit(main())
