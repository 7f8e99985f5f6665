import time
import zlib

import msgpack
import numpy as np
import pytest
import zmq
from seqd_client.runinfo import Read, RunInfo, TileId
from seqd_client.status import RunState
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import CycleEnd, RunEnd, RunStart

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedtile import simulate_tile
from tests.support.processes import bench, finish

HEIGHT, WIDTH, CYCLES = 64, 80, 3
INFO = RunInfo(
    run="R1",
    flowcell="F",
    instrument="I",
    reads=(Read(number=1, cycles=CYCLES),),
    tiles=(TileId(lane=1, tile=1101),),
    height=HEIGHT,
    width=WIDTH,
)


class RawController:
    """Just sockets, so that anything can be sent."""

    def __init__(self, here):
        self.context = zmq.Context()
        self.frames = self.context.socket(zmq.PUB)
        self.frames.bind(here.endpoint("frames"))
        self.recovery = self.context.socket(zmq.ROUTER)
        self.recovery.bind(here.endpoint("recovery"))
        self.seq = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.destroy(linger=0)

    def start(self):
        """Answer the first sync with the run."""
        assert self.recovery.poll(60_000)
        identity, *_ = self.recovery.recv_multipart()
        self.recovery.send_multipart([identity, *encode(RunStart(run="R1", seq=0, info=INFO))])

    def frame(self, pixels, *, spoil=None, **changed):
        self.seq += 1
        payload = pixels.tobytes()
        header = {
            "v": 1,
            "run": "R1",
            "seq": self.seq,
            "lane": 1,
            "tile": 1101,
            "cycle": 1,
            "channel": "A",
            "height": pixels.shape[0],
            "width": pixels.shape[1],
            "dtype": "uint16",
            "t_ns": 1,
            "crc32": zlib.crc32(payload),
        } | changed
        self.frames.send_multipart([b"frame", msgpack.packb(header), spoil or payload])


@pytest.fixture(scope="module")
def tile():
    conditions = Conditions(density_k_mm2=60, drift_px=0.2)
    return simulate_tile(conditions, shape=(HEIGHT, WIDTH), cycles=CYCLES, seed=3)


def test_bad_frames_are_counted_by_reason_and_the_run_continues(tile, tmp_path):
    here = bench(tmp_path, calling={"template_cycles": 2})
    blank = np.zeros((HEIGHT, WIDTH), np.uint16)
    with RawController(here) as controller, here.daemon() as daemon:
        controller.start()
        here.wait_for(lambda status: status.run == "R1")
        controller.frame(np.zeros((HEIGHT, WIDTH - 1), np.uint16))
        controller.frame(blank, spoil=b"short")
        controller.frame(blank.astype(np.float32), dtype="float32")
        controller.frame(blank, channel="X")
        controller.frame(blank, crc32=1)
        controller.frame(blank, run="OTHER")
        controller.frame(blank, tile=1999)
        controller.frame(blank, cycle=CYCLES + 1)
        controller.frame(blank, cycle=-1)
        controller.frame(blank, v=99)
        controller.frames.send_multipart([b"frame", b"\xc1garbage", b""])
        controller.frames.send(b"\x00\xff garbage")
        controller.frames.send_multipart([b"nonsense", msgpack.packb({"v": 1}), b""])
        for cycle in range(1, CYCLES + 1):
            for channel, image in zip("ACGT", tile.images(cycle), strict=True):
                controller.frame(image, cycle=cycle, channel=channel)
            controller.frames.send_multipart(encode(CycleEnd(run="R1", seq=controller.seq + 1, cycle=cycle)))
            controller.seq += 1
        controller.frames.send_multipart(encode(RunEnd(run="R1", seq=controller.seq + 1)))
        status = here.wait_for(lambda status: status.state == RunState.FINISHED)
        daemon.terminate()
        assert finish(daemon) == 0
    assert status.frames.refused == {
        "channel": 1,
        "checksum": 1,
        "dtype": 1,
        "foreign_run": 1,
        "garbage": 2,
        "header": 1,
        "size": 2,
        "topic": 1,
        "unknown_cycle": 1,
        "unknown_tile": 1,
        "version": 1,
    }
    assert status.frames.accepted == 4 * CYCLES
    assert status.tile_cycles.called == CYCLES
    log = (tmp_path / "daemon.log").read_text("utf-8")
    assert f"frame is {HEIGHT}×{WIDTH - 1}, the run declares {HEIGHT}×{WIDTH}" in log
    assert "frame of run OTHER" in log


def test_a_blank_cycle_fails_alone(tile, tmp_path):
    here = bench(tmp_path, calling={"template_cycles": 2})
    with RawController(here) as controller, here.daemon() as daemon:
        controller.start()
        here.wait_for(lambda status: status.run == "R1")
        for cycle in range(1, CYCLES + 1):
            images = tile.images(cycle) if cycle != 3 else np.full((4, HEIGHT, WIDTH), 120, np.uint16)
            for channel, image in zip("ACGT", images, strict=True):
                controller.frame(image, cycle=cycle, channel=channel)
        status = here.wait_for(lambda status: status.state == RunState.FINISHED)
        daemon.terminate()
        assert finish(daemon) == 0
    assert (status.tile_cycles.called, status.tile_cycles.failed) == (2, 1)


def test_a_controller_that_falls_silent_ends_the_run_with_an_error(tile, tmp_path):
    here = bench(tmp_path, controller={"silent_after_s": 3})
    with RawController(here) as controller, here.daemon() as daemon:
        controller.start()
        here.wait_for(lambda status: status.run == "R1")
        started = time.monotonic()
        assert finish(daemon) == 8
        assert time.monotonic() - started < 60
    assert "nothing came from the controller" in (tmp_path / "daemon.log").read_text().splitlines()[-1]
