"""Faults that the simulated controller makes on request."""

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from seqd_client.errors import SeqdError

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Seconds = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class FaultError(SeqdError):
    """The faults asked for cannot be read."""

    exit_code: ClassVar[int] = 2


class Faults(BaseModel):
    """What goes wrong at the controller, and how often. Only the fault ``resend_drop`` affects frames sent again."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    drop: Share = 0
    """Share of frames that are not sent."""
    duplicate: Share = 0
    """Share of frames sent twice."""
    reorder: Share = 0
    """Share of frames sent after the next frame."""
    delay: Share = 0
    """Share of frames sent late."""
    delay_images: Annotated[int, Field(ge=1, le=1000)] = 2
    """How late, in tile images."""
    corrupt: Share = 0
    """Share of frames sent with a flipped bit."""
    truncate: Share = 0
    """Share of frames whose pixels are cut short and whose header is unchanged."""
    clock: Share = 0
    """Share of frames whose time is wrong."""
    clock_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] = 3600
    """Largest error of the time, seconds forward or back."""
    resend_drop: Share = 0
    """Share of answers to a resend request that are not sent, so that the frame has to be asked for again."""
    ring: Annotated[int, Field(ge=0)] | None = None
    """Number of the newest frames kept to be sent again; by default all after the last cycle that the daemon
    has said it kept."""
    pause: Share = 0
    """Share of tile images before which the controller stops and answers nothing."""
    pause_s: Seconds = 1
    """Seconds that it stops for."""
    crash: Share = 0
    """Share of tile images in which the controller crashes; it loses its numbering, a hold and the frames it kept."""
    crash_s: Seconds = 1
    """Seconds until it starts again."""
    crash_skip: Share = 0
    """Share of crashes after which it continues with the next tile image; after other crashes it repeats this one."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed gives the same faults; a fault does not depend on which other faults are asked for."""


FAULTS_HELP = "Faults as NAME=VALUE,..., as in drop=0.05,seed=3.\n\n" + "\n\n".join(
    f"{name}: {field.description}" for name, field in Faults.model_fields.items()
)
"""The meaning of each, for ``--help``."""


def parse_faults(text: str) -> Faults:
    """``drop=0.05,corrupt=0.01,seed=3`` as :class:`Faults`.

    Raises
    ------
    FaultError : names the fault and what is allowed.
    """
    settings: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        name, separator, value = (piece.strip() for piece in part.partition("="))
        if not separator:
            raise FaultError(f"fault {part!r}: write NAME=VALUE, as in drop=0.05")
        if name in settings:
            raise FaultError(f"fault {name}: given twice, as {settings[name]} and as {value}")
        settings[name] = value
    try:
        return Faults.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        fault = first["loc"][0]
        if first["type"] == "extra_forbidden":
            raise FaultError(
                f"fault {fault!r}: no such fault; the faults are {', '.join(Faults.model_fields)}"
            ) from error
        raise FaultError(f"fault {fault} = {first['input']!r}: {first['msg']}") from error
