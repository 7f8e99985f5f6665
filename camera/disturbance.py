"""Which frames and tile images faults befall, and what becomes of them.

No sockets and no time: only the seed decides.
"""

from dataclasses import dataclass

import numpy as np
from seqd_client.runinfo import CHANNELS

from camera.faults import Faults

Parts = list[bytes]
"""A message as it is sent: topic, header, payload."""


@dataclass(frozen=True)
class Crash:
    """The controller dies within a tile image."""

    after: int
    """Frames of it that were published, 0 to 4."""
    skip: bool
    """Whether it then goes on with the next tile image."""


class Disturbance:
    """Draws the faults of a run.

    Frames and tile images go by their numbers, from 0 in the order in which they are imaged. A draw depends on the
    seed, the fault and the number alone: not on what was drawn before, and so neither on timing nor on other faults.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._held_back: list[tuple[int, Parts]] = []

    def clock_error_ns(self, frame: int) -> int:
        """Nanoseconds that the clock is ahead when a frame is exposed."""
        draw = self._befallen("clock", frame)
        return 0 if draw is None else int(draw.uniform(-1e9, 1e9) * self._faults.clock_s)

    def sent(self, frame: int, parts: Parts | None) -> list[Parts]:
        """The messages that are sent when a frame is due to be, itself and such as were held back before.

        Parameters
        ----------
        parts : the frame; None when the archive lacks it.
        """
        messages: list[Parts] = []
        if parts is not None and self._befallen("drop", frame) is None:
            parts = [*parts[:2], self._payload(frame, parts[2])]
            messages = [parts] if self._befallen("duplicate", frame) is None else [parts, parts]
        due_after = frame
        if self._befallen("delay", frame) is not None:
            due_after += len(CHANNELS) * self._faults.delay_images
        elif self._befallen("reorder", frame) is not None:
            due_after += 1
        overdue = [message for due, message in self._held_back if due <= frame]
        self._held_back = [held for held in self._held_back if held[0] > frame]
        if due_after > frame:
            self._held_back += [(due_after, message) for message in messages]
            return overdue
        return messages + overdue

    def flushed(self) -> list[Parts]:
        """What is still held back, after the last frame or to be lost in a crash."""
        held, self._held_back = self._held_back, []
        return [message for _, message in held]

    def resend_lost(self, frame: int, before: int) -> bool:
        """Whether the answer to a request for a frame is lost; ``before`` counts earlier requests for it."""
        return self._befallen("resend_drop", frame, before) is not None

    def pauses(self, image: int) -> bool:
        """Whether the controller stands still before a tile image."""
        return self._befallen("pause", image) is not None

    def crash(self, image: int) -> Crash | None:
        """Where in a tile image the controller dies, None when it lives."""
        draw = self._befallen("crash", image)
        if draw is None:
            return None
        return Crash(after=int(draw.integers(len(CHANNELS) + 1)), skip=bool(draw.random() < self._faults.crash_skip))

    def _payload(self, frame: int, payload: bytes) -> bytes:
        if (draw := self._befallen("corrupt", frame)) is not None:
            flipped = bytearray(payload)
            flipped[draw.integers(len(flipped))] ^= 1 << int(draw.integers(8))
            payload = bytes(flipped)
        if (draw := self._befallen("truncate", frame)) is not None:
            payload = payload[: draw.integers(len(payload))]
        return payload

    def _befallen(self, fault: str, *numbers: int) -> np.random.Generator | None:
        """Further draws for a frame or tile image that a fault befalls; None when it does not."""
        share: float = getattr(self._faults, fault)
        if share == 0:
            return None
        draw = np.random.default_rng([self._faults.seed, *numbers, *fault.encode()])
        return draw if draw.random() < share else None
