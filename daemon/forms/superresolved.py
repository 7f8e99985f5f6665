"""The super-resolved form: the network's images at twice the resolution."""

import numpy as np

from daemon.forms.image import CalledImage
from daemon.forms.tiff import encode_tiff


def superresolved(image: CalledImage, channel: int | None) -> bytes:
    """TIFF of one channel's light at twice the resolution, (2H, 2W) float32, camera counts above background.

    Counts, unlike the network's normalised units, keep the brightness ratios between the channels.
    For None, the channels are laid over each other and summed.
    """
    assert image.maps is not None
    assert image.maps.superresolved is not None
    fine, gain = image.maps.superresolved, image.template.normalisation.gain
    if channel is None:
        return encode_tiff(np.sum(image.laid_over(fine / gain[:, None, None]), axis=0))
    return encode_tiff(fine[channel] / gain[channel])
