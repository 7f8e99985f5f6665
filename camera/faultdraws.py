"""Chooses at random the frames and tile images that have a fault, and makes the faults.

Only the seed decides the choice; sockets and time have no influence.
"""

from dataclasses import dataclass

import numpy as np
from seqd_client.publisher import Parts
from seqd_client.runinfo import CHANNELS

from camera.faults import Faults


@dataclass(frozen=True)
class Crash:
    """The controller crashes while it publishes the frames of a tile image."""

    after: int
    """Frames of this tile image that were published before, 0 to 4."""
    skip: bool
    """Whether the controller then continues with the next tile image."""


class FaultDraws:
    """Draws the faults of a run.

    Frames and tile images are numbered from 0 in the order in which they are imaged. A draw depends on the seed, the
    fault and the number alone, so neither timing nor other faults change it.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._held_back: list[tuple[int, Parts]] = []

    def clock_error_ns(self, frame: int) -> int:
        """Nanoseconds by which the clock is fast when a frame is exposed."""
        draw = self._draw("clock", frame)
        return 0 if draw is None else int(draw.uniform(-1e9, 1e9) * self._faults.clock_s)

    def sent(self, frame: int, parts: Parts | None) -> list[Parts]:
        """The messages to send when a frame is published: the frame itself, and frames held back until now.

        Parameters
        ----------
        parts : the encoded frame; None when the archive lacks it.
        """
        messages: list[Parts] = []
        if parts is not None and self._draw("drop", frame) is None:
            parts = [*parts[:2], self._payload(frame, parts[2])]
            messages = [parts] if self._draw("duplicate", frame) is None else [parts, parts]
        due_after = frame
        if self._draw("delay", frame) is not None:
            due_after += len(CHANNELS) * self._faults.delay_images
        elif self._draw("reorder", frame) is not None:
            due_after += 1
        overdue = [message for due, message in self._held_back if due <= frame]
        self._held_back = [held for held in self._held_back if held[0] > frame]
        if due_after > frame:
            self._held_back += [(due_after, message) for message in messages]
            return overdue
        return messages + overdue

    def take_held_back(self) -> list[Parts]:
        """The messages that are still held back: they are sent after the run's end, and lost in a crash."""
        held, self._held_back = self._held_back, []
        return [message for _, message in held]

    def resend_lost(self, frame: int, before: int) -> bool:
        """Whether the answer to a request for a frame is lost; ``before`` counts earlier requests for it."""
        return self._draw("resend_drop", frame, before) is not None

    def pauses(self, image: int) -> bool:
        """Whether the controller stops before a tile image and answers nothing."""
        return self._draw("pause", image) is not None

    def crash(self, image: int) -> Crash | None:
        """The crash in a tile image; None when there is none."""
        draw = self._draw("crash", image)
        if draw is None:
            return None
        return Crash(after=int(draw.integers(len(CHANNELS) + 1)), skip=bool(draw.random() < self._faults.crash_skip))

    def _payload(self, frame: int, payload: bytes) -> bytes:
        if (draw := self._draw("corrupt", frame)) is not None:
            flipped = bytearray(payload)
            flipped[draw.integers(len(flipped))] ^= 1 << int(draw.integers(8))
            payload = bytes(flipped)
        if (draw := self._draw("truncate", frame)) is not None:
            payload = payload[: draw.integers(len(payload))]
        return payload

    def _draw(self, fault: str, *numbers: int) -> np.random.Generator | None:
        """A generator for the details of a fault where a frame or tile image has it; None where it has not."""
        share: float = getattr(self._faults, fault)
        if share == 0:
            return None
        draw = np.random.default_rng([self._faults.seed, *numbers, *fault.encode()])
        return draw if draw.random() < share else None
