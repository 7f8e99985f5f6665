"""The archived run that the simulated controller replays, and which of its frames the controller holds."""

from collections import OrderedDict
from pathlib import Path

from seqd_client.controller.session import Parts, encoded, frame_of
from seqd_client.errors import PublishError
from seqd_client.runinfo import CHANNELS, RunInfo, TileId

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

    def frame(self, number: int, *, seq: int, t_ns: int) -> Parts | None:
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
        try:
            frame, pixels = frame_of(self._info.run, tile, cycle + 1, CHANNELS[channel], read_image(path), t_ns=t_ns)
        except PublishError as error:
            raise RunFolderError(f"image {path}: {error}") from error
        return encoded(frame.model_copy(update={"seq": seq}), pixels)


class HeldFrames:
    """The newest frames by number, with the time of their exposure; their pixels are in the archive.

    Parameters
    ----------
    size : frames held; None for as many as there are.
    """

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._exposed_ns: OrderedDict[int, int] = OrderedDict()

    def hold(self, frame: int, t_ns: int) -> None:
        """Hold a frame of a higher number than those that are held; the oldest makes room."""
        self._exposed_ns[frame] = t_ns
        if self._size is not None and len(self._exposed_ns) > self._size:
            self._exposed_ns.popitem(last=False)

    def exposed_ns(self, frame: int) -> int | None:
        """Time of exposure, nanoseconds since 1970; None when the frame is not held."""
        return self._exposed_ns.get(frame)

    def release(self, before: int) -> None:
        """Drop the frames with lower numbers."""
        while self._exposed_ns and next(iter(self._exposed_ns)) < before:
            self._exposed_ns.popitem(last=False)

    def clear(self) -> None:
        """Drop all frames."""
        self._exposed_ns.clear()
