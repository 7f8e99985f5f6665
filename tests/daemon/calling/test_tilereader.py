"""The tile reader on an engine that fails, in one process: which tile-cycles are read again, and which are given up."""

import sqlite3
from contextlib import ExitStack, closing
from itertools import count

import pytest
import zmq
from seqd_client.runinfo import TileId

from calib.jointfit.fitdevice import choose_fit_device
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.runfolder.images import read_frames
from daemon.calling.cyclecaller import CycleCaller
from daemon.calling.enginechoice import EngineChoice
from daemon.calling.supervisedengine import SupervisedEngine
from daemon.calling.tilereader import TileReader
from daemon.config import FaultsConfig, SecurityConfig
from daemon.intake.tileimages import MissingImage, TileImage
from daemon.record.runfiles import RunFiles
from daemon.record.runrecord import RunRecord
from daemon.record.storageretry import StorageRetry
from daemon.serving.announcing import Announcer, EventPublisher
from daemon.serving.gate import Gate
from daemon.serving.stream import Stream
from daemon.watching.runstatus import RunStatus
from engines.backends.openvino import OpenVinoRunner
from engines.bundles.bundle import Readout, load_bundle
from engines.bundles.golden import GoldenResult
from engines.contract import EngineOptions
from engines.engineselection import Selection
from engines.errors import EngineError, EngineLostError
from engines.slots import SlottedEngine
from tests.support.processes import outputs

