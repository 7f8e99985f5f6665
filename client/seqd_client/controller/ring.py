"""The frames that a controller holds to send them again."""

from collections import OrderedDict

from seqd_client.wire.messages import Frame, Resend

Key = tuple[int, int, int, str]
"""Lane, tile, cycle and channel of a frame."""


class Ring:
    """The newest frames, up to a bound of bytes.

    Parameters
    ----------
    size : bytes of pixels that are held at most.
    """

    def __init__(self, size: int) -> None:
        self._size, self._bytes = size, 0
        self._frames: OrderedDict[Key, tuple[Frame, bytes]] = OrderedDict()

    def hold(self, frame: Frame, pixels: bytes) -> None:
        """Hold a frame; the oldest frames make room for it."""
        key = _key(frame)
        self._drop(key)
        self._frames[key] = frame, pixels
        self._bytes += len(pixels)
        while self._bytes > self._size:
            self._drop(next(iter(self._frames)))

    def find(self, request: Resend) -> tuple[Frame, bytes] | None:
        """The frame that is asked for, None when it is not held."""
        return self._frames.get(_key(request))

    def release(self, cycle: int) -> None:
        """Drop the frames of all cycles up to this one."""
        for key in [key for key in self._frames if key[2] <= cycle]:
            self._drop(key)

    def _drop(self, key: Key) -> None:
        held = self._frames.pop(key, None)
        if held is not None:
            self._bytes -= len(held[1])


def _key(message: Frame | Resend) -> Key:
    return message.lane, message.tile, message.cycle, message.channel
