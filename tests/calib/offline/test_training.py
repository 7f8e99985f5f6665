import csv
import subprocess
import sys
import tomllib

import numpy as np
import pytest
import tifffile
import torch
from typer.testing import CliRunner

from calib.offline.commands import app
from calib.offline.labels.labelfiles import TileSummary, write_labels
from calib.offline.quality.qualitytable import QualityError
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.optics import spots
from calib.offline.simulation.simulatedrun import read_truth, write_simulated_run
from calib.offline.training import labelled as labelled_module
from calib.offline.training.ablation import ablate
from calib.offline.training.hardware import Process, choose_device, choose_dtype, join_processes
from calib.offline.training.history import Evaluation, best, no_longer_improves, write_history
from calib.offline.training.labelled import labelled_sample, read_labelled
from calib.offline.training.loss import Branches, LossSums, joint_loss, loss_sums
from calib.offline.training.settings import (
    Device,
    LossWeights,
    Precision,
    SettingsError,
    TrainingSettings,
    read_settings,
)
from calib.offline.training.trainingloop import Source, Training
from calib.offline.training.trainingsamples import IGNORED, Batch, Sample, simulated_patch, simulated_sample, stack
from calib.runfolder.images import RunFolderError, image_path
from engines.bundles.bundle import load_bundle
from engines.bundles.torchbundle import load_weights
from engines.network.architecture import Architecture
from engines.network.torchnetwork import Network

CPU = torch.device("cpu")
ALONE = Process(CPU)
CALLS_ALONE = LossWeights(mse=0, ssim=0)


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks this small lose more by waiting for a second thread than they gain by it."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Samples


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


def test_held_out_patches_are_none_of_training(settings):
    source = Source(settings)
    seen = [source.training(step, index).images for step in range(4) for index in range(3)]
    for index in range(4):
        assert all((source.held_out(index).images != images).any() for images in seen)


# Loss


def labels(size=32):
    """A batch with a cluster every 8 px, and random images to rebuild."""
    rng = torch.Generator().manual_seed(1)
    classes = torch.zeros(2, size, size, dtype=torch.int64)
    classes[:, 4::8, 4::8] = torch.randint(1, 5, classes[:, 4::8, 4::8].shape, generator=rng)
    superresolved = torch.rand(2, 4, 2 * size, 2 * size, generator=rng)
    return Batch(torch.zeros(2, 4, size, size), classes, superresolved, torch.ones(2))


def loss_of(logits, superresolved, batch, weights):
    found = loss_sums(logits, superresolved, batch)
    return joint_loss(found, found, weights), found.means()


def test_loss_of_a_perfect_prediction_is_nearly_nothing():
    batch = labels()
    logits = 30 * torch.nn.functional.one_hot(batch.classes, 5).movedim(-1, 1).float()
    loss, terms = loss_of(logits, batch.superresolved.clone(), batch, LossWeights())
    assert loss.item() == pytest.approx(0, abs=1e-5)
    assert terms == pytest.approx({"mse": 0, "ssim": 1, "calls": 0}, abs=1e-5)


def test_weights_scale_the_terms_of_the_loss():
    batch = labels()
    images, logits = batch.superresolved + 0.3, torch.zeros(2, 5, 32, 32)
    loss, terms = loss_of(logits, images, batch, LossWeights(mse=2, ssim=3, calls=5))
    assert loss.item() == pytest.approx(2 * terms["mse"] + 3 * (1 - terms["ssim"]) + 5 * terms["calls"], rel=1e-5)
    assert terms["mse"] == pytest.approx(0.09, rel=1e-4)
    assert terms["calls"] == pytest.approx(np.log(5) * 32 * 32 / 16, rel=1e-5)
    nothing, _ = loss_of(logits, images, batch, LossWeights(mse=0, ssim=0, calls=0))
    assert nothing.item() == 0


def test_loss_reaches_the_backbone_from_both_branches(tiny):
    batch = labels()
    for weights in (LossWeights(mse=1, ssim=0, calls=0), LossWeights(mse=0, ssim=0, calls=1)):
        torch.manual_seed(1)
        network = Network(tiny)
        logits, images = network(torch.rand(2, 4, 32, 32))
        loss_of(logits, images, batch, weights)[0].backward()
        assert network.stem.weight.grad.abs().sum() > 0