SHAPE, CYCLES, TEMPLATE_CYCLES, TILE = (64, 64), 9, 3, TileId(lane=1, tile=1101)
MISSING = 6
LATER = 2 * TEMPLATE_CYCLES + 2
"""Tile of the engine: the template's maps and its cycles come first, then cycles 4 and 5."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    info = write_simulated_run(
        root, Conditions(), run="R", tiles=1, cycles=CYCLES, shape=SHAPE, seed=1, progress=lambda done: None
    )
    items = [TileImage(TILE, cycle, read_frames(root, TILE, cycle, shape=SHAPE)) for cycle in range(1, CYCLES + 1)]
    items[MISSING - 1] = MissingImage(TILE, MISSING, "it did not come", 3)
    return info, items


class Calling:
    """Calls the rest of a run, with an engine that fails at tiles by their number."""

    def __init__(self, run, folder):
        self.info, self.items = run
        self.folder, self.files = folder, RunFiles(folder / "R")
        self.events, self.opened = [], 0

    def __call__(self, faults=(), *, slots=2, **settings):
        tiles, faults = count(1), dict(faults)
        bundle, options = load_bundle(), EngineOptions(precision="f32", threads=1)

        class Runner(OpenVinoRunner):
            def wait(self, buffers):
                super().wait(buffers)
                if error := faults.get(next(tiles)):
                    raise error

        def opened():
            self.opened += 1
            engine = SlottedEngine("cpu", lambda: Runner(bundle, shape=SHAPE, options=options), slots=slots)
            return EngineChoice(Selection(engine, "", {}, GoldenResult(0, 0, 0.0, 1.0)), choose_fit_device())

        def stopping():
            return False

        status = RunStatus("0")
        with ExitStack() as stack:
            context = stack.enter_context(zmq.Context())
            gate = stack.enter_context(Gate(context, SecurityConfig(), status.counters))
            stream = stack.enter_context(Stream(context, f"ipc://{self.folder}/calls", 10**6, status.counters, gate))
            events = EventPublisher(stream, status)
            retry = StorageRetry(status.troubles, status.liveness, events, stopping, retry_for_s=0)
            record = RunRecord(self.files, self.info, {}, retry, chastity_failures=1)
            stack.callback(record.close)
            engine = SupervisedEngine(
                opened(),
                opened,
                opened,
                fallback_reason="",
                engine_changed=lambda engine: None,
                faults=FaultsConfig(engine_backoff_s=0, **settings),
                troubles=status.troubles,
                liveness=status.liveness,
                announce=lambda level, text: self.events.append(text),
                stopping=stopping,
            )
            stack.callback(engine.close)
            announcer = Announcer("R", status.counters, status.liveness, stream)
            reader = TileReader(
                engine,
                record,
                CycleCaller(record, bundle.quality(Readout.NETWORK), announcer),
                status.liveness,
                readout=Readout.NETWORK,
                template_cycles=TEMPLATE_CYCLES,
                timeout_s=60,
            )
            for item in self.items[record.committed.get(TILE, 0) :]:
                reader.add(item)
            reader.finish()
            assert not reader.busy

    @property
    def reasons(self):
        """Status and reason of every cycle."""
        with closing(sqlite3.connect(self.files.ledger)) as ledger:
            return ledger.execute("SELECT status, reason FROM tile_cycle ORDER BY cycle").fetchall()

    @property
    def outputs(self):
        return outputs(self.files.root)


@pytest.fixture
def calling(run, tmp_path):
    return Calling(run, tmp_path)


@pytest.fixture(scope="module")
def undisturbed(run, tmp_path_factory):
    calling = Calling(run, tmp_path_factory.mktemp("undisturbed"))
    calling()
    expected = [("called", "")] * CYCLES
    expected[MISSING - 1] = ("missing", "it did not come")
    assert calling.reasons == expected
    assert calling.opened == 1
    return calling


@pytest.mark.parametrize("slots", [2, 4])
@pytest.mark.parametrize("error", [EngineError("bad tile"), EngineLostError("gone")])
def test_every_tile_of_the_engine_may_fail_once(error, slots, calling, undisturbed):
    calling({1: error, LATER: error, LATER + 2: error, LATER + 5: error}, slots=slots)
    assert calling.reasons == undisturbed.reasons
    assert calling.outputs == undisturbed.outputs
    assert calling.opened > 1
    failed = [event for event in calling.events if event.startswith("engine failed")]
    assert len(calling.events) == 2 * len(failed) == 2 * (calling.opened - 1)


def test_tile_cycle_that_fails_by_itself_three_times_is_given_up(calling, undisturbed):
    # Cycle 5 fails beside cycle 6, which is missing, and then alone.
    calling({number: EngineError("bad tile") for number in range(LATER, LATER + 4)})
    expected = undisturbed.reasons
    expected[4] = ("failed", "the engine failed 3 times: engine cpu: bad tile")
    assert calling.reasons == expected
    assert calling.opened == 5


def test_engine_that_reads_no_dark_image_either_is_useless(calling, undisturbed):
    faults = {number: EngineLostError("gone") for number in range(LATER, LATER + 5)}
    with pytest.raises(EngineLostError, match=r"^engine cpu: gone$"):
        calling(faults)
    assert {status for status, _ in calling.reasons} == {"called"}
    assert 0 < len(calling.reasons) < 5
    calling()
    assert calling.reasons == undisturbed.reasons
    assert calling.outputs == undisturbed.outputs


def test_useless_engine_is_replaced_by_the_fallback(calling, undisturbed):
    calling({number: EngineError("bad tile") for number in range(LATER, LATER + 5)}, fallback="cpu")
    assert calling.reasons == undisturbed.reasons
    assert calling.outputs == undisturbed.outputs


def test_template_that_fails_three_times_is_given_up_and_made_by_the_next_start(calling, undisturbed):
    with pytest.raises(
        EngineError, match=r"^tile 1_1101: the template could not be made in 3 attempts: engine cpu: bad tile$"
    ):
        calling(dict.fromkeys(range(1, 99), EngineError("bad tile")))
    assert calling.opened == 4
    assert calling.reasons == []
    calling()
    assert calling.outputs == undisturbed.outputs


def test_engine_that_may_not_be_opened_again_ends_the_run_at_once(calling):
    with pytest.raises(EngineLostError, match=r"^engine cpu: gone$"):
        calling({LATER: EngineLostError("gone")}, engine_restarts=0)
    assert calling.opened == 1
