import hashlib
import re
import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional

from engines.architecture import Architecture
from engines.backends import hopper
from engines.backends.hopper import open_runner
from engines.buffered import BufferedRunner, open_buffered
from engines.bundle import load_bundle
from engines.contract import EngineInfo, Request
from engines.devices.driver import DeviceInfo
from engines.errors import EngineError
from engines.golden import load_golden
from engines.hopper.packing import fits, pack, pack_taps
from engines.hopper.program import HopperProgram
from engines.network import DenseBlock, Network, load_network
from engines.options import EngineOptions
from engines.readout import read_centres
from engines.strips import Strip, plan_strips
from tests.emulation.driver import KERNELS, MISSING, EmulatedDriver

ONE_BLOCK = Architecture(blocks=1)
FARTHEST = 1e-2
"""From PyTorch in FP32, of probabilities and of normalised units: the kernels compute in FP16."""

TIMEOUT_S = 120
OFFSET = np.array([100, 90, 110, 95], np.float32)
GAIN = np.array([0.004, 0.005, 0.006, 0.003], np.float32)

emulated = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture(scope="session")
def libraries(tmp_path_factory):
    return tmp_path_factory.mktemp("libraries")


@pytest.fixture(scope="module")
def one_block():
    """A network of one block whose outputs vary from pixel to pixel."""
    torch.manual_seed(3)
    network = Network(ONE_BLOCK)
    torch.nn.init.normal_(network.call.weight, std=0.1)
    torch.nn.init.normal_(network.call.bias, std=0.5)
    torch.nn.init.normal_(network.reconstruct.weight, std=0.05)
    for name, bias in network.named_parameters():
        if name.startswith(("stem", "blocks", "upsample")) and name.endswith("bias"):
            torch.nn.init.normal_(bias, std=0.3)
    return network.eval()


def tile(shape, seed=0):
    return np.random.default_rng(seed).integers(50, 600, (4, *shape)).astype(np.uint16)


def expected(network, pixels):
    """Probabilities and super-resolved images of PyTorch in FP32."""
    images = (pixels - OFFSET[:, None, None]) * GAIN[:, None, None]
    with torch.no_grad():
        logits, fine = network(torch.from_numpy(images)[None])
    return torch.softmax(logits, 1)[0].numpy(), fine[0].numpy()


class Emulated:
    """A program on an emulated GPU, for tiles of one shape."""

    def __init__(self, folder, network, shape, *, architecture=ONE_BLOCK, strips=None, **driver):
        self.driver = EmulatedDriver(folder, **driver)
        strips = strips or [Strip(0, shape[0], 0, shape[0])]
        weights = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
        program = HopperProgram(self.driver, architecture, weights, shape=shape, strips=strips)
        info = EngineInfo("hopper", "emulated", True, "none", "f16", "", "", slots=1, strips=len(strips))
        self._runner = BufferedRunner(self.driver, program, info, shape=shape)
        self._buffers = self._runner.buffers()

    def maps(self, pixels, *, superresolved=False):
        """Probabilities, and super-resolved images or None."""
        request = Request(OFFSET, GAIN, probabilities=True, superresolved=superresolved)
        self._buffers.pixels[...] = pixels
        self._runner.start(self._buffers, request)
        self._runner.wait(self._buffers)
        answer = self._runner.answer(self._buffers, request)
        return answer.probabilities, answer.superresolved


def summed(packed, images, channels):
    """Sums of packed taps over shifted images, a matrix product a tap as the kernels do it.

    packed: (taps², steps, 2, sums, 8); images: (channels, H, W). First tap at (-1, -1), as for padding 1.
    """
    taps = round(len(packed) ** 0.5)
    matrices = packed.transpose(0, 3, 1, 2, 4).reshape(len(packed), packed.shape[3], -1)[:, :, :channels]
    height, width = images.shape[1:]
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    shifted = [padded[:, y : y + height, x : x + width] for y in range(taps) for x in range(taps)]
    return sum(
        np.einsum("sc,cyx->syx", matrix.astype(np.float32), image)
        for matrix, image in zip(matrices, shifted, strict=True)
    )


def test_packed_taps_are_the_convolution():
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(5, 20, 3, 3, generator=generator).half().float()
    images = torch.randn(20, 7, 9, generator=generator)
    packed = pack_taps(weights.numpy())
    assert packed.shape == (9, 2, 2, 8, 8)
    assert packed.dtype == np.float16
    known = functional.conv2d(images[None], weights, padding=1)[0].numpy()
    found = summed(packed, np.pad(images.numpy(), ((0, 12), (0, 0), (0, 0))), 32)
    np.testing.assert_allclose(found[:5], known, atol=1e-4)
    assert not found[5:].any()


