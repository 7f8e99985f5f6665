import threading
import time
from contextlib import ExitStack

import pytest
import tqdm

from engines.backends import EngineOptions, open_engine
from engines.bundles.bundle import QualityTable, Readout, load_bundle, store_quality
from engines.network.architecture import Architecture

# A thread of its own that other libraries' progress bars start, and that never ends.
tqdm.tqdm.monitor_interval = 0


SLOW = {
    "bam", "barcodes", "changed_files", "changed_ledger", "chaos", "classical_caller", "cli", "conformance", "consumer",
    "controller_example", "devices", "engine_faults", "evaluation", "export_command", "faults", "fastq_export",
    "foreign_clients", "golden", "hilive", "install", "interop_files", "labels", "lag", "notify", "onnxgraph", "paired",
    "picard", "pictures", "qualification", "quantise", "readme", "refusals", "report", "run", "security", "sink_faults",
    "spiked_images", "spikein", "structured_illumination", "summary", "template", "tilereader", "training",
    "verified_runs", "whole_pass",
}  # fmt: skip
"""Files of tests, without ``test_``, that ``make check`` leaves out."""


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.stem.removeprefix("test_") in SLOW:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"threads left running: {left}"


@pytest.fixture(scope="session")
def tiny():
    """A network small enough to train and run in milliseconds; its halo is 5 px."""
    return Architecture(stem=8, blocks=1, layers=2, growth=4, hidden=8, upsampled=8)


@pytest.fixture(scope="session")
def tiny_bundle(tiny, tmp_path_factory):
    """Folder of a bundle with random weights whose probabilities and images vary from pixel to pixel."""
    # PyTorch takes seconds to import: only tests of this bundle pay for it.
    import torch

    from calib.offline.training.goldenimage import golden_tile
    from engines.bundles.torchbundle import write_bundle
    from engines.network.torchnetwork import Network

    torch.manual_seed(1)
    network = Network(tiny)
    torch.nn.init.normal_(network.call.weight, std=0.3)
    torch.nn.init.zeros_(network.call.bias)
    torch.nn.init.normal_(network.reconstruct.weight, std=0.2)
    folder = tmp_path_factory.mktemp("bundle")
    write_bundle(
        folder, name="tiny", architecture=tiny, weights=network.state_dict(), training={}, golden=golden_tile()
    )
    table = QualityTable(weights=(1, 0, 0, 0, 0, 0), edges=(0.4, 0.8), scores=(5, 15, 30), binned=(2, 12, 24))
    store_quality(load_bundle(folder), dict.fromkeys(Readout, table))
    return folder


@pytest.fixture
def open_tiny(tiny_bundle):
    """Opens an engine on the tiny bundle and closes it after the test."""
    with ExitStack() as opened:

        def open_one(shape, *, precision="f32", threads=1, **options):
            options = EngineOptions(precision=precision, threads=threads, **options)
            engine = open_engine(load_bundle(tiny_bundle), shape=shape, options=options)
            opened.callback(engine.close)
            return engine

        yield open_one
