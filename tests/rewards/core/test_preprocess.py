import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from rewards.core.preprocess import Preprocess, resized
from rewards.errors import RewardError

IDENTITY = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}
SIZES = [(64, 64), (97, 203), (203, 97), (33, 31), (51, 64), (130, 75), (24, 40)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """8-bit noise with hard black-and-white edges, where bicubic overshoots."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    image[height // 3 : height // 2] = 255
    image[:, width // 4 : width // 3] = 0
    return image


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255


def pil_resize(image: np.ndarray, height: int, width: int) -> Image.Image:
    """PIL's bicubic, horizontal pass first, as one call did in every Pillow before 13.

    Pillow 13 takes the vertical pass first where the height shrinks much more than the width.
    """
    bicubic, pil = Image.Resampling.BICUBIC, Image.fromarray(image)
    return pil.resize((width, pil.height), bicubic).resize((width, height), bicubic)


def levels(a: Tensor, image: Image.Image) -> Tensor:
    return (a - tensor(np.array(image))).abs() * 255


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_two_passes_stay_within_a_rounding_of_pil(height: int, width: int) -> None:
    image = picture(height, width)
    pil = pil_resize(image, 29, 37)
    error = levels(resized(tensor(image), 29, 37), pil)
    # PIL rounds after each pass: half a level each, the first carried through the second.
    assert float(error.max()) < 1.1
    assert float(error.mean()) < 0.35
    rounded = levels(resized(tensor(image), 29, 37, quantised=True), pil)
    assert float(rounded.mean()) < 0.003
    assert float(rounded.max()) < 1.01


def test_one_two_dimensional_call_would_not() -> None:
    image = picture(33, 31)
    pil = pil_resize(image, 29, 37)
    one = torch.nn.functional.interpolate(
        tensor(image), (29, 37), mode="bicubic", antialias=True
    ).clamp(0, 1)
    assert float(levels(one, pil).max()) > 10


@pytest.mark.parametrize("rounding", ["floor", "round"])
@pytest.mark.parametrize(("height", "width"), [*SIZES, (32, 55), (59, 32), (32, 35)])
def test_crop_equals_pil_resize_and_crop(height: int, width: int, rounding: str) -> None:
    image, size = picture(height, width), 32
    longest = int(size * max(height, width) / min(height, width))
    new = (size, longest) if width <= height else (longest, size)  # (width, height)
    pil = pil_resize(image, new[1], new[0])
    spare = [side - size for side in new]
    left, top = (s // 2 if rounding == "floor" else round(s / 2.0) for s in spare)
    pil = pil.crop((left, top, left + size, top + size))
    spec = Preprocess("crop", size, rounding=rounding, quantised=True, **IDENTITY)
    error = levels(spec(tensor(image)), pil)
    assert float(error.mean()) < 0.03
    assert float(error.max()) < 2.1


def test_floor_and_round_crops_differ_where_the_spare_is_three() -> None:
    image = tensor(picture(32, 35))
    floor = Preprocess("crop", 32, rounding="floor")(image)
    rounded = Preprocess("crop", 32, rounding="round")(image)
    torch.testing.assert_close(floor[..., 1:], rounded[..., :-1])
    assert not torch.equal(floor, rounded)


def test_crop_equals_torchvision_on_pil() -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.fromarray(picture(67, 131))
    reference = transforms.Compose(
        [
            transforms.Resize(32, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(32),
            transforms.ToTensor(),
            transforms.Normalize(Preprocess("crop", 32).mean, Preprocess("crop", 32).std),
        ]
    )(image)
    ours = Preprocess("crop", 32, quantised=True)(tensor(np.array(image)))[0]
    assert float((ours - reference).abs().mean()) < 0.03 / 255 / 0.26
    assert float((ours - reference).abs().max()) < 2.1 / 255 / 0.26


def test_squash_equals_pil() -> None:
    image = picture(51, 97)
    pil = pil_resize(image, 32, 32)
    spec = Preprocess("squash", 32, quantised=True, **IDENTITY)
    assert float(levels(spec(tensor(image)), pil).mean()) < 0.03


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 83), (83, 48), (20, 33), (32, 31)])
def test_letterbox_equals_the_float_resize_and_padding_of_hps(height: int, width: int) -> None:
    functional = pytest.importorskip("torchvision.transforms.functional")
    image = tensor(picture(height, width))
    scale = 32 / max(height, width)
    h, w = round(height * scale), round(width * scale)
    mode = functional.InterpolationMode.BICUBIC
    resized = functional.resize(image, [h, w], mode, antialias=True)
    ph, pw = 32 - h, 32 - w
    padded = functional.pad(resized, [pw // 2, ph // 2, pw - pw // 2, ph - ph // 2], fill=0)
    spec = Preprocess("letterbox", 32, clamped=False)
    expected = functional.normalize(padded, list(spec.mean), list(spec.std))
    torch.testing.assert_close(spec(image), expected, rtol=1e-5, atol=3e-6)


def test_hps_keeps_the_overshoot_that_clamping_would_cut() -> None:
    image = tensor(picture(48, 83))
    free = Preprocess("letterbox", 32, clamped=False, **IDENTITY)(image)
    cut = Preprocess("letterbox", 32, **IDENTITY)(image)
    assert float(free.max()) > 1.01
    assert float(cut.max()) <= 1.0


def test_a_square_of_the_right_size_is_only_normalised() -> None:
    image = torch.rand(2, 3, 32, 32)
    for mode in ("letterbox", "crop", "squash"):
        spec = Preprocess(mode, 32, quantised=True)
        mean = torch.tensor([0.48145466, 0.4578275, 0.40821073])[:, None, None]
        std = torch.tensor([0.26862954, 0.26130258, 0.27577711])[:, None, None]
        torch.testing.assert_close(spec(image), (image - mean) / std)


@pytest.mark.parametrize("mode", ["letterbox", "crop", "squash"])
def test_gradient_in_double(mode: str) -> None:
    image = 0.3 + 0.4 * torch.rand(1, 3, 9, 14, dtype=torch.float64)  # no clamp is active
    spec = Preprocess(mode, 6)
    assert torch.autograd.gradcheck(spec, image.requires_grad_(), fast_mode=True)


def test_quantising_passes_the_gradient_straight_through() -> None:
    image = (0.3 + 0.4 * torch.rand(1, 3, 9, 14)).requires_grad_()
    weight = torch.randn(1, 3, 6, 6)
    gradients = [
        torch.autograd.grad((Preprocess("squash", 6, quantised=q)(image) * weight).sum(), image)[0]
        for q in (False, True)
    ]
    torch.testing.assert_close(gradients[0], gradients[1])


def test_json_round_trip_and_refusals() -> None:
    spec = Preprocess("letterbox", 64, clamped=False)
    assert Preprocess.from_json(spec.to_json()) == spec
    with pytest.raises(RewardError, match="colour"):
        Preprocess.from_json(spec.to_json().replace("rounding", "colour"))
    with pytest.raises(RewardError, match="stretch"):
        Preprocess("stretch", 64)
