import pytest
import torch

from engines.network.architecture import Architecture
from engines.network.deployed import InferenceNetwork
from engines.network.torchnetwork import Network

ARCHITECTURES = [
    Architecture(),
    Architecture(stem=5, blocks=2, layers=3, growth=7, hidden=4, upsampled=6),
    Architecture(stem=8, blocks=1, layers=1, growth=4, hidden=8, upsampled=8),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=["default", "odd", "one layer"])
def test_fewer_and_wider_convolutions_give_the_networks_numbers(architecture):
    torch.manual_seed(3)
    network = Network(architecture)
    torch.nn.init.normal_(network.call.weight, std=0.3)
    images = torch.rand(2, 4, 33, 47)
    fast = InferenceNetwork(network, dtype=torch.float32, device=torch.device("cpu"))
    with torch.inference_mode():
        expected, found = network(images), fast(images, superresolve=True)
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5 * float(theirs.abs().max()), rtol=0)


def test_super_resolution_is_left_out_and_the_network_left_alone():
    network = Network(ARCHITECTURES[1])
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    fast = InferenceNetwork(network, dtype=torch.bfloat16, device=torch.device("cpu"))
    with torch.inference_mode():
        logits, superresolved = fast(torch.rand(1, 4, 9, 8).bfloat16(), superresolve=False)
    assert logits.shape == (1, 5, 9, 8)
    assert superresolved is None
    for name, weight in network.state_dict().items():
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, before[name], atol=0, rtol=0)
