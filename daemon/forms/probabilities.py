"""The probability form: the network's maps as they are."""

from daemon.forms.image import CalledImage
from daemon.forms.tiff import encode_tiff
from engines.architecture import BACKGROUND


def probabilities(image: CalledImage, channel: int | None) -> bytes:
    """TIFF of the probability that each pixel is the centre of a cluster of one base, (H, W) float32.

    For None, five pages: background, A, C, G, T, which sum to 1. A base's map lies as the frame of its channel does.
    """
    assert image.maps is not None
    assert image.maps.probabilities is not None
    maps = image.maps.probabilities
    return encode_tiff(maps if channel is None else maps[BACKGROUND + 1 + channel])
