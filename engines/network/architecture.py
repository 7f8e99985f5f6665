"""The architecture of the network: its widths and depths, as data."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from seqd_client.runinfo import CHANNELS

BACKGROUND = 0
"""Class index of "no cluster centre here"; A, C, G, T are 1, 2, 3, 4."""

_Width = Annotated[int, Field(ge=1, le=512)]
_Depth = Annotated[int, Field(ge=1, le=32)]


class Architecture(BaseModel):
    """Backbone of dense blocks with a super-resolution and a base-call branch."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stem: _Width = 64
    """Channels of the first convolution."""
    blocks: _Depth = 6
    """Dense blocks in sequence."""
    layers: _Depth = 6
    """Convolutions of a block, each reading all earlier outputs of its block."""
    growth: _Width = 16
    """Channels each convolution of a block adds."""
    hidden: _Width = 64
    """Channels between the two convolutions of the base-call branch."""
    upsampled: _Width = 64
    """Channels between deconvolution and reconstruction in the super-resolution branch."""

    @property
    def block_width(self) -> int:
        """Output channels of a dense block."""
        return self.layers * self.growth

    @property
    def classes(self) -> int:
        """Background and one class a channel."""
        return 1 + len(CHANNELS)

    @property
    def halo(self) -> int:
        """Pixels to each side that an output pixel depends on, the larger of the two branches."""
        return 1 + self.blocks * self.layers + 2


def flops(architecture: Architecture, *, superresolved: bool) -> int:
    """Floating-point operations for one pixel of a tile; a multiplication and an addition are two.

    Only convolutions are counted, which do nearly all of the work; biases, ReLU and softmax are left out.
    """
    channels, width = len(CHANNELS), architecture.block_width
    sums = channels * architecture.stem
    for block in range(architecture.blocks):
        inputs = width if block else architecture.stem
        sums += sum(
            (inputs + layer * architecture.growth) * architecture.growth for layer in range(architecture.layers)
        )
    sums += width * architecture.hidden + architecture.hidden * architecture.classes
    products = 9 * sums
    if superresolved:
        # A deconvolution has 4 × 4 products for every pixel of its input, which has the tile's size. The reconstruction
        # computes images with four times as many pixels as the tile.
        products += 16 * width * architecture.upsampled + 4 * 9 * architecture.upsampled * channels
    return 2 * products