def test_wide_and_tail_are_the_block():
    torch.manual_seed(2)
    network = Network(Architecture(blocks=2)).half().float()
    images = torch.rand(96, 6, 8)
    block = network.blocks[1]
    assert isinstance(block, DenseBlock)
    with torch.no_grad():
        known = block(images[None])[0].numpy()
    packed = pack(Architecture(blocks=2), {name: tensor.numpy() for name, tensor in network.state_dict().items()})
    wide, tail = packed.blocks[1].wide, packed.blocks[1].tail
    sums = summed(wide.weights, images.numpy(), 96) + wide.bias[:, None, None]
    layers = [np.maximum(sums[:16], 0)]
    start = 0
    for layer in range(1, 6):
        size = 9 * layer * 16 * 16
        taps = tail[start : start + size].reshape(9, layer, 2, 16, 8)
        start += size
        more = summed(taps, np.concatenate(layers), 16 * layer)
        layers.append(np.maximum(sums[16 * layer : 16 * layer + 16] + more, 0))
    assert start == len(tail)
    np.testing.assert_allclose(np.concatenate(layers), known, atol=1e-3)


def test_phases_are_the_transposed_convolution(one_block):
    images = torch.rand(96, 5, 7)
    weights = {name: tensor.numpy() for name, tensor in one_block.state_dict().items()}
    with torch.no_grad():
        known = one_block.upsample(images[None])[0].numpy()
    phases = pack(ONE_BLOCK, weights).upsample
    for index, phase in enumerate(phases):
        y, x = divmod(index, 2)
        # Taps of phase 1 begin one pixel further on.
        moved = np.pad(images.numpy(), ((0, 0), (0, y), (0, x)))[:, y:, x:]
        sums = summed(phase.weights, moved, 96) + phase.bias[:, None, None]
        inside = (slice(None), slice(y, None), slice(x, None))
        np.testing.assert_allclose(sums[inside], known[:, y::2, x::2][inside], atol=2e-3)


@emulated
def test_engine_answers_as_pytorch_does(libraries):
    """The default bundle through the whole engine: all six blocks, read-out, super-resolved images."""
    bundle = load_bundle()
    golden = load_golden(bundle).tile
    pixels = golden.pixels[:, 20:38, 10:60]
    shape = pixels.shape[1:]
    positions = np.random.default_rng(4).uniform(-2, 52, (4, 50, 2)).astype(np.float32)
    images = (pixels - golden.offset[:, None, None]) * golden.gain[:, None, None]
    with torch.no_grad():
        logits, fine = load_network(bundle)(torch.from_numpy(images)[None])
    probabilities = torch.softmax(logits, 1)[0].numpy()
    assert probabilities[1:].max() > 0.5

    runner = partial(open_runner, bundle=bundle, shape=shape, options=EngineOptions())
    with closing(open_buffered("hopper", partial(EmulatedDriver, libraries), runner, slots=1)) as engine:
        assert engine.info.precision == "f16"
        assert engine.info.strips == 1
        slot = engine.lease(TIMEOUT_S)
        slot.pixels[...] = pixels
        engine.submit(slot, Request(golden.offset, golden.gain, positions, probabilities=True, superresolved=True))
        answer = engine.collect(slot, TIMEOUT_S)
    np.testing.assert_allclose(answer.probabilities, probabilities, atol=FARTHEST)
    np.testing.assert_allclose(answer.superresolved, fine[0].numpy(), atol=FARTHEST)
    np.testing.assert_allclose(answer.centres, read_centres(answer.probabilities, positions), atol=1e-6)


@emulated
@pytest.mark.parametrize(
    ("shape", "multiprocessors"),
    [
        ((3, 5), 1),
        ((1, 1), 1),
        ((2, 64), 1),
        ((18, 56), 1),
        ((23, 57), 1),
        ((16, 65), 2),
        ((36, 7), 4),
        ((40, 3), 132),
        ((7, 130), 1),
    ],
    ids=str,
)
def test_any_shape(libraries, one_block, shape, multiprocessors):
    """Fewer columns and rows than a block's, a column more than it, rings that go round, segments of rows."""
    pixels = tile(shape)
    program = Emulated(libraries, one_block, shape, multiprocessors=multiprocessors, seed=shape[1])
    found = program.maps(pixels, superresolved=True)
    for image, known in zip(found, expected(one_block, pixels), strict=True):
        np.testing.assert_allclose(image, known, atol=FARTHEST)


@emulated
def test_strips_give_the_numbers_of_the_whole(libraries, one_block):
    shape = (62, 9)
    strips = plan_strips(height=shape[0], width=shape[1], halo=ONE_BLOCK.halo, most_px=1)
    assert len(strips) == 2
    pixels = tile(shape)
    cut, whole = (
        Emulated(libraries, one_block, shape, strips=used).maps(pixels, superresolved=True) for used in (strips, None)
    )
    np.testing.assert_array_equal(cut[0], whole[0])
    np.testing.assert_array_equal(cut[1], whole[1])