def test_loss_without_clusters_is_finite():
    batch = stack([Sample(np.zeros((4, 16, 16), np.float32), np.zeros((16, 16), np.int64), None)], CPU)
    loss, terms = loss_of(torch.zeros(1, 5, 16, 16), torch.zeros(1, 4, 32, 32), batch, LossWeights())
    assert torch.isfinite(loss)
    assert set(terms) == {"calls"}


def test_ignored_pixels_and_missing_images_have_no_part_in_the_loss():
    full, sample = labels(), simulated_sample(seed=[1], size=32)
    assert sample.superresolved is not None
    classes = np.where(np.arange(32)[:, None] < 16, IGNORED, sample.classes)
    batch = stack([sample, Sample(sample.images, classes, None)], CPU)
    rng = torch.Generator().manual_seed(1)
    logits = torch.randn(full.classes.shape[0], 5, 32, 32, generator=rng)
    superresolved = torch.rand(2, 4, 64, 64, generator=rng)
    changed_logits, changed_superresolved = logits.clone(), superresolved.clone()
    changed_logits[1, :, :16] += torch.randn(5, 16, 32, generator=rng)
    changed_superresolved[1] += 1
    loss, terms = loss_of(logits, superresolved, batch, LossWeights())
    same, same_terms = loss_of(changed_logits, changed_superresolved, batch, LossWeights())
    assert (loss.item(), terms) == (same.item(), same_terms)
    _, first = loss_of(logits[:1], superresolved[:1], stack([sample], CPU), LossWeights())
    assert terms["mse"] == pytest.approx(first["mse"], rel=1e-6)
    assert terms["ssim"] == pytest.approx(first["ssim"], rel=1e-6)


def test_losses_of_the_processes_add_up_to_that_of_the_whole_step():
    samples = [simulated_sample(seed=[seed], size=32) for seed in range(4)]
    samples[1] = Sample(samples[1].images, samples[1].classes, None)
    rng = torch.Generator().manual_seed(1)
    logits, superresolved = torch.randn(4, 5, 32, 32, generator=rng), torch.rand(4, 4, 64, 64, generator=rng)
    whole, _ = loss_of(logits, superresolved, stack(samples, CPU), LossWeights())
    halves = [
        loss_sums(logits[part], superresolved[part], stack(samples[part], CPU)) for part in (slice(0, 2), slice(2, 4))
    ]
    whole_step = LossSums.unpacked(halves[0].packed() + halves[1].packed())
    added = sum(joint_loss(half, whole_step, LossWeights()) for half in halves)
    assert added.item() == pytest.approx(whole.item(), rel=1e-6)


def test_calls_alone_leave_the_super_resolution_branch_out(tiny):
    torch.manual_seed(1)
    network = Network(tiny)
    images = torch.rand(2, 4, 32, 32)
    expected, _ = network(images)
    computed = []
    network.upsample.register_forward_hook(lambda *_: computed.append(True))
    model = Branches(network, CALLS_ALONE)
    logits, superresolved = model(images)
    assert superresolved is None
    assert not computed
    assert torch.equal(logits, expected)
    loss_of(logits, superresolved, labels(), CALLS_ALONE)[0].backward()
    assert network.upsample.weight.grad is None
    assert network.stem.weight.grad.abs().sum() > 0


# Settings


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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'precision = "f8"', r"precision: Input should be 'auto', 'f32', 'bf16' or 'f16'"),
        (b"patience = 0", r"patience: Input should be greater than or equal to 1"),
        (b"epochs = 3", r"epochs: Extra inputs are not permitted"),
        (b"steps =", r"not TOML"),
        (b"\xff", r"not TOML"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_in_one_line(content, message, tmp_path):
    path = tmp_path / "train.toml"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=message):
        read_settings(path)


def test_a_device_that_is_not_there_is_refused():
    assert choose_device(Device.CPU) == CPU
    if not torch.cuda.is_available():
        assert choose_device(Device.AUTO) == CPU
        with pytest.raises(SettingsError, match="needs a GPU, PyTorch sees 0"):
            choose_device(Device.CUDA)


def test_precision_asked_for_is_used_and_auto_is_what_the_processor_computes_in():
    explicit = [choose_dtype(precision, CPU) for precision in (Precision.F32, Precision.BF16, Precision.F16)]
    assert explicit == [torch.float32, torch.bfloat16, torch.float16]
    found = torch.cpu.get_capabilities()
    native = found.get("avx512_bf16") or found.get("amx_bf16")
    assert choose_dtype(Precision.AUTO, CPU) is (torch.bfloat16 if native else torch.float32)


