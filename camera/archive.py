"""The archived run that the simulated controller publishes."""

from pathlib import Path

from pydantic import ValidationError
from seqd_client.publisher import FrameKey, Parts, encoded, frame_message
from seqd_client.runinfo import CHANNELS, RunInfo

from calib.runfolder.images import RunFolderError, image_path, read_image


class Archive:
    """Frames by number: from 0, cycle by cycle, tile by tile, channel by channel."""

    def __init__(self, root: Path, info: RunInfo) -> None:
        self._root, self._info = root, info

    def key(self, number: int) -> FrameKey:
        """Tile, cycle and channel of a frame."""
        image, channel = divmod(number, len(CHANNELS))
        cycle, tile = divmod(image, len(self._info.tiles))
        return FrameKey(self._info.tiles[tile], cycle + 1, CHANNELS[channel])

    def frame(self, number: int, *, seq: int, t_ns: int) -> Parts | None:
        """Read a frame and encode it; None when the archive lacks it.

        Raises
        ------
        RunFolderError : the image is not a frame, or its size is not that of any frame.
        """
        key = self.key(number)
        path = image_path(self._root, *key)
        if not path.exists():
            return None
        image = read_image(path)
        try:
            return encoded(*frame_message(self._info.run, key, image, seq=seq, t_ns=t_ns))
        except ValidationError as error:
            size = f"{image.shape[0]}×{image.shape[1]} px"
            raise RunFolderError(f"image {path}: {size}; a side of a frame has 8 to 16384 px") from error
