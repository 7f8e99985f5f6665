"""The caller with an engine that fails: one tile, or for good."""

import sqlite3
from contextlib import ExitStack, closing
from itertools import count

import pytest
import zmq

from calib.jointfit.place import choose_place
from calib.learning.simulation.conditions import Conditions
from calib.learning.simulation.folder import write_simulated_run
from calib.runfolder import TileId, read_frames
from daemon.assembler import TileImage
from daemon.caller import Caller
from daemon.config import SecurityConfig
from daemon.output import RunOutput
from daemon.progress import Progress
from daemon.runfiles import RunFiles
from daemon.security.gate import Gate
from daemon.stream import Stream
from engines.backends.openvino import OpenVinoRunner
from engines.bundle import Readout, load_bundle
from engines.errors import EngineError, EngineLostError
from engines.options import EngineOptions
from engines.slots import SlottedEngine

SHAPE, CYCLES, TEMPLATE_CYCLES, TILE = (64, 64), 9, 3, TileId(lane=1, tile=1101)
FAILS_AT = 2 * TEMPLATE_CYCLES + 2
"""Tile of the engine: the template's maps and its cycles come first, then cycles 4 and 5."""


class FailsOnce(OpenVinoRunner):
    """The processor's runner, whose device fails at one tile."""

    error: EngineError

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self._tiles = count(1)

    def wait(self, buffers):
        super().wait(buffers)
        if next(self._tiles) == FAILS_AT:
            raise self.error


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    info = write_simulated_run(
        root, Conditions(), run="R", tiles=1, cycles=CYCLES, shape=SHAPE, seed=1, progress=lambda done: None
    )
    return info, [TileImage(TILE, cycle, read_frames(root, TILE, cycle, shape=SHAPE)) for cycle in range(1, CYCLES + 1)]


@pytest.fixture
def call(run, tmp_path):
    """Calls what is left of the run, with an engine that fails or a sound one; gives the statuses in the ledger."""
    info, images = run
    bundle, options = load_bundle(), EngineOptions(precision="f32", threads=1)

    def call(error=None):
        runner = OpenVinoRunner if error is None else type("Runner", (FailsOnce,), {"error": error})
        progress, files = Progress("0"), RunFiles(tmp_path / "R")
        with ExitStack() as stack:
            context = stack.enter_context(zmq.Context())
            gate = stack.enter_context(Gate(context, SecurityConfig(), progress))
            stream = stack.enter_context(Stream(context, f"ipc://{tmp_path}/calls", 1000, progress, gate))
            output = stack.enter_context(closing(RunOutput(files, info, {}, progress, stream, chastity_failures=1)))
            engine = SlottedEngine("cpu", lambda: runner(bundle, shape=SHAPE, options=options), slots=2)
            stack.enter_context(closing(engine))
            caller = Caller(
                engine,
                choose_place(),
                output,
                progress,
                readout=Readout.NETWORK,
                quality=bundle.quality(Readout.NETWORK),
                template_cycles=TEMPLATE_CYCLES,
                timeout_s=60,
            )
            try:
                for image in images[output.committed.get(TILE, 0) :]:
                    caller.take(image)
                caller.finish()
            finally:
                with closing(sqlite3.connect(files.ledger)) as ledger:
                    call.statuses = ledger.execute("SELECT status, reason FROM tile_cycle ORDER BY cycle").fetchall()
        return call.statuses

    return call


def test_tile_that_the_engine_fails_at_fails_alone(call):
    statuses = call(EngineError("one bad tile"))
    assert [status for status, _ in statuses] == ["called"] * 4 + ["failed"] + ["called"] * 4
    assert statuses[4][1] == "engine cpu: one bad tile"


def test_engine_that_is_lost_ends_the_run_and_the_next_start_goes_on(call):
    with pytest.raises(EngineLostError, match=r"^engine cpu: GPU: cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS$"):
        call(EngineLostError("GPU: cuEventSynchronize: CUDA_ERROR_ILLEGAL_ADDRESS"))
    assert {status for status, _ in call.statuses} == {"called"}
    assert 0 < len(call.statuses) < 5
    assert call() == [("called", "")] * CYCLES
