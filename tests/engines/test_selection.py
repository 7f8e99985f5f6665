import io
import shutil
import tomllib

import numpy as np
import pytest
import tomli_w

from engines import engineselection
from engines.backends import BACKENDS, EngineOptions
from engines.bundles.bundle import MODEL, WEIGHTS, file_hash, load_bundle
from engines.engineselection import NOT_QUALIFIED, Candidate, Verdict, select_engine
from engines.errors import EngineError

SHAPE = (96, 112)


QUALIFIED = {candidate: Verdict(tile_cycles_per_s=1) for candidate in engineselection.CANDIDATES["auto"]}


def selected(bundle, backend, qualified=QUALIFIED, **options):
    return select_engine(bundle, backend=backend, shape=SHAPE, options=EngineOptions(**options), qualified=qualified)


@pytest.fixture
def without_gpu(monkeypatch):
    def absent():
        raise EngineError("no NVIDIA driver: libcuda.so.1 not found")

    monkeypatch.setattr(engineselection, "probe", absent)


def test_auto_falls_back_to_the_processor_and_says_why(tiny_bundle, without_gpu):
    chosen = selected(load_bundle(tiny_bundle), "auto", precision="f32")
    chosen.engine.close()
    assert chosen.engine.info.backend == "openvino"
    assert chosen.reason == "the fastest engine that is qualified here, 1 tile-cycles/s"
    assert chosen.passed_over == dict.fromkeys(
        ("tensorrt on a GPU", "torch on a GPU"), "no NVIDIA driver: libcuda.so.1 not found"
    )
    assert chosen.golden.clear > 0


def test_auto_without_a_qualification_takes_the_embedded_engine_and_tries_no_other(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engineselection, "probe", lambda: pytest.fail("the GPU is asked"))
    chosen = selected(load_bundle(tiny_bundle), "auto", qualified={}, precision="f32")
    chosen.engine.close()
    assert chosen.engine.info.backend == "openvino"
    assert chosen.reason == "the embedded engine; no other is qualified and works here"
    assert chosen.passed_over == dict.fromkeys(("tensorrt on a GPU", "torch on a GPU"), NOT_QUALIFIED)


def test_configured_backend_is_taken_or_refused(tiny_bundle):
    chosen = selected(load_bundle(tiny_bundle), "torch", precision="f32", gpu=False)
    chosen.engine.close()
    assert (chosen.engine.info.backend, chosen.reason, chosen.passed_over) == ("torch", "configured", {})
    with pytest.raises(EngineError, match="there is no such backend"):
        selected(load_bundle(tiny_bundle), "abacus")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nothing_like_it", "^engine broken: needs nothing_like_it, which is not installed$"),
        (
            "raise OSError('libcudnn.so.9: cannot open shared object file')",
            r"^engine broken: what it needs cannot be loaded: libcudnn\.so\.9: cannot open shared object file$",
        ),
        (
            "raise RuntimeError('operator does not exist\\nsee above')",
            "^engine broken: what it needs cannot be loaded: operator does not exist$",
        ),
    ],
)
def test_backend_whose_packages_are_broken_says_so_in_one_line(tiny_bundle, tmp_path, monkeypatch, source, message):
    (tmp_path / "broken_backend.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(BACKENDS, "broken", "broken_backend")
    monkeypatch.setitem(engineselection.CANDIDATES, "broken", (Candidate("broken", False),))
    with pytest.raises(EngineError, match=message):
        selected(load_bundle(tiny_bundle), "broken")


def test_pytorch_on_the_processor_is_said_to_be_there(tiny_bundle, without_gpu):
    chosen = selected(load_bundle(tiny_bundle), "torch", precision="f32")
    chosen.engine.close()
    assert not chosen.engine.info.gpu
    assert chosen.passed_over == {"torch on a GPU": "no NVIDIA driver: libcuda.so.1 not found"}


@pytest.mark.parametrize(
    ("backend", "gpu", "message"),
    [
        ("openvino", True, "engine openvino: it does not run on a GPU"),
        ("tensorrt", False, "engine tensorrt: it does not run on the CPU"),
        ("torch", True, "no NVIDIA driver"),
    ],
)
def test_device_that_is_asked_for_is_used_or_nothing(tiny_bundle, without_gpu, backend, gpu, message):
    with pytest.raises(EngineError, match=message):
        selected(load_bundle(tiny_bundle), backend, gpu=gpu)


def test_auto_never_takes_pytorch_on_the_processor(tiny_bundle, monkeypatch):
    monkeypatch.setattr(engineselection, "probe", lambda: None)
    chosen = selected(load_bundle(tiny_bundle), "auto", precision="f32")
    chosen.engine.close()
    assert chosen.engine.info.backend == "openvino"
    assert "has no GPU here" in chosen.passed_over["torch on a GPU"]


@pytest.fixture
def strange_bundle(tiny_bundle, tmp_path):
    """A bundle whose weights are not those that its golden answer came from."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "strange")
    with np.load(folder / WEIGHTS) as arrays:
        weights = {name: arrays[name] for name in arrays.files}
    weights["call.weight"] = np.roll(weights["call.weight"], 1, axis=0)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **weights)
    (folder / WEIGHTS).write_bytes(buffer.getvalue())
    model = tomllib.loads((folder / MODEL).read_text())
    model["hashes"]["weights"] = file_hash(folder / WEIGHTS)
    (folder / MODEL).write_text(tomli_w.dumps(model))
    return load_bundle(folder)


def test_engine_with_another_answer_is_refused_and_closed(strange_bundle):
    with pytest.raises(EngineError, match=r"engine torch on .* in f32: evidence on the golden tile .* is off by"):
        selected(strange_bundle, "torch", precision="f32", gpu=False)


def test_auto_passes_over_an_engine_with_another_answer(strange_bundle, monkeypatch):
    monkeypatch.setitem(engineselection.CANDIDATES, "auto", (Candidate("torch", False), Candidate("openvino", False)))
    fastest = {Candidate("torch", False): Verdict(tile_cycles_per_s=9)}
    chosen = selected(strange_bundle, "auto", qualified=fastest, precision="f32")
    chosen.engine.close()
    assert chosen.engine.info.backend == "openvino"
    assert "golden tile" in chosen.passed_over["torch on the CPU"]


def test_when_nothing_works_every_reason_is_told(tiny_bundle, without_gpu):
    with pytest.raises(
        EngineError, match=r"no engine works here: .*: no NVIDIA driver.*; openvino on the CPU: engine openvino: .*f8"
    ):
        selected(load_bundle(tiny_bundle), "auto", precision="f8")
