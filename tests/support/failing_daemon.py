"""``seqd`` on a real engine that fails as the environment variable ``FAULTS`` says, in JSON.

Tiles count from 1 through the life of the process, golden ones left out: they never fail.
"""

import json
import os
import threading
import zlib
from itertools import count

from calib.template.tiletemplate import TileTemplate
from daemon.cli.app import main
from engines.backends import openvino
from engines.errors import EngineError, EngineLostError

PLAN = {
    "tiles": {},  # fault by number of the tile
    "from": None,  # number of the first tile that fails, as all after it do
    "image": None,  # CRC-32 of the image that fails
    "closed": [],  # numbers of the openings that fail
    "memory": [],  # numbers of the tile-cycles that no memory is left for
    "precision": None,  # of the engine that fails; None is any
} | json.loads(os.environ.get("FAULTS", "{}"))
OPENINGS, TILES, REGISTERED = count(1), count(1), count(1)


class FailingRunner(openvino.OpenVinoRunner):
    def __init__(self, bundle, *, shape, options):
        self._sound = PLAN["precision"] not in (None, options.precision)
        if not self._sound and next(OPENINGS) in PLAN["closed"]:
            raise EngineError("device: it does not open")
        super().__init__(bundle, shape=shape, options=options)
        self._golden = True
        self._faults = {}

    def start(self, buffers, request):
        if not self._sound and not self._golden:
            self._faults[id(buffers)] = fault_of(next(TILES), buffers.pixels)
        self._golden = False
        super().start(buffers, request)

    def wait(self, buffers):
        super().wait(buffers)
        match self._faults.pop(id(buffers), None):
            case "error":
                raise EngineError("device: bad tile")
            case "lost":
                raise EngineLostError("device: gone")
            case "hang":
                threading.Event().wait()


def fault_of(number, pixels):
    if PLAN["from"] is not None and number >= PLAN["from"]:
        return "error"
    if PLAN["image"] == zlib.crc32(pixels.tobytes()):
        return "error"
    return PLAN["tiles"].get(str(number))


def drift(template, images, found=TileTemplate.drift):
    if next(REGISTERED) in PLAN["memory"]:
        raise MemoryError
    return found(template, images)


openvino.OpenVinoRunner = FailingRunner
TileTemplate.drift = drift

if __name__ == "__main__":
    main()
