import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime

import pytest

from daemon.calling.enginechoice import choose
from daemon.config import EngineConfig
from daemon.qualification import qualificationrecord
from daemon.qualification.candidatetrial import Trial
from daemon.qualification.qualificationrecord import (
    CUPY,
    QualificationRecord,
    read_qualified,
    this_machine,
    write_record,
)
from daemon.qualification.runtrials import run_trial
from engines import engineselection
from engines.backends import BACKENDS, EngineOptions
from engines.bundles.bundle import load_bundle
from engines.devices.probe import Cuda, CudaDevice
from engines.engineselection import EMBEDDED, NOT_QUALIFIED, Candidate, Verdict, select_engine
from engines.errors import EngineError
from tests.support.processes import SEQD

SIZE = (96, 112)

GOOD = "from engines.backends.openvino import open_engine"
WRAPPED = """
from engines.backends import openvino

class Wrapped:
    def __init__(self, engine):
        self.engine, self.info, self.collected = engine, engine.info, 0
        self.lease, self.submit, self.close = engine.lease, engine.submit, engine.close

    def collect(self, slot, timeout_s):
        self.collected += 1
        return self.act(self.engine.collect(slot, timeout_s))

def open_engine(bundle, *, shape, options):
    return Wrapped(openvino.open_engine(bundle, shape=shape, options=options))
"""
ENGINES = {
    "good": GOOD,
    "hanging": WRAPPED + "\nimport time\nWrapped.act = lambda self, answer: time.sleep(600)",
    "crashing": WRAPPED + "\nimport os, signal\nWrapped.act = lambda self, answer: self.collected < 9 and answer"
    " or os.kill(os.getpid(), 11)",
    "wrong": WRAPPED + "\nimport dataclasses\n"
    "Wrapped.act = lambda self, answer: dataclasses.replace(answer, centres=answer.centres[:, ::-1])",
    "fickle": WRAPPED + "\nimport dataclasses\n"
    "Wrapped.act = lambda self, answer: dataclasses.replace(answer, centres=answer.centres + 1e-7 * self.collected)",
    "leaking": WRAPPED + "\nkept = []\nWrapped.act = lambda self, answer: kept.append(b'x' * 2**19) or answer",
    "closed": "from engines.errors import EngineError\ndef open_engine(bundle, **_):\n"
    "    raise EngineError('no licence\\nask for one')",
    "absent": "import nothing_like_it",
    "leaving": "import os\nos._exit(3)",
}


