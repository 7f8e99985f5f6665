"""The coordinate form: called clusters as CSV."""

from daemon.forms.image import CalledImage
from engines.architecture import CHANNELS

HEADER = "y,x,base,quality\n"


def coordinates(image: CalledImage, channel: int | None) -> bytes:
    """CSV of :meth:`CalledImage.clusters`, in the order of the tile's ``.locs``; positions in pixels of the frame."""
    clusters = image.clusters(channel)
    rows = zip(clusters.positions.tolist(), clusters.bases.tolist(), clusters.qualities.tolist(), strict=True)
    return (HEADER + "".join(f"{y:.3f},{x:.3f},{CHANNELS[base]},{phred}\n" for (y, x), base, phred in rows)).encode()