# Training


def stop_after(steps):
    def report(step, terms):
        if step == steps:
            raise KeyboardInterrupt

    return report


def watch(step, terms):
    assert all(np.isfinite(value) for value in terms.values())


@pytest.fixture
def settings(tiny):
    return TrainingSettings(
        architecture=tiny,
        steps=6,
        batch=1,
        patch_px=32,
        warmup_steps=2,
        validate_every=2,
        validation_patches=3,
        device=Device.CPU,
        precision=Precision.F32,
    )


def train(settings, checkpoint, *, report=watch, every=100, process=ALONE, **start):
    training = Training(settings, process=process, **start)
    if checkpoint.exists():
        training.resume(checkpoint)
    training.run(checkpoint=checkpoint, checkpoint_every=every, report=report)
    return training


def state_of(checkpoint):
    """Everything a checkpoint holds but the time it took."""
    state = torch.load(checkpoint, weights_only=True)
    del state["seconds"]
    return state


def assert_same(one, other, place="checkpoint"):
    """The same bits, all the way down."""
    assert type(one) is type(other), place
    if isinstance(one, dict):
        assert one.keys() == other.keys(), place
        for key in one:
            assert_same(one[key], other[key], f"{place}.{key}")
    elif isinstance(one, list | tuple):
        assert len(one) == len(other), place
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_same(left, right, f"{place}[{index}]")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), place
    else:
        assert one == other, place


