import hashlib
import shutil
import tomllib
from pathlib import Path

import numpy as np
import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.bundles.bundle import DEFAULT_BUNDLE, GOLDEN, MODEL, NETWORK, WEIGHTS, load_bundle, store_quality
from engines.bundles.torchbundle import load_weights
from engines.errors import BundleError, EngineError
from engines.network.architecture import Architecture
from engines.network.centres import READ_SIGMA_PX, read_centres
from engines.strips import plan_strips


def test_info_says_what_is_in_use(open_tiny, tiny_bundle):
    info = open_tiny((60, 32), slots=3, strip_px=32 * 24).info
    assert (info.backend, info.precision, info.model, info.slots) == ("openvino", "f32", "tiny", 3)
    assert info.strips == len(plan_strips(height=60, width=32, halo=5, most_px=32 * 24))
    assert info.model_hash == hashlib.sha256((tiny_bundle / MODEL).read_bytes()).hexdigest()
    assert info.device


def test_best_precision_is_one_that_the_device_has(open_tiny):
    assert open_tiny((24, 32), precision="auto").info.precision in ("f32", "bf16", "f16")


def test_precision_that_the_device_lacks_is_refused(open_tiny):
    with pytest.raises(EngineError, match=r"does not compute in f8; it does in .*f32"):
        open_tiny((24, 32), precision="f8")


def test_default_bundle_is_whole_and_small():
    bundle = load_bundle()
    assert bundle.model.architecture == Architecture()
    assert bundle.folder == DEFAULT_BUNDLE
    assert sum(path.stat().st_size for path in DEFAULT_BUNDLE.iterdir()) < 5e6
    hashes = bundle.model.hashes.by_file()
    assert {MODEL, *hashes} == {path.name for path in DEFAULT_BUNDLE.iterdir()}
    for name, expected in hashes.items():
        assert hashlib.sha256((DEFAULT_BUNDLE / name).read_bytes()).hexdigest() == expected
    assert sum(weight.numel() for weight in load_weights(DEFAULT_BUNDLE).values()) == 839_241


@pytest.fixture
def copied(tiny_bundle, tmp_path):
    return Path(shutil.copytree(tiny_bundle, tmp_path / "copy"))


def rewritten(folder, change):
    model = tomllib.loads((folder / MODEL).read_text())
    change(model)
    (folder / MODEL).write_text(tomli_w.dumps(model))


@pytest.mark.parametrize("name", [NETWORK, WEIGHTS, GOLDEN])
def test_altered_bundle_is_refused(copied, name):
    content = bytearray((copied / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copied / name).write_bytes(content)
    with pytest.raises(BundleError, match=rf"{name} has SHA-256 [0-9a-f]{{12}}…, model\.toml says"):
        load_bundle(copied)


@pytest.mark.parametrize("name", [MODEL, NETWORK, WEIGHTS, GOLDEN])
def test_missing_bundle_file_is_named(copied, name):
    (copied / name).unlink()
    with pytest.raises(BundleError, match=rf"cannot read {name}: No such file"):
        load_bundle(copied)


@pytest.mark.parametrize(
    ("other", "number"),
    [
        ({"format": 99}, 99),
        # One table for all readouts, as the first format had it.
        ({"format": 1, "quality": {"edges": [0.4, 0.8], "scores": [5, 15, 30]}}, 1),
        # No golden tile, as in the second.
        ({"format": 2, "hashes": {"network": "0" * 64, "weights": "0" * 64}}, 2),
    ],
)
def test_bundle_of_another_format_is_refused(copied, other, number):
    rewritten(copied, lambda model: model.update(other))
    with pytest.raises(BundleError, match=f"^bundle .*: format {number}, this seqd reads format 3$"):
        load_bundle(copied)


def test_model_is_replaced_at_once(copied):
    bundle, before = load_bundle(copied), (copied / MODEL).read_bytes()
    names = sorted(path.name for path in copied.iterdir())
    with (copied / MODEL).open("rb") as opened:
        store_quality(bundle, {})
        # Who reads meanwhile reads the old one to its end.
        assert opened.read() == before
    assert load_bundle(copied).model == bundle.model.model_copy(update={"quality": {}})
    assert sorted(path.name for path in copied.iterdir()) == names


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model: model.pop("hashes"), "hashes: Field required"),
        (lambda model: model["architecture"].update(depth=3), r"architecture\.depth: Extra inputs"),
        (
            lambda model: model["quality"]["fused"]["scores"].pop(),
            "2 scores for 2 edges, 3 are needed",
        ),
        (
            lambda model: model["quality"]["fused"]["binned"].pop(),
            "2 binned scores for 3 scores, as many are needed",
        ),
        (
            lambda model: model["quality"]["fused"].update(binned=[2, 12, 25]),
            r"binned\.2: Input should be 2, 12, 24 or 40",
        ),
        (lambda model: model["quality"]["fused"].update(edges=[0.8, 0.4]), "edges do not rise"),
    ],
)
def test_bundle_whose_model_is_not_valid_says_why(copied, change, message):
    rewritten(copied, change)
    with pytest.raises(BundleError, match=rf"model\.toml is not valid: .*{message}"):
        load_bundle(copied)


