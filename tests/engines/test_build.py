"""Building plans, keeping them and trusting them, up to the command line."""

import json
import os
import re
import subprocess
from dataclasses import replace
from importlib.util import find_spec

import pytest

from daemon.cli.buildplans import build_one
from engines.bundles.bundle import DEFAULT_BUNDLE, load_bundle
from engines.contract import EngineOptions
from engines.devices.driver import DeviceInfo
from engines.devices.probe import probe
from engines.errors import EngineError
from engines.tensorrt.build import build_plan, cut_graph, inspect_layers
from engines.tensorrt.cache import PlanCache, default_folder, read_trusted
from engines.tensorrt.plans import Plans
from tests.doubles.tensorrt import Full, Lean
from tests.support.processes import SEQD

GPU = DeviceInfo("GPU of the test", (9, 0), 132, 80 * 2**30, "580.1")
SHAPE = (24, 32)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "plans"


@pytest.fixture
def plans_of(tiny_bundle, folder):
    def make(trt, *, device=GPU, shape=SHAPE, **options):
        bundle, options = load_bundle(tiny_bundle), EngineOptions(**options)
        return Plans(trt, device, bundle, shape=shape, options=options, folder=folder)

    return make


def files(folder):
    return {path.suffix: path for path in folder.iterdir()}


@pytest.mark.parametrize("version", ["10.13.0.35", "11.4.0.106"])
def test_plan_is_built_once_and_then_kept(plans_of, folder, version):
    trt = Full(version)
    built = plans_of(trt).plan(superresolved=False)
    assert trt.built == 1
    assert trt.workspace[1] == GPU.memory_bytes // 2
    # Stem, two layers and the two convolutions of the base-call branch.
    assert built.record.convolutions == 5
    again = plans_of(trt).plan(superresolved=False)
    assert trt.built == 1
    assert again == built
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert set(files(folder)) == {".plan", ".json", ".timing"}


def test_measurements_of_one_build_serve_the_next(plans_of, folder):
    trt = Full()
    plans_of(trt).plan(superresolved=False)
    plans_of(trt).plan(superresolved=True)
    assert files(folder)[".timing"].read_bytes() == b"measuredmeasured"


def test_measurements_that_tensorrt_does_not_know_are_made_anew(plans_of, folder):
    trt = Full()
    plans_of(trt).plan(superresolved=False)
    files(folder)[".timing"].write_bytes(b"of another version")
    plans_of(trt).plan(superresolved=True)
    assert files(folder)[".timing"].read_bytes() == b"measured"


@pytest.mark.parametrize(
    ("trt", "options"),
    [
        (Full("11.5.0"), {}),
        (Full(), {"device": replace(GPU, name="another GPU")}),
        (Full(), {"device": replace(GPU, compute_capability=(8, 9))}),
        (Full(), {"device": replace(GPU, driver="590.2")}),
        (Full(), {"shape": (24, 40)}),
        (Full(), {"shape": (60, 32), "strip_px": 32 * 24}),
    ],
)
def test_another_gpu_driver_version_or_shape_needs_another_plan(plans_of, trt, options):
    plans_of(Full()).plan(superresolved=False)
    plans_of(trt, **options).plan(superresolved=False)
    assert trt.built == 1


def test_another_graph_needs_another_plan(plans_of, folder):
    key = plans_of(Full()).key(superresolved=False)
    plans_of(Full()).plan(superresolved=False)
    assert PlanCache(folder).find(replace(key, graph="0" * 64)) is None


def test_lean_runtime_runs_what_was_built_and_says_so_where_nothing_was(plans_of):
    with pytest.raises(EngineError, match=r"no plan for calls of 24×32 px on GPU of the test .*run `seqd build`"):
        plans_of(Lean()).plan(superresolved=False)
    built = plans_of(Full()).plan(superresolved=False)
    assert plans_of(Lean()).plan(superresolved=False) == built


@pytest.mark.skipif(find_spec("tensorrt_lean_libs") is None, reason="the lean runtime is not installed")
def test_full_library_loads_the_lean_runtime_where_a_plan_needs_it(plans_of):
    assert plans_of(Full(through_lean=True)).plan(superresolved=False).record.convolutions == 5


def test_lean_runtime_does_not_build():
    with pytest.raises(EngineError, match="only the lean runtime is installed"):
        build_plan(Lean(), b"", workspace_bytes=1, timing=b"")


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("Builder", "making a builder failed: "),
        ("OnnxParser", "making a parser failed: "),
        ("parse", "parsing the graph failed: "),
        ("set_timing_cache", "using the timing cache failed: "),
        ("build_serialized_network", "building a plan failed: "),
        ("Runtime", "making a runtime failed: "),
        ("deserialize_cuda_engine", "loading a plan failed: "),
    ],
)
def test_first_error_of_tensorrt_is_told(plans_of, folder, call, message):
    with pytest.raises(EngineError, match=f"^TensorRT: {message}Requested amount of GPU memory$"):
        plans_of(Full(refuse=[call], says="Requested amount of GPU memory\nand more")).plan(superresolved=False)
    assert not [path for path in folder.iterdir() if path.suffix in (".plan", ".json")]


