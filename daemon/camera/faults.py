"""Faults that the simulated controller makes on request."""

from typing import Annotated, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engines.errors import SeqdError

Share = Annotated[float, Field(ge=0, le=1)]


class FaultError(SeqdError):
    """The faults asked for cannot be read."""

    exit_code: ClassVar[int] = 2


class Faults(BaseModel):
    """Share of published frames that a fault befalls; frames sent again are not touched."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    drop: Share = 0
    """Not sent."""
    duplicate: Share = 0
    """Sent twice."""
    reorder: Share = 0
    """Sent after the next one."""
    corrupt: Share = 0
    """Sent with a flipped bit."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Same seed, same faults."""

    def applied(self, rng: np.random.Generator, frames: list[list[bytes]]) -> list[list[bytes]]:
        """The messages that are sent in place of ``frames``."""
        sent: list[list[bytes]] = []
        delayed: list[list[bytes]] = []
        for parts in frames:
            fault = rng.random(4) < (self.drop, self.duplicate, self.reorder, self.corrupt)
            if fault[0]:
                continue
            if fault[3]:
                payload = bytearray(parts[2])
                payload[rng.integers(len(payload))] ^= 1 << int(rng.integers(8))
                parts = [parts[0], parts[1], bytes(payload)]
            if fault[2]:
                delayed.append(parts)
                continue
            sent += [parts, parts] if fault[1] else [parts]
            sent += delayed
            delayed = []
        return sent + delayed


def parse_faults(text: str) -> Faults:
    """``drop=0.05,corrupt=0.01,seed=3`` as :class:`Faults`.

    Raises
    ------
    FaultError : names the fault and what is allowed.
    """
    settings = {}
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition("=")
        if not separator:
            raise FaultError(f"fault {part!r}: write NAME=SHARE, as in drop=0.05")
        settings[name.strip()] = value.strip()
    try:
        return Faults.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        raise FaultError(
            f"fault {first['loc'][0]} = {first['input']!r}: {first['msg']}; known are {', '.join(Faults.model_fields)}"
        ) from error
