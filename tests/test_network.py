import numpy as np
import pytest
import torch

from calib.learning.simulation.optics import spots
from calib.learning.training.loss import LossWeights, joint_loss
from calib.learning.training.samples import simulated_patch, simulated_sample
from calib.learning.training.settings import SettingsError, TrainingSettings
from calib.learning.training.train import Training
from engines.architecture import Architecture
from engines.network import Network


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


def patch_and_sample(seed, size=48):
    """A sample and the truth it was made of."""
    return simulated_patch(rng=np.random.default_rng(seed), size=size), simulated_sample(seed=seed, size=size)


@pytest.mark.parametrize("seed", range(6))
def test_classes_mark_each_centre_where_the_channel_of_its_base_shows_it(seed):
    patch, sample = patch_and_sample([seed])
    tile, cycle = patch.tile, patch.cycle
    np.testing.assert_array_equal(sample.images, patch.normalised)
    brightest, expected = np.zeros(tile.shape), np.zeros(tile.shape, np.int64)
    for index, base in enumerate(tile.reads[:, cycle - 1]):
        y, x = np.rint(tile.channel_positions(cycle, base)[index]).astype(int)
        if 0 <= y < 48 and 0 <= x < 48 and tile.brightness[index] > brightest[y, x]:
            brightest[y, x], expected[y, x] = tile.brightness[index], base + 1
    assert (expected > 0).any()
    np.testing.assert_array_equal(sample.classes, expected)


@pytest.mark.parametrize("seed", range(3))
def test_superresolved_is_the_same_light_in_spots_of_half_the_width(seed):
    patch, sample = patch_and_sample([seed])
    tile, cycle = patch.tile, patch.cycle
    light = tile.cluster_light(cycle) * patch.units_per_photon[:, None]
    for channel, fine in enumerate(sample.superresolved):
        binned = fine.reshape(48, 2, 48, 2).sum(axis=(1, 3))
        sharp = spots(
            positions_px=tile.channel_positions(cycle, channel),
            photons=light[channel],
            sigma_px=tile.conditions.sigma_px[channel] / 2,
            shape=tile.shape,
        )
        np.testing.assert_allclose(binned, sharp, atol=3e-3 * sharp.max())


def test_the_same_seed_gives_the_same_sample():
    one, again, other = (simulated_sample(seed=seed, size=32) for seed in ([1, 2, 3], [1, 2, 3], [1, 2, 4]))
    for name in ("images", "classes", "superresolved"):
        np.testing.assert_array_equal(getattr(one, name), getattr(again, name))
    assert (one.images != other.images).any()


def labels(size=32):
    rng = torch.Generator().manual_seed(1)
    classes = torch.zeros(2, size, size, dtype=torch.int64)
    classes[:, 4::8, 4::8] = torch.randint(1, 5, classes[:, 4::8, 4::8].shape, generator=rng)
    return classes, torch.rand(2, 4, 2 * size, 2 * size, generator=rng)


def test_loss_of_a_perfect_prediction_is_nearly_nothing():
    classes, superresolved = labels()
    logits = 30 * torch.nn.functional.one_hot(classes, 5).movedim(-1, 1).float()
    loss, terms = joint_loss(logits, superresolved.clone(), classes, superresolved, LossWeights())
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert terms == pytest.approx({"mse": 0, "ssim": 1, "calls": 0}, abs=1e-5)


def test_weights_scale_the_terms_of_the_loss():
    classes, superresolved = labels()
    images, logits = superresolved + 0.3, torch.zeros(2, 5, 32, 32)
    loss, terms = joint_loss(logits, images, classes, superresolved, LossWeights(mse=2, ssim=3, calls=5))
    assert loss.item() == pytest.approx(2 * terms["mse"] + 3 * (1 - terms["ssim"]) + 5 * terms["calls"], rel=1e-5)
    assert terms["mse"] == pytest.approx(0.09, rel=1e-4)
    assert terms["calls"] == pytest.approx(np.log(5) * 32 * 32 / 16, rel=1e-5)
    nothing, _ = joint_loss(logits, images, classes, superresolved, LossWeights(mse=0, ssim=0, calls=0))
    assert nothing.item() == 0


