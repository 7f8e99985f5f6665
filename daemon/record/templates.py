"""Keeping a tile's template: a sealed ``npz`` archive."""

import io
from pathlib import Path

import numpy as np

from calib.jointfit.scene import Scene
from calib.normalisation import Normalisation
from calib.registration import draw_reference
from calib.template.tiletemplate import TileTemplate
from daemon.record.durable import read_sealed, write_sealed

SCENE = ("positions", "brightness", "channel_shift_px", "sigma_px", "noise", "crosstalk")
"""Fields of :class:`calib.jointfit.scene.Scene`, stored under their names with the prefix ``scene_``."""


def save_template(path: Path, template: TileTemplate) -> None:
    """Write a template durably, without its reference image, which :func:`load_template` draws again.

    Raises
    ------
    OSError : the file cannot be written; the call may be repeated.
    """
    fields = {
        "positions": template.positions,
        "offset": template.normalisation.offset,
        "gain": template.normalisation.gain,
        "channel_shift_px": template.channel_shift_px,
    }
    if template.scene is not None and template.called is not None:
        fields |= {"called": template.called} | {f"scene_{name}": getattr(template.scene, name) for name in SCENE}
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **fields)
    write_sealed(path, buffer.getbuffer())


def load_template(path: Path, shape: tuple[int, int]) -> TileTemplate:
    """Read a template written by :func:`save_template`.

    Parameters
    ----------
    shape : height and width of the tile, pixels.

    Raises
    ------
    OutputError : the file is missing or damaged.
    """
    with np.load(io.BytesIO(read_sealed(path))) as fields:
        scene = Scene(**{name: fields[f"scene_{name}"] for name in SCENE}) if "called" in fields else None
        drawn = fields["positions"] if scene is None else scene.positions.astype(np.float32)
        return TileTemplate(
            positions=fields["positions"],
            normalisation=Normalisation(fields["offset"], fields["gain"]),
            channel_shift_px=fields["channel_shift_px"],
            reference=draw_reference(drawn, shape),
            scene=scene,
            called=fields["called"] if scene is not None else None,
        )
