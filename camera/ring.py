"""The frames that the controller holds to send again."""

from collections import OrderedDict


class Ring:
    """The newest frames by number, with the time of their exposure; the archive stands in for the pixels.

    Parameters
    ----------
    size : frames held; None for as many as there are.
    """

    def __init__(self, size: int | None) -> None:
        self._size = size
        self._exposed_ns: OrderedDict[int, int] = OrderedDict()

    def hold(self, frame: int, t_ns: int) -> None:
        """Take in a frame, of a higher number than those held; the oldest makes room."""
        self._exposed_ns[frame] = t_ns
        if self._size is not None and len(self._exposed_ns) > self._size:
            self._exposed_ns.popitem(last=False)

    def exposed_ns(self, frame: int) -> int | None:
        """Time of exposure, nanoseconds since 1970; None when the frame is not held."""
        return self._exposed_ns.get(frame)

    def release(self, before: int) -> None:
        """Hold nothing of frames with lower numbers."""
        while self._exposed_ns and next(iter(self._exposed_ns)) < before:
            self._exposed_ns.popitem(last=False)

    def clear(self) -> None:
        """Hold nothing."""
        self._exposed_ns.clear()
