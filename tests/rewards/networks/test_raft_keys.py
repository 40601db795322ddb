"""`raft-things.pth` in the original's layout, against the flow of the original's own code.

The golden holds what princeton-vl/RAFT (2888e15) makes, in 20 iterations and with its padding, of
the weights and frames below, which NumPy draws alike in every version.
"""

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from rewards import RewardError
from rewards.kinds.dynamic_degree import DynamicDegree, load_dynamic_degree, moves
from tests.goldens import FOLDER

SIZES = [(128, 160), (133, 150)]


def encoder_shapes(out: int, *, norms: bool) -> dict[str, tuple[int, ...]]:
    """One of the two encoders, written down from the original's ``BasicEncoder``."""
    shapes: dict[str, tuple[int, ...]] = {}

    def conv(name: str, outputs: int, inputs: int, side: int) -> None:
        shapes[f"{name}.weight"] = (outputs, inputs, side, side)
        shapes[f"{name}.bias"] = (outputs,)

    def norm(name: str, width: int) -> None:
        if norms:
            for part in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{name}.{part}"] = (width,)
            shapes[f"{name}.num_batches_tracked"] = ()

    conv("conv1", 64, 3, 7)
    norm("norm1", 64)
    inputs = 64
    for layer, width in enumerate((64, 96, 128), start=1):
        for block in range(2):
            name = f"layer{layer}.{block}"
            conv(f"{name}.conv1", width, inputs, 3)
            conv(f"{name}.conv2", width, width, 3)
            for one in ("norm1", "norm2"):
                norm(f"{name}.{one}", width)
            if layer > 1 and block == 0:
                conv(f"{name}.downsample.0", width, inputs, 1)
                norm(f"{name}.downsample.1", width)
                norm(f"{name}.norm3", width)
            inputs = width
    conv("conv2", out, 128, 1)
    return shapes


def update_shapes() -> dict[str, tuple[int, ...]]:
    """The recurrent part, from ``BasicUpdateBlock``."""
    sizes = {
        "encoder.convc1": (256, 324, 1, 1),
        "encoder.convc2": (192, 256, 3, 3),
        "encoder.convf1": (128, 2, 7, 7),
        "encoder.convf2": (64, 128, 3, 3),
        "encoder.conv": (126, 256, 3, 3),
        "flow_head.conv1": (256, 128, 3, 3),
        "flow_head.conv2": (2, 256, 3, 3),
        "mask.0": (256, 128, 3, 3),
        "mask.2": (576, 256, 1, 1),
    }
    for gate in "zrq":
        sizes[f"gru.conv{gate}1"] = (128, 384, 1, 5)
        sizes[f"gru.conv{gate}2"] = (128, 384, 5, 1)
    shapes: dict[str, tuple[int, ...]] = {}
    for name, size in sizes.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = size, size[:1]
    return shapes


def original_state() -> dict[str, Tensor]:
    """Random weights under the original's names, each drawn by its own name."""
    shapes = {f"fnet.{n}": s for n, s in encoder_shapes(256, norms=False).items()}
    shapes |= {f"cnet.{n}": s for n, s in encoder_shapes(256, norms=True).items()}
    shapes |= {f"update_block.{n}": s for n, s in update_shapes().items()}
    state = {}
    for name, shape in shapes.items():
        drawn = name.replace(".downsample.1.", ".norm3.")  # one norm under two names
        values = np.random.RandomState(zlib.crc32(drawn.encode())).standard_normal(shape)
        values = np.asarray(values, dtype=np.float32)
        if name.endswith("num_batches_tracked"):
            values = np.zeros(shape, dtype=np.int64)
        elif name.endswith("running_var"):
            values = 1 + np.float32(0.2) * np.abs(values)
        elif len(shape) == 4:
            values = values * np.float32(0.5 / np.sqrt(np.prod(shape[1:])))
        else:
            values = 1 + 0.1 * values if name.endswith("weight") else 0.05 * values
        state[name] = torch.from_numpy(np.asarray(values))
    return state


def frames(row: int) -> Tensor:
    """Two frames of blocks that moved by 5 and 2 pixels, ``(1, 2, 3, H, W)`` in whole 255ths."""
    height, width = SIZES[row]
    draw = np.random.RandomState(row)
    coarse = draw.uniform(0, 255, (3, height // 8 + 2, width // 8 + 2))
    big = np.kron(coarse, np.ones((8, 8)))
    pair = np.stack([big[:, :height, :width], big[:, 2 : height + 2, 5 : width + 5]])
    return torch.from_numpy(pair.round().astype(np.float32))[None] / 255


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> DynamicDegree:
    path = tmp_path_factory.mktemp("raft") / "raft-things.pth"
    torch.save({f"module.{name}": tensor for name, tensor in original_state().items()}, path)
    return load_dynamic_degree(path)


@pytest.mark.parametrize("row", range(2))
def test_the_flow_is_that_of_the_original(judge: DynamicDegree, row: int) -> None:
    golden = load_file(FOLDER / "raft.safetensors")[f"flow.{row}"]
    with torch.no_grad():
        found = judge.flow(frames(row))[0, 0]
    assert found.shape == golden.shape  # the padding of the second, to 136 x 152, included
    torch.testing.assert_close(found, golden, atol=2e-4, rtol=1e-4)  # flow of 2.6 on average


def test_the_verdict_is_vbenchs_on_the_originals_flow(judge: DynamicDegree) -> None:
    flow = load_file(FOLDER / "raft.safetensors")["flow.1"].permute(1, 2, 0).numpy()
    speed = np.sqrt(np.square(flow[..., 0]) + np.square(flow[..., 1]))
    height, width = speed.shape
    fastest = np.mean(abs(np.sort(-speed.flatten()))[: int(height * width * 0.05)])
    threshold = 6.0 * (133 / 256.0)
    with torch.no_grad():
        speeds = judge.flow(frames(1)).square().sum(dim=2).sqrt()
        assert judge(frames(1), ["-"]).tolist() == [1.0]  # of 2 frames no pair has to move
    for scale in (0.99, 1.01):  # on either side of the threshold, where one pair has to
        scaled = speeds * float(scale * threshold / fastest)
        assert moves(scaled, 4, 133).tolist() == [float(scale > 1)]


def test_without_its_wrapper_and_in_part(tmp_path: Path) -> None:
    state = original_state()
    path = tmp_path / "bare.pth"
    torch.save(state, path)
    assert sum(p.numel() for p in load_dynamic_degree(path).model.parameters()) == 5_257_536
    less = {name: tensor for name, tensor in state.items() if name != "update_block.mask.2.bias"}
    torch.save(less, path)
    with pytest.raises(RewardError, match=r"raft_large: 1 missing: mask_predictor\.conv\.bias"):
        load_dynamic_degree(path)
    norm = "cnet.layer2.0.norm3.bias"
    torch.save(state | {norm: state[norm] + 1}, path)
    with pytest.raises(RewardError, match=r"cnet\.layer2\.0\.norm3\.bias differs from the norm"):
        load_dynamic_degree(path)
    small = {"module.fnet.conv1.weight": torch.zeros(32, 3, 7, 7)}
    torch.save(small, path)
    with pytest.raises(RewardError, match="raft_small: "):
        load_dynamic_degree(path)
