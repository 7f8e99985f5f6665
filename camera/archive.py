"""The archived run that the simulated controller images."""

import zlib
from pathlib import Path

from pydantic import ValidationError
from seqd_client.runinfo import CHANNELS, RunInfo, TileId
from seqd_client.wire.codec import encode
from seqd_client.wire.messages import Frame

from calib.runfolder.images import RunFolderError, image_path, read_image


class Archive:
    """Frames by number: from 0, cycle by cycle, tile by tile, channel by channel."""

    def __init__(self, root: Path, info: RunInfo) -> None:
        self._root, self._info = root, info
        self._tiles = {tile: place for place, tile in enumerate(info.tiles)}

    def first_of_cycle(self, cycle: int) -> int:
        """Number of the first frame of a 1-based cycle."""
        return (cycle - 1) * len(self._tiles) * len(CHANNELS)

    def number(self, tile: TileId, cycle: int, channel: str) -> int | None:
        """Number of a frame; None when it is not of the run."""
        if tile not in self._tiles or cycle > self._info.cycles:
            return None
        return self.first_of_cycle(cycle) + self._tiles[tile] * len(CHANNELS) + CHANNELS.index(channel)

    def frame(self, number: int, *, seq: int, t_ns: int) -> list[bytes] | None:
        """An encoded frame; None when the archive lacks it.

        Raises
        ------
        RunFolderError : the image is not a frame, or no frame can be so large or small.
        """
        image_number, channel = divmod(number, len(CHANNELS))
        cycle, place = divmod(image_number, len(self._tiles))
        tile = self._info.tiles[place]
        path = image_path(self._root, tile, cycle + 1, CHANNELS[channel])
        if not path.exists():
            return None
        image = read_image(path)
        payload = image.astype("<u2").tobytes()
        try:
            header = Frame(
                run=self._info.run,
                seq=seq,
                lane=tile.lane,
                tile=tile.tile,
                cycle=cycle + 1,
                channel=CHANNELS[channel],
                height=image.shape[0],
                width=image.shape[1],
                t_ns=t_ns,
                crc32=zlib.crc32(payload),
            )
        except ValidationError as error:
            raise RunFolderError(
                f"image {path}: {image.shape[0]}×{image.shape[1]} px, a side has 8 to 16384"
            ) from error
        return [bytes(part) for part in encode(header, payload)]