@pytest.fixture
def doubles(tmp_path, monkeypatch):
    """A folder of modules that open engines; children import them by name, as they import the real ones."""
    for name, source in ENGINES.items():
        (tmp_path / f"double_{name}.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    folder.mkdir(mode=0o700)
    monkeypatch.setenv("CACHE_DIRECTORY", str(folder))
    return folder / "plans"


def tried(name, bundle, limit_s=120):
    module = f"double_{name}" if name in ENGINES else name
    trial = Trial(module=module, gpu=False, bundle=bundle, size=SIZE, precision="f32", threads=1)
    return run_trial(name, trial, limit_s=limit_s, gpus=[])


def test_a_good_engine_is_qualified_and_measured(doubles, tiny_bundle):
    found = tried("good", tiny_bundle)
    assert (found.result, found.reason) == ("qualified", "")
    assert found.measured.precision == "f32"
    assert 0 < found.measured.ms_per_tile < 60_000
    assert found.measured.tile_cycles_per_s > 0
    assert found.verdict == Verdict(tile_cycles_per_s=found.measured.tile_cycles_per_s)


@pytest.mark.parametrize(
    ("name", "result", "reason"),
    [
        ("crashing", "crashed", "crashed with signal 11, during: 200 small tiles"),
        ("wrong", "wrong answer", "wrong answer: engine openvino .* evidence on the golden tile .* is off by"),
        ("fickle", "wrong answer", "wrong answer: the same tile has two answers"),
        ("leaking", "failed", "memory grew by [0-9]+ MB"),
        ("closed", "not opened", "no licence$"),
        ("absent", "not opened", "nothing_like_it is not installed"),
        ("leaving", "failed", "ended with code 3, during: the opening"),
    ],
)
def test_a_bad_engine_is_a_result_with_its_reason(doubles, tiny_bundle, name, result, reason):
    found = tried(name, tiny_bundle)
    assert found.result == result
    assert re.match(reason, found.reason), found.reason
    assert found.verdict.refusal == f"qualification: {found.reason}"


def test_an_engine_that_hangs_is_killed_at_the_limit(doubles, tiny_bundle):
    found = tried("hanging", tiny_bundle, limit_s=10)
    assert found.result == "hung"
    assert found.reason.startswith("hung after 10 s, during: ")
    assert 10 <= found.seconds < 60


def test_auto_takes_the_fastest_qualified_engine_and_says_why_not_the_others(doubles, tiny_bundle, monkeypatch):
    names = ("good", "crashing", "slow", "unknown")
    candidates = {name: Candidate(name, False) for name in names}
    monkeypatch.setitem(BACKENDS, "good", "double_good")
    monkeypatch.setitem(engineselection.CANDIDATES, "auto", (*candidates.values(), EMBEDDED))
    verdicts = {
        candidates["crashing"]: Verdict("qualification: crashed with signal 11"),
        candidates["slow"]: Verdict(tile_cycles_per_s=2.0),
        candidates["good"]: Verdict(tile_cycles_per_s=5.0),
    }
    options = EngineOptions(precision="f32", threads=1)
    chosen = select_engine(load_bundle(tiny_bundle), backend="auto", shape=SIZE, options=options, qualified=verdicts)
    chosen.engine.close()
    assert chosen.reason == "the fastest engine that is qualified here, 5 tile-cycles/s"
    assert chosen.passed_over == {
        "crashing on the CPU": "qualification: crashed with signal 11",
        "unknown on the CPU": NOT_QUALIFIED,
        "slow on the CPU": "slower, 2 tile-cycles/s",
        "openvino on the CPU": NOT_QUALIFIED,
    }


def record(bundle, gpu=None, **results):
    """A record in which each candidate has a result: a number is its speed, a text its reason."""

    def trial(candidate, found):
        if isinstance(found, str):
            return {"candidate": candidate, "result": "failed", "reason": found, "seconds": 1}
        measured = {"ms_per_tile": 1e3 / found, "tile_cycles_per_s": found}
        return {"candidate": candidate, "result": "qualified", "seconds": 1, "measured": measured}

    fits = results.pop("fits", {})
    names = {"tensorrt": "tensorrt on a GPU", "torch": "torch on a GPU", "openvino": "openvino on the CPU"}
    return QualificationRecord(
        machine=this_machine(load_bundle(bundle).hash, gpu),
        date=datetime.now(UTC),
        size=SIZE,
        engines=[trial(names[name], found) for name, found in results.items()],
        fit_devices=[trial(name, found) for name, found in fits.items()],
    )


GPU = Cuda("580.1", (13, 0), (CudaDevice("a GPU", (9, 0)),))


def test_a_record_gives_its_verdicts_on_the_same_machine(tiny_bundle, monkeypatch):
    monkeypatch.setattr(qualificationrecord, "probe", lambda: GPU)
    write_record(record(tiny_bundle, GPU, tensorrt=9.0, torch="hung after 60 s", openvino=1.0, fits={CUPY: 3.0}))
    found = read_qualified(load_bundle(tiny_bundle).hash)
    assert found.engines == {
        Candidate("tensorrt", True): Verdict(tile_cycles_per_s=9.0),
        Candidate("torch", True): Verdict("qualification: hung after 60 s"),
        EMBEDDED: Verdict(tile_cycles_per_s=1.0),
    }
    assert found.cupy == Verdict(tile_cycles_per_s=3.0)


def assert_ignored(bundle_hash, reason):
    found = read_qualified(bundle_hash)
    refusals = {verdict.refusal for verdict in (*found.engines.values(), found.cupy)}
    assert len(refusals) == 1
    refusal = refusals.pop()
    assert refusal.startswith("the qualification is not used: ")
    assert refusal.endswith("; run `seqd qualify`")
    assert reason in refusal


def test_a_record_of_another_state_of_the_machine_is_not_used(tiny_bundle, monkeypatch):
    model = load_bundle(tiny_bundle).hash
    made = record(tiny_bundle, GPU, torch=9.0, openvino=1.0)
    write_record(made)
    later = Cuda("590.2", (13, 0), GPU.devices)
    monkeypatch.setattr(qualificationrecord, "probe", lambda: later)
    assert_ignored(model, "it was made with driver 580.1, not 590.2")

    def lost():
        raise EngineError("no NVIDIA driver")

    monkeypatch.setattr(qualificationrecord, "probe", lost)
    assert_ignored(model, "no NVIDIA driver")
    monkeypatch.setattr(qualificationrecord, "probe", lambda: GPU)
    assert_ignored("0" * 64, f"it was made with model hash {model}")
    packages = made.machine.packages | {"openvino": "1.0"}
    write_record(made.model_copy(update={"machine": made.machine.model_copy(update={"packages": packages})}))
    assert_ignored(model, "it was made with openvino 1.0, not ")


def test_a_record_that_others_can_write_or_that_is_none_is_not_used(tiny_bundle, cache):
    path = write_record(record(tiny_bundle, openvino=1.0))
    assert path.parent == cache
    path.chmod(0o666)
    assert_ignored("", "is not trusted: its mode is 0666")
    path.chmod(0o600)
    path.write_text("{}")
    assert_ignored("", "is not a qualification's record")


def test_without_a_record_nothing_of_a_gpu_is_asked_or_imported(tiny_bundle, monkeypatch):
    def never():
        raise AssertionError("the GPU is asked")

    monkeypatch.setattr(qualificationrecord, "probe", never)
    monkeypatch.setattr(engineselection, "probe", never)
    monkeypatch.setitem(sys.modules, "cupy", None)
    config = EngineConfig(bundle=tiny_bundle, precision="f32", threads=1)
    info = type("Info", (), {"height": SIZE[0], "width": SIZE[1]})
    chosen = choose(load_bundle(tiny_bundle), config, info)
    chosen.selection.engine.close()
    assert chosen.selection.engine.info.backend == "openvino"
    assert chosen.selection.passed_over == dict.fromkeys(("tensorrt on a GPU", "torch on a GPU"), NOT_QUALIFIED)
    assert (chosen.fit_device.name, chosen.fit_device.reason) == ("cpu", NOT_QUALIFIED)


def test_a_run_goes_on_with_what_it_was_begun_with_whatever_the_record_says(tiny_bundle):
    write_record(record(tiny_bundle, openvino="wrong answer: all of it"))
    config = EngineConfig(bundle=tiny_bundle, precision="f32", threads=1)
    info = type("Info", (), {"height": SIZE[0], "width": SIZE[1]})
    bundle = load_bundle(tiny_bundle)
    chosen = choose(bundle, config, info, begun_with={"backend": "openvino", "gpu": False, "fit": "cpu"})
    chosen.selection.engine.close()
    assert chosen.selection.reason == chosen.fit_device.reason == "the same as when the run was begun"


def test_the_command_prints_a_table_and_writes_the_record(tiny_bundle, tmp_path, cache):
    config = tmp_path / "seqd.toml"
    config.write_text(f'[engine]\nbundle = "{tiny_bundle}"\nprecision = "f32"\nthreads = 1\n')
    command = [*SEQD, "qualify", "--size", "64", "80", "--config", str(config)]
    environment = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment, check=True)
    for name in ("tensorrt on a GPU", "torch on a GPU", "openvino on the CPU", "torch on the CPU", CUPY):
        assert name in done.stdout
    written = json.loads((cache / "qualification.json").read_text())
    results = {trial["candidate"]: trial["result"] for trial in written["engines"] + written["fit_devices"]}
    assert results["openvino on the CPU"] == results["NumPy on the CPU"] == "qualified"
    assert read_qualified(load_bundle(tiny_bundle).hash).engines[EMBEDDED].tile_cycles_per_s > 0