def test_loss_reaches_the_backbone_from_both_branches(tiny):
    classes, superresolved = labels()
    for weights in (LossWeights(mse=1, ssim=0, calls=0), LossWeights(mse=0, ssim=0, calls=1)):
        torch.manual_seed(1)
        network = Network(tiny)
        logits, images = network(torch.rand(2, 4, 32, 32))
        joint_loss(logits, images, classes, superresolved, weights)[0].backward()
        assert network.stem.weight.grad.abs().sum() > 0


def test_loss_without_clusters_is_finite():
    superresolved = torch.zeros(1, 4, 32, 32)
    classes = torch.zeros(1, 16, 16, dtype=torch.int64)
    loss, _ = joint_loss(torch.zeros(1, 5, 16, 16), superresolved, classes, superresolved, LossWeights())
    assert torch.isfinite(loss)


def test_learning_rate_rises_stays_and_falls_to_zero():
    settings = TrainingSettings(steps=1000, learning_rate=1.0, warmup_steps=10, decay_share=0.4)
    rates = [settings.learning_rate_at(step) for step in range(1000)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert set(rates[10:601]) == {1.0}
    assert rates[600:] == pytest.approx(np.arange(400, 0, -1) / 400)


@pytest.mark.parametrize(("warmup_steps", "decay_share"), [(0, 0.0), (0, 1.0), (100, 0.5)])
def test_learning_rate_is_positive_and_never_above_its_peak(warmup_steps, decay_share):
    settings = TrainingSettings(steps=50, learning_rate=0.1, warmup_steps=warmup_steps, decay_share=decay_share)
    rates = [settings.learning_rate_at(step) for step in range(50)]
    assert 0 < min(rates) <= max(rates) <= 0.1


def stop_after(steps):
    def report(step, terms):
        if step == steps:
            raise KeyboardInterrupt

    return report


def watch(step, terms):
    assert all(np.isfinite(value) for value in terms.values())


@pytest.fixture
def settings(tiny):
    return TrainingSettings(architecture=tiny, steps=4, batch=1, patch_px=32, warmup_steps=2)


def test_resumed_training_ends_with_the_weights_of_an_undisturbed_one(settings, tmp_path):
    undisturbed = Training(settings)
    undisturbed.run(checkpoint=tmp_path / "a.pt", checkpoint_every=100, report=watch)
    start = Training(settings).network.state_dict()
    with pytest.raises(KeyboardInterrupt):
        Training(settings).run(checkpoint=tmp_path / "b.pt", checkpoint_every=2, report=stop_after(3))
    resumed = Training.resumed(settings, tmp_path / "b.pt")
    assert resumed.step == 2
    resumed.run(checkpoint=tmp_path / "b.pt", checkpoint_every=2, report=watch)
    for part in ("network", "average"):
        weights = getattr(undisturbed, part).state_dict()
        for name, value in getattr(resumed, part).state_dict().items():
            assert torch.equal(value, weights[name]), f"{part} {name}"
        assert not torch.equal(weights["stem.weight"], start["stem.weight"])
    assert Training.resumed(settings, tmp_path / "a.pt").step == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_resuming_may_change_the_number_of_steps_and_nothing_else(settings, tmp_path):
    Training(settings).save(tmp_path / "a.pt")
    longer = settings.model_copy(update={"steps": 8})
    assert Training.resumed(longer, tmp_path / "a.pt").settings.steps == 8
    for change in ({"seed": 2}, {"batch": 2}, {"learning_rate": 1e-4}, {"architecture": Architecture()}):
        with pytest.raises(SettingsError, match="trained with other settings"):
            Training.resumed(settings.model_copy(update=change), tmp_path / "a.pt")