def test_error_without_a_word_of_tensorrt_names_what_failed(plans_of):
    with pytest.raises(EngineError, match=r"^TensorRT: building a plan failed$"):
        plans_of(Full(refuse=["build_serialized_network"])).plan(superresolved=False)
    with pytest.raises(EngineError, match="making a builder failed: pybind11::init"):
        plans_of(Full(refuse=["Builder"])).plan(superresolved=False)


def test_graph_that_does_not_parse_is_told():
    with pytest.raises(EngineError, match=r"^TensorRT: parsing the graph failed: .+"):
        build_plan(Full(), b"no graph", workspace_bytes=1, timing=b"")


def test_plan_with_other_weights_than_half_is_refused(plans_of, folder):
    with pytest.raises(EngineError, match=r"not FP16: convolution \S+ computes from Float"):
        plans_of(Full(weights="Float")).plan(superresolved=False)
    assert not files(folder)


def layer(kind="CaskConvolution", tensor=None, **more):
    return {"Name": "conv", "LayerType": kind, "Inputs": [tensor or {"DataType": "Half"}], **more}


@pytest.mark.parametrize(
    "layers",
    [
        [layer()],
        [layer(tensor={"Format/Datatype": "Channel major FP16 format where channel % 8 == 0"})],
        [layer(tensor={"Format/Datatype": "Half"}, Weights={"Type": "Half", "Count": 3})],
        [layer(kind="Reformat", tensor={"DataType": "Float"}), layer(kind="CaskDeconvolutionV2")],
        [layer(kind="fused", ParameterType="Convolution"), "a layer without details"],
    ],
)
def test_half_precision_is_recognised(layers):
    inspected = inspect_layers(json.dumps({"Layers": layers}))
    assert (inspected.layers, inspected.convolutions) == (len(layers), 1)


@pytest.mark.parametrize(
    ("report", "message"),
    [
        ({"Layers": [layer(tensor={"DataType": "Float"})]}, "convolution conv computes from Float"),
        (
            {"Layers": [layer(), layer(tensor={"Format/Datatype": "Row major linear FP32"})]},
            "from Row major linear FP32",
        ),
        ({"Layers": [layer(tensor={"Format/Datatype": "N/A due to dynamic shapes"})]}, "from N/A due to dynamic"),
        ({"Layers": [layer(tensor={"Name": "x"})]}, "from an unknown type"),
        ({"Layers": [{"LayerType": "Convolution"}]}, "convolution without a name computes from an unknown type"),
        ({"Layers": [layer(Weights={"Type": "Int8"})]}, "from Int8"),
        ({"Layers": ["conv", "relu"]}, "no convolution among its layers"),
        ({"Layers": []}, "no convolution among its layers"),
        ({}, "no list of layers"),
        ([], "no list of layers"),
    ],
)
def test_anything_but_half_precision_is_refused(report, message):
    with pytest.raises(EngineError, match=re.escape(message)):
        inspect_layers(json.dumps(report))


def test_report_that_is_not_json_is_refused():
    with pytest.raises(EngineError, match="no list of layers"):
        inspect_layers("conv\nrelu")


def test_graph_without_the_outputs_is_refused(plans_of, tmp_path):
    (tmp_path / "network.onnx").write_bytes(b"")
    with pytest.raises(EngineError, match=r"^graph .*network\.onnx: .+"):
        cut_graph(tmp_path / "network.onnx", plans_of(Full()).key(superresolved=False))


def test_altered_plan_is_refused_before_tensorrt_sees_it(plans_of, folder):
    trt = Full()
    plans_of(trt).plan(superresolved=False)
    path = files(folder)[".plan"]
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(EngineError, match=r"\.plan has SHA-256 \w{12}…, its record says \w{12}…; remove it and run"):
        plans_of(trt).plan(superresolved=False)


def test_record_of_another_plan_is_refused(plans_of, folder):
    key = plans_of(Full()).key(superresolved=False)
    plans_of(Full()).plan(superresolved=False)
    record = files(folder)[".json"]
    for suffix in (".json", ".plan"):
        files(folder)[suffix].rename(folder / f"{replace(key, width=40).digest}{suffix}")
    with pytest.raises(EngineError, match="is the record of another plan, for calls of 24×32 px"):
        PlanCache(folder).find(replace(key, width=40))
    assert not record.exists()


@pytest.mark.parametrize("content", ["", "{}", '{"sha256": 3}'])
def test_record_that_is_none_is_refused(plans_of, folder, content):
    plans_of(Full()).plan(superresolved=False)
    files(folder)[".json"].write_text(content)
    with pytest.raises(EngineError, match=r"\.json is not a plan's record: .*remove it and run `seqd build` again"):
        plans_of(Full()).plan(superresolved=False)