@pytest.mark.parametrize("content", [b"format = ", b"\xff\xfe"])
def test_bundle_whose_model_is_not_toml_is_refused(copied, content):
    (copied / MODEL).write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.toml is not valid"):
        load_bundle(copied)


@settings(deadline=None)
@given(
    height=st.integers(8, 5000), width=st.integers(8, 5000), halo=st.integers(4, 60), most_px=st.integers(4096, 2**22)
)
def test_strips_cover_every_row_once_with_their_halo(height, width, halo, most_px):
    strips = plan_strips(height=height, width=width, halo=halo, most_px=most_px)
    assert [strip.output_start for strip in strips] == [0, *(strip.output_stop for strip in strips[:-1])]
    assert strips[-1].output_stop == height
    assert len({strip.input_stop - strip.input_start for strip in strips}) == 1
    for strip in strips:
        assert 0 <= strip.input_start <= strip.output_start < strip.output_stop <= strip.input_stop <= height
        assert strip.input_start == 0 or strip.output_start - strip.input_start >= halo
        assert strip.input_stop == height or strip.input_stop - strip.output_stop >= halo


@settings(deadline=None)
@given(height=st.integers(8, 5000), width=st.integers(8, 5000))
def test_tile_that_fits_is_one_strip(height, width):
    (strip,) = plan_strips(height=height, width=width, halo=39, most_px=height * width)
    assert (strip.input_start, strip.input_stop, strip.output_start, strip.output_stop) == (0, height, 0, height)


@settings(deadline=None)
@given(height=st.integers(400, 5000), width=st.integers(400, 5000))
def test_strips_stay_within_the_pixels_allowed(height, width):
    most_px = 768 * 768
    strips = plan_strips(height=height, width=width, halo=39, most_px=most_px)
    rows = strips[0].input_stop - strips[0].input_start
    assert rows * width <= most_px or rows < 8 * 39


def lit(base, y, x, shape=(12, 16)):
    probabilities = np.zeros((5, *shape), np.float32)
    probabilities[base + 1, y, x] = 1
    return probabilities


def everywhere(*position):
    """(4, 1, 2) the same position in every channel."""
    return np.array([[position]] * 4, np.float32)


def test_centre_is_read_in_full_at_its_place_and_less_beside_it():
    probabilities = lit(2, 5, 7)
    assert read_centres(probabilities, everywhere(5, 7)).tolist() == [[0, 0, 1, 0]]
    beside = read_centres(probabilities, everywhere(5.4, 6.3))
    assert beside[0, 2] == pytest.approx(np.exp(-(0.4**2 + 0.7**2) / (2 * READ_SIGMA_PX**2)), rel=1e-5)
    assert read_centres(probabilities, everywhere(5, 10)).max() == 0


def test_each_base_is_read_where_its_channel_shows_the_cluster():
    probabilities = lit(0, 5, 7) + lit(3, 6, 8)
    positions = np.array([[[5, 7]], [[5, 7]], [[6, 8]], [[6, 8]]], np.float32)
    assert read_centres(probabilities, positions).tolist() == [[1, 0, 0, 1]]


def test_background_is_no_evidence():
    probabilities = np.zeros((5, 12, 16), np.float32)
    probabilities[0] = 1
    assert not read_centres(probabilities, everywhere(5, 7)).any()


def test_positions_at_the_edge_read_the_pixels_there_are():
    probabilities = np.ones((5, 12, 16), np.float32)
    inside, corner = (read_centres(probabilities, everywhere(*at))[0] for at in ((5, 7), (0, 0)))
    assert 0.3 < corner[0] / inside[0] < 0.8
    assert read_centres(lit(1, 11, 15), everywhere(11.4, 15.4))[0, 1] == pytest.approx(
        np.exp(-(0.4**2) / 0.36), rel=1e-5
    )


@pytest.mark.parametrize("at", [(-4, 5), (5, -3), (14, 5), (5, 18), (-1e6, 1e6), (1e9, -1e9)])
def test_positions_outside_the_image_have_no_evidence(at):
    probabilities = np.ones((5, 12, 16), np.float32)
    assert not read_centres(probabilities, everywhere(*at)).any()


def test_no_positions_give_no_evidence():
    assert read_centres(lit(0, 1, 1), np.zeros((4, 0, 2), np.float32)).shape == (0, 4)


def test_graph_does_not_tell_where_it_was_exported(tiny_bundle):
    for folder in (tiny_bundle, DEFAULT_BUNDLE):
        assert b"stack_trace" not in (folder / "network.onnx").read_bytes()
        assert b".py" not in (folder / "network.onnx").read_bytes()