@pytest.mark.parametrize(("precision", "stop"), [("f32", 1), ("f32", 3), ("bf16", 5), ("f16", 3)])
def test_resumed_training_ends_with_the_bits_of_an_undisturbed_one(settings, precision, stop, tmp_path):
    settings = settings.model_copy(update={"precision": Precision(precision)})
    undisturbed = train(settings, tmp_path / "a.pt")
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "b.pt", every=1, report=stop_after(stop))
    resumed = Training(settings, process=ALONE)
    resumed.resume(tmp_path / "b.pt")
    assert (resumed.step, len(resumed.history)) == (stop, stop // 2)
    resumed.run(checkpoint=tmp_path / "b.pt", checkpoint_every=1, report=watch)
    assert_same(state_of(tmp_path / "a.pt"), state_of(tmp_path / "b.pt"))
    assert [row.step for row in undisturbed.history] == [2, 4, 6]
    start = Network(settings.architecture).state_dict()
    assert not torch.equal(undisturbed.best().state_dict()["stem.weight"], start["stem.weight"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.pt", "b.pt"]


def test_training_stops_early_and_keeps_the_best_average_also_when_resumed(settings, tmp_path):
    # Steps this large wreck the weights after the first few.
    changes = {"learning_rate": 0.5, "warmup_steps": 0, "decay_share": 0.0, "average": 0.0}
    settings = settings.model_copy(update={**changes, "steps": 60, "validate_every": 1, "patience": 3})
    undisturbed = train(settings, tmp_path / "a.pt")
    chosen = undisturbed.history[best(undisturbed.history)].step
    assert undisturbed.step == chosen + 3 < 60
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "b.pt", every=1, report=stop_after(undisturbed.step - 1))
    train(settings, tmp_path / "b.pt", every=1)
    assert_same(state_of(tmp_path / "a.pt"), state_of(tmp_path / "b.pt"))
    train(settings, tmp_path / "b.pt", report=stop_after(undisturbed.step + 1))
    shorter = train(settings.model_copy(update={"steps": chosen}), tmp_path / "c.pt")
    assert_same(dict(shorter.best().state_dict()), dict(undisturbed.best().state_dict()))


def test_best_is_the_first_of_the_lowest_losses_and_never_one_that_is_no_number():
    def losses(*values):
        return [Evaluation(step, 1e-3, {}, {}, value) for step, value in enumerate(values)]

    assert best(losses(3, 1, 1, 2)) == 1
    assert best(losses(float("nan"), 5, float("inf"))) == 1
    assert not no_longer_improves([], 1)
    assert not no_longer_improves(losses(1), 1)
    assert no_longer_improves(losses(1, 1), 1)
    assert not no_longer_improves(losses(3, 1, 2, 2), 3)
    assert no_longer_improves(losses(3, 1, 2, 2, 2), 3)


def test_training_learns(settings, tmp_path):
    settings = settings.model_copy(update={"steps": 40, "validate_every": 20, "learning_rate": 5e-3})
    for precision in (Precision.F32, Precision.BF16):
        history = train(settings.model_copy(update={"precision": precision}), tmp_path / f"{precision}.pt").history
        for term in ("calls", "mse"):
            assert history[-1].validation[term] < history[0].validation[term]


def test_resuming_may_change_the_number_of_steps_and_nothing_else(settings, tmp_path):
    Training(settings, process=ALONE).save(tmp_path / "a.pt")
    longer = Training(settings.model_copy(update={"steps": 8}), process=ALONE)
    longer.resume(tmp_path / "a.pt")
    for change in (
        {"seed": 2},
        {"batch": 2},
        {"learning_rate": 1e-4},
        {"patience": 2},
        {"architecture": Architecture()},
    ):
        with pytest.raises(SettingsError, match="trained with other settings"):
            Training(settings.model_copy(update=change), process=ALONE).resume(tmp_path / "a.pt")


def test_a_run_cut_down_to_the_steps_it_has_is_validated(settings, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "a.pt", every=1, report=stop_after(3))
    assert train(settings.model_copy(update={"steps": 3}), tmp_path / "a.pt").history[-1].step == 3


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_file_that_is_no_checkpoint_is_refused(settings, content, tmp_path):
    path = tmp_path / "a.pt"
    if content is None:
        torch.save({"network": {}}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="not a checkpoint of this seqd"):
        Training(settings, process=ALONE).resume(path)


def test_history_is_written_as_numbers_and_as_a_curve(settings, tmp_path):
    training = train(settings, tmp_path / "a.pt")
    write_history(training.history, tmp_path / "a.pt")
    with (tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 4, 6]
    for row, evaluation in zip(rows, training.history, strict=True):
        assert float(row["validation_calls"]) == evaluation.validation["calls"]
        assert float(row["training_ssim"]) == evaluation.training["ssim"]
        terms = evaluation.validation
        assert evaluation.loss == pytest.approx(terms["mse"] + 0.1 * (1 - terms["ssim"]) + terms["calls"])
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


# Several processes

PROCESSES = """
import sys
from pathlib import Path
import torch
from calib.offline.training.hardware import join_processes
from calib.offline.training.settings import TrainingSettings
from calib.offline.training.trainingloop import Training

torch.set_num_threads(1)
settings = TrainingSettings.model_validate_json(sys.argv[1])
with join_processes(settings.device) as process:
    training = Training(settings, process=process)
    training.run(checkpoint=Path(sys.argv[2]), checkpoint_every=100, report=lambda step, terms: None)
"""


def test_two_processes_train_as_one(settings, tmp_path):
    settings = settings.model_copy(update={"batch": 4, "steps": 4, "loss": LossWeights(ssim=0.5)})
    script = tmp_path / "processes.py"
    script.write_text(PROCESSES)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments = [str(script), settings.model_dump_json(), str(tmp_path / "two.pt")]
    done = subprocess.run([*torchrun, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    train(settings, tmp_path / "one.pt")
    one, two = state_of(tmp_path / "one.pt"), state_of(tmp_path / "two.pt")
    for part in ("network", "average", "best"):
        for name, value in one[part].items():
            torch.testing.assert_close(two[part][name], value, rtol=1e-3, atol=1e-5)
    assert len(one["history"]) == len(two["history"]) == 2
    for left, right in zip(one["history"], two["history"], strict=True):
        for part in ("training", "validation"):
            assert left[part] == pytest.approx(right[part], rel=1e-4)


def test_a_batch_that_cannot_be_dealt_out_is_refused():
    assert [list(Process(CPU, rank, 2).share(4)) for rank in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(SettingsError, match="batch 3: 2 processes need a multiple of 2"):
        Process(CPU, 0, 2).share(3)


def test_without_torchrun_a_process_stands_alone():
    with join_processes(Device.CPU) as process:
        assert process == ALONE
        assert process.first


# Labelled runs

DRIFT = 0.7
SHIFTS = ((0.4, -0.3), (0.1, 0.2), (-0.2, 0.3), (-0.3, -0.2))


@pytest.fixture(scope="module")
def labelled_run(tmp_path_factory):
    """A simulated run with its truth as labels; the rightmost clusters are unknown, cycle 2 unregistered."""
    root = tmp_path_factory.mktemp("labelled") / "run"
    conditions = Conditions(density_k_mm2=60, polyclonal=0, drift_px=0, channel_shift_px=SHIFTS)
    info = write_simulated_run(
        root, conditions, run="KNOWN", tiles=1, cycles=3, shape=(128, 96), seed=3, progress=lambda done: None
    )
    truth = read_truth(root, info.tiles[0])
    known = truth.positions[:, 1] < 80
    letters = ["".join("ACGT"[base] for base in read) for read in truth.reads]
    rows = [(y, x, read, read) for (y, x), read in zip(truth.positions, letters, strict=True)]
    summary = TileSummary(
        drift_px=((0, 0), None, (0, 0)),
        channel_shift_px=SHIFTS,
        offset=(140, 140, 140, 140),
        gain=(0.005, 0.005, 0.005, 0.005),
        clusters=len(rows),
        aligned_share=float(known.mean()),
        shuffled_share=0,
        removed={},
        corrected_bases=0,
        corrected_by_cycle=(0, 0, 0),
    )
    write_labels(
        root,
        info.tiles[0],
        summary,
        kept=[row for row, keep in zip(rows, known, strict=True) if keep],
        removed=[row[:3] for row, keep in zip(rows, known, strict=True) if not keep],
        shape=(128, 96),
    )
    return root


def test_labelled_samples_show_each_base_in_its_own_channel(labelled_run):
    (tile,) = read_labelled([labelled_run], patch_px=32)
    assert list(tile.cycles) == [1, 3]
    brighter = []
    for seed in range(20):
        sample = labelled_sample(tile, rng=np.random.default_rng(seed), size=32, held_out=False)
        assert sample.images.shape == (4, 32, 32)
        assert sample.superresolved is None
        for base in range(4):
            own = sample.images[:, sample.classes == base + 1]
            brighter.extend(own.argmax(axis=0) == base)
    assert len(brighter) > 100
    # Neighbours and cross-talk outshine a few; were crops, turns or labels out of step, 1 in 4 would agree.
    assert np.mean(brighter) > 0.85


def test_pixels_at_clusters_of_unknown_bases_are_ignored(labelled_run):
    (tile,) = read_labelled([labelled_run], patch_px=96 - 48)
    ignored = [
        (labelled_sample(tile, rng=np.random.default_rng(seed), size=48, held_out=False).classes == IGNORED).sum()
        for seed in range(20)
    ]
    assert max(ignored) > 0
    position = np.array([[10.3, 12.0], [0.0, 31.4]], np.float32)
    mask = labelled_module._near(position, 32)
    y, x = np.mgrid[:32, :32]
    distance = np.min([np.hypot(y - p[0], x - p[1]) for p in position], axis=0)
    np.testing.assert_array_equal(mask, distance <= labelled_module.IGNORED_PX)


def test_crops_come_in_all_eight_orientations_from_the_rows_to_train_on(labelled_run):
    (tile,) = read_labelled([labelled_run], patch_px=48)
    pixels = [
        np.stack([tifffile.imread(image_path(labelled_run, tile.tile, cycle, channel)) for channel in "ACGT"])
        for cycle in tile.cycles
    ]
    normalised = np.stack([tile.labels.normalisation.apply(frames) for frames in pixels])
    seen = []
    for seed in range(80):
        crop = labelled_sample(tile, rng=np.random.default_rng(seed), size=48, held_out=False).images
        upright = [np.rot90(crop, turns, axes=(-2, -1)) for turns in range(4)]
        orientations = upright + [turned[..., ::-1] for turned in upright]
        for orientation, image in enumerate(orientations):
            for cycle, y, x in np.argwhere(normalised[:, 0] == image[0, 0, 0]):
                if np.array_equal(normalised[cycle, :, y : y + 48, x : x + 48], image):
                    seen.append(orientation)
                    assert y + 48 <= 128 - 48
    assert len(seen) == 80
    assert set(seen) == set(range(8))


def test_source_draws_its_share_from_labels_and_keeps_the_lowest_rows_to_validate_on(settings, labelled_run):
    (tile,) = read_labelled([labelled_run], patch_px=32)
    assert (tile.rows(32, held_out=False), tile.rows(32, held_out=True)) == (range(96), range(96, 128))
    source = Source(settings.model_copy(update={"labelled_share": 0.25}), (tile,))
    drawn = [source.training(step, 0).superresolved is None for step in range(200)]
    assert 0.15 < np.mean(drawn) < 0.35
    simulated = drawn.index(False)
    np.testing.assert_array_equal(
        source.training(simulated, 0).images, simulated_sample(seed=[1, simulated, 0], size=32).images
    )
    again = source.training(drawn.index(True), 0)
    np.testing.assert_array_equal(again.images, source.training(drawn.index(True), 0).images)


def test_labelled_runs_that_cannot_be_used_are_refused(labelled_run, tmp_path):
    with pytest.raises(SettingsError, match=r"patch_px 80: tile 1_1101 of run KNOWN is 128 × 96 px, .* need 160 × 80"):
        read_labelled([labelled_run], patch_px=80)
    write_simulated_run(
        tmp_path, Conditions(), run="BARE", tiles=1, cycles=1, shape=(32, 32), seed=1, progress=lambda done: None
    )
    with pytest.raises(RunFolderError, match="no tile is labelled; seqd calib label"):
        read_labelled([tmp_path], patch_px=32)


def test_fine_tuning_begins_with_the_bundle_and_goes_on_from_its_checkpoint(
    settings, labelled_run, tiny_bundle, tmp_path
):
    start = load_bundle(tiny_bundle)
    origin = {"start": start, "labelled": read_labelled([labelled_run], patch_px=32)}
    settings = settings.model_copy(update={"learning_rate": 1e-3, "batch": 2})
    assert_same(dict(Training(settings, process=ALONE, **origin).best().state_dict()), load_weights(tiny_bundle))
    tuned = train(settings, tmp_path / "a.pt", **origin)
    assert [row.step for row in tuned.history] == [0, 2, 4, 6]
    with pytest.raises(KeyboardInterrupt):
        train(settings, tmp_path / "b.pt", every=1, report=stop_after(3), **origin)
    with pytest.raises(SettingsError, match="from another start or other labels"):
        train(settings, tmp_path / "b.pt", start=start)
    train(settings, tmp_path / "b.pt", **origin)
    assert_same(state_of(tmp_path / "a.pt"), state_of(tmp_path / "b.pt"))
    with pytest.raises(SettingsError, match="the settings say"):
        Training(TrainingSettings(device=Device.CPU), process=ALONE, start=start)


# Ablation and commands


def test_ablation_trains_both_ways_and_goes_on_where_it_was(settings, tmp_path):
    options = {"process": ALONE, "folder": tmp_path, "repeats": 2, "patches": 5, "reporter": lambda trained: watch}
    results = ablate(settings, **options)
    assert [(result.trained, result.seed, result.steps) for result in results] == [
        ("joint", 1, 6),
        ("calls alone", 1, 6),
        ("joint", 2, 6),
        ("calls alone", 2, 6),
    ]
    assert len({result.cross_entropy for result in results}) == 4
    assert len({result.clusters for result in results}) == 1
    assert all(0 <= result.error_rate <= 1 for result in results)
    assert ablate(settings, **options) == results
    with pytest.raises(SettingsError, match="a joint training weighs the calls and mse or ssim"):
        ablate(settings.model_copy(update={"loss": CALLS_ALONE}), **options)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_train_command_fine_tunes_a_bundle_and_draws_the_curve(settings, labelled_run, tiny_bundle, tmp_path):
    (tmp_path / "train.toml").write_text(
        'steps = 4\nbatch = 1\npatch_px = 32\nvalidate_every = 2\nvalidation_patches = 2\ndevice = "cpu"\n'
        "quality_runs = 1\nquality_px = 48\n"
    )
    arguments = ["train", str(tmp_path / "bundle"), "--checkpoint", str(tmp_path / "work" / "a.pt")]
    arguments += ["--settings", str(tmp_path / "train.toml"), "--name", "tuned"]
    arguments += ["--start", str(tiny_bundle), "--labelled", str(labelled_run)]
    # So small a network finds nothing: the bundle is there all the same, without scores.
    with pytest.raises(QualityError, match="was called in any of the runs"):
        CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert not load_bundle(tmp_path / "bundle").model.quality
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == ["a.csv", "a.png", "a.pt"]
    written = tomllib.loads((tmp_path / "bundle" / "model.toml").read_text())["training"]
    assert written["start"] == load_bundle(tiny_bundle).hash
    assert [line.split()[:2] for line in written["labelled"]] == [["KNOWN", "1_1101"]]
    assert (written["steps"], written["settings"]["architecture"]["stem"]) == (4, 8)
    assert load_bundle(tmp_path / "bundle").model.name == "tuned"
