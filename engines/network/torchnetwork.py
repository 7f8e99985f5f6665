"""The multitask network in PyTorch, built from an :class:`Architecture`."""

import torch
from seqd_client.runinfo import CHANNELS
from torch import Tensor, nn
from torch.nn import functional

from engines.network.architecture import BACKGROUND, Architecture


class DenseBlock(nn.Module):
    """Convolutions that each read the concatenation of all earlier outputs."""

    def __init__(self, inputs: int, layers: int, growth: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs + layer * growth, growth, 3, padding=1) for layer in range(layers)
        )

    def forward(self, features: Tensor) -> Tensor:
        outputs = [features]
        for convolution in self.convolutions:
            outputs.append(functional.relu(convolution(torch.cat(outputs, dim=1))))
        return torch.cat(outputs[1:], dim=1)


class Network(nn.Module):
    """One backbone, two branches: better images and base calls from one pass.

    Input is a tile image in normalised units, (N, 4, H, W). Outputs are the logits of every pixel
    being background or the centre of an A, C, G or T cluster, (N, 5, H, W), and the
    super-resolved images in the same units, (N, 4, 2H, 2W).
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        channels, width = len(CHANNELS), architecture.block_width
        self.stem = nn.Conv2d(channels, architecture.stem, 3, padding=1)
        self.blocks = nn.Sequential(
            *(
                DenseBlock(width if index else architecture.stem, architecture.layers, architecture.growth)
                for index in range(architecture.blocks)
            )
        )
        self.call_hidden = nn.Conv2d(width, architecture.hidden, 3, padding=1)
        self.call = nn.Conv2d(architecture.hidden, architecture.classes, 3, padding=1)
        self.upsample = nn.ConvTranspose2d(width, architecture.upsampled, 4, stride=2, padding=1)
        self.reconstruct = nn.Conv2d(architecture.upsampled, channels, 3, padding=1)
        self._initialise()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        features = self.blocks(functional.relu(self.stem(images)))
        logits = self.call(functional.relu(self.call_hidden(features)))
        images = self.reconstruct(functional.relu(self.upsample(features)))
        return logits, images

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                assert module.bias is not None
                nn.init.zeros_(module.bias)
        # Nearly every pixel is background. With this bias the untrained network already answers "background", which
        # saves the first hundreds of training steps.
        nn.init.normal_(self.call.weight, std=1e-3)
        assert self.call.bias is not None
        with torch.no_grad():
            self.call.bias[BACKGROUND] = 5.0
        nn.init.normal_(self.reconstruct.weight, std=1e-2)
