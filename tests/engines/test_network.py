import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from engines.network.architecture import Architecture, flops
from engines.network.torchnetwork import Network


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose more by waiting for a second thread than they gain by it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_default_network_has_the_parameters_and_halo_of_the_method():
    architecture = Architecture()
    assert sum(weight.numel() for weight in Network(architecture).parameters()) == 839_241
    assert (architecture.block_width, architecture.classes, architecture.halo) == (96, 5, 39)


@pytest.mark.parametrize(("height", "width"), [(16, 24), (17, 31)])
def test_outputs_are_calls_at_the_size_of_the_input_and_images_at_twice_it(tiny, height, width):
    logits, images = Network(tiny)(torch.zeros(2, 4, height, width))
    assert logits.shape == (2, 5, height, width)
    assert images.shape == (2, 4, 2 * height, 2 * width)


@pytest.mark.parametrize(("blocks", "layers"), [(1, 2), (2, 1), (2, 3)])
def test_output_depends_on_the_halo_and_no_more(blocks, layers):
    architecture = Architecture(stem=8, blocks=blocks, layers=layers, growth=4, hidden=8, upsampled=8)
    network = Network(architecture).double()
    for weight in network.parameters():
        # Positive weights hide nothing behind a ReLU, so all that can change does.
        torch.nn.init.uniform_(weight, 0.1, 0.5)
    size, halo = 41, architecture.halo
    image = torch.zeros(1, 4, size, size, dtype=torch.float64)
    perturbed = image.clone()
    perturbed[..., size // 2, size // 2] = 1
    with torch.no_grad():
        before, after = network(image), network(perturbed)
    changed = (after[0] != before[0]).any(dim=1)[0].nonzero() - size // 2
    assert (changed.min(), changed.max()) == (-halo, halo)
    fine = (after[1] != before[1]).any(dim=1)[0].nonzero()
    assert (fine // 2 - size // 2).abs().max() <= halo


def test_network_starts_with_background_everywhere(tiny):
    torch.manual_seed(1)
    logits, _ = Network(tiny)(torch.rand(1, 4, 16, 16))
    assert (torch.softmax(logits, dim=1)[:, 0] > 0.9).all()


@pytest.mark.parametrize("architecture", [Architecture(), Architecture(stem=5, blocks=2, layers=3, growth=7, hidden=4)])
def test_operations_are_those_that_pytorch_counts(architecture):
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        Network(architecture)(torch.zeros(1, 4, 8, 12))
    assert counted.get_total_flops() == 8 * 12 * flops(architecture, superresolved=True)