@pytest.mark.parametrize("missing", [".json", ".plan"])
def test_half_a_plan_is_none(plans_of, folder, missing):
    trt = Full()
    plans_of(trt).plan(superresolved=False)
    files(folder)[missing].unlink()
    assert plans_of(trt).kept(superresolved=False) is None
    plans_of(trt).plan(superresolved=False)
    assert trt.built == 2


@pytest.mark.parametrize("suffix", [".plan", ".json", ".timing"])
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_file_that_others_can_write_is_not_trusted(plans_of, folder, suffix, mode):
    plans_of(Full()).plan(superresolved=False)
    files(folder)[suffix].chmod(mode)
    with pytest.raises(EngineError, match=rf"\{suffix} is not trusted: its mode is {mode:04o}, group and others"):
        plans_of(Full()).plan(superresolved=suffix == ".timing")


def test_folder_that_others_can_write_is_not_trusted(plans_of, folder):
    plans_of(Full()).plan(superresolved=False)
    folder.chmod(0o777)
    with pytest.raises(EngineError, match="plans is not trusted: its mode is 0777"):
        plans_of(Full()).plan(superresolved=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_file_of_another_user_is_not_trusted(plans_of, folder):
    plans_of(Full()).plan(superresolved=False)
    os.chown(files(folder)[".plan"], 4711, -1)
    with pytest.raises(EngineError, match=r"\.plan is not trusted: it belongs to user 4711, root or 0 is allowed"):
        plans_of(Full()).plan(superresolved=False)


def test_only_a_file_is_trusted(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir(mode=0o700)
    (folder / "file").write_bytes(b"content")
    (folder / "link").symlink_to("file")
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe", 0o600)
    assert read_trusted(folder / "file") == b"content"
    assert read_trusted(folder / "none") is None
    with pytest.raises(EngineError, match="link: Too many levels of symbolic links"):
        read_trusted(folder / "link")
    with pytest.raises(EngineError, match="folder: Is a directory"):
        read_trusted(folder / "folder")
    with pytest.raises(EngineError, match="pipe is not trusted: it is not a file"):
        read_trusted(folder / "pipe")
    with pytest.raises(EngineError, match="file is not trusted: it is not a folder"):
        read_trusted(folder / "file" / "below")


def test_folder_that_cannot_be_made_is_told(plans_of, folder):
    folder.write_bytes(b"")
    with pytest.raises(EngineError, match=r"plans is not trusted: it is not a folder"):
        plans_of(Full()).plan(superresolved=False)
    with pytest.raises(EngineError, match=r"^plans .*: Not a directory"), PlanCache(folder / "below").build_lock():
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "bf16"}, "engine tensorrt: it does not compute in bf16; it does in f16"),
        ({"gpu": False}, "engine tensorrt: it runs on a GPU, and gpu = false was asked for"),
    ],
)
def test_options_that_tensorrt_cannot_meet_are_refused(plans_of, options, message):
    with pytest.raises(EngineError, match=message):
        plans_of(Full(), **options)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"CACHE_DIRECTORY": "/var/cache/seqd:/var/cache/other"}, "/var/cache/seqd/plans"),
        ({"XDG_CACHE_HOME": "/home/user/cache"}, "/home/user/cache/seqd/plans"),
        ({"XDG_CACHE_HOME": "not/absolute", "HOME": "/home/user"}, "/home/user/.cache/seqd/plans"),
        ({"HOME": "/home/user"}, "/home/user/.cache/seqd/plans"),
    ],
)
def test_plans_are_kept_where_caches_belong(monkeypatch, environment, expected):
    for name in ("CACHE_DIRECTORY", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(default_folder()) == expected


def test_command_tells_what_it_built_and_what_was_there(plans_of, folder, capsys):
    plans = plans_of(Full())
    build_one(plans, superresolved=False)
    first = capsys.readouterr().out.splitlines()
    assert first[0] == "building calls of 24×32 px on GPU of the test with TensorRT 11.4.0.106; this takes minutes"
    assert re.fullmatch(r"built in \d+\.\d s: calls of 24×32 px on .*, driver 580\.1", first[1])
    assert re.fullmatch(r"  \d+ layers, 5 convolutions, all FP16; \d+\.\d MB", first[2])
    assert first[3] == f"  {files(folder)['.plan']}"
    build_one(plans, superresolved=False)
    assert capsys.readouterr().out.splitlines() == [
        first[1].replace(first[1].split(": ")[0], "in the cache"),
        *first[2:],
    ]


def has_gpu():
    try:
        return bool(probe().devices)
    except EngineError:
        return False


@pytest.mark.skipif(has_gpu(), reason="there is a GPU")
def test_command_without_a_driver_says_so_in_one_line():
    ended = subprocess.run(
        [*SEQD, "build", "--size", "256", "256", "--bundle", str(DEFAULT_BUNDLE)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (ended.returncode, ended.stdout) == (5, "")
    assert ended.stderr == "seqd: no NVIDIA driver: libcuda.so.1 not found\n"