@emulated
def test_order_and_spread_change_nothing(libraries, one_block):
    """Whatever the order of threads, copies and matrix instructions, and however rows are spread over blocks."""
    shape = (33, 6)
    pixels = tile(shape)
    known, _ = Emulated(libraries, one_block, shape, seed=1, multiprocessors=1).maps(pixels)
    for seed in (2, 3, 4):
        found, _ = Emulated(libraries, one_block, shape, seed=seed, multiprocessors=seed).maps(pixels)
        np.testing.assert_array_equal(found, known)


@emulated
def test_a_tile_leaves_nothing_behind(libraries, one_block):
    """Borders of the activations stay zero, and a later tile is as good as a first."""
    shape = (9, 30)
    pixels = tile(shape)
    program = Emulated(libraries, one_block, shape)
    program.maps(np.full((4, *shape), 65535, np.uint16), superresolved=True)
    later = program.maps(pixels, superresolved=True)
    first = Emulated(libraries, one_block, shape, seed=5).maps(pixels, superresolved=True)
    np.testing.assert_array_equal(later[0], first[0])
    np.testing.assert_array_equal(later[1], first[1])


DEFECTS = {
    "sums are read before they are there": ("        matrices_wait(d);\n        if (lane", "        if (lane"),
    "rows are replaced while they are read": ("if (i >= HELD) barrier_wait(", "if (i < 0) barrier_wait("),
    "rows are read before they are there": (
        "++arrived) barrier_wait(full",
        "++arrived) if (arrived == 1) barrier_wait(full",
    ),
    "a warpgroup leaves out the first row": ("int arrived = 0, released", "int arrived = group, released"),
    "stores are not fenced": ("        fence_for_matrices();\n        group_sync", "        group_sync"),
    "layers do not wait for each other": ("        group_sync(1, CONSUMERS);\n", ""),
    "a wait never ends": ("2 * WARPGROUP / 32);", "2 * WARPGROUP / 32 + 1);"),
    "a copy is not aligned": ("in.at(plane, begin - 1 + i, x0 - 1)", "in.at(plane, begin - 1 + i, x0 - 1) + 1"),
    "a store goes beside memory": (
        "*reinterpret_cast<uint4*>(out.at(0, y, x))",
        "*reinterpret_cast<uint4*>(out.at(-1, y, x))",
    ),
}


@emulated
@pytest.mark.parametrize("defect", DEFECTS)
def test_the_emulation_finds(defect, libraries, one_block, tmp_path):
    """Kernels with a defect give another answer or an error, under one order of events at least."""
    right, wrong = DEFECTS[defect]
    sources = tmp_path / "kernels"
    shutil.copytree(KERNELS, sources)
    code = (sources / "hopper.cu").read_text("utf-8")
    assert code.count(right) == 1
    (sources / "hopper.cu").write_text(code.replace(right, wrong), "utf-8")
    shape = (20, 9)
    pixels = tile(shape)
    known, _ = expected(one_block, pixels)
    for seed in range(12):
        try:
            found, _ = Emulated(libraries, one_block, shape, seed=seed, sources=sources).maps(pixels)
        except EngineError:
            return
        if not np.abs(found - known).max() < FARTHEST:
            return
    pytest.fail("not found")


def test_only_these_widths_fit():
    assert fits(Architecture(blocks=3))
    assert not fits(Architecture(growth=8))
    assert not fits(Architecture(hidden=32))


class Gpu:
    """What an engine asks of a driver before it refuses."""

    def __init__(self, name, compute_capability):
        self.info = DeviceInfo(name, compute_capability, 108, 1 << 36, "13000")


A100, H100 = Gpu("NVIDIA A100", (8, 0)), Gpu("NVIDIA H100", (9, 0))


@pytest.mark.parametrize(
    ("gpu", "precision", "message"),
    [
        (A100, "auto", "engine hopper: NVIDIA A100 has compute capability 8.0, the kernels run on 9.0 only"),
        (H100, "f32", "engine hopper: it does not compute in f32; it does in f16"),
    ],
)
def test_refusals(gpu, precision, message):
    with pytest.raises(EngineError, match=re.escape(message)):
        open_runner(gpu, load_bundle(), shape=(8, 8), options=EngineOptions(precision=precision))


def test_other_widths_are_refused():
    bundle = load_bundle()
    other = replace(bundle, model=bundle.model.model_copy(update={"architecture": Architecture(stem=32)}))
    with pytest.raises(EngineError, match="has other widths than the kernels compute: stem=32 blocks=6"):
        open_runner(H100, other, shape=(8, 8), options=EngineOptions())


def test_it_needs_a_gpu():
    with pytest.raises(EngineError, match="engine hopper: it runs on a GPU only"):
        hopper.open_engine(load_bundle(), shape=(8, 8), options=EngineOptions(gpu=False))


def test_machine_code_belongs_to_its_source():
    """``make kernels`` compiles it anew; as sha256sum writes and checks it."""
    for line in (KERNELS / "hopper.sha256").read_text("ascii").splitlines():
        known, name = line.split()
        assert hashlib.sha256((KERNELS / name).read_bytes()).hexdigest() == known, f"{name} is not what was compiled"
