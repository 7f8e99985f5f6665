"""``seqd calib quality``: scores fitted on runs whose truth is known, stored in the bundle."""

import inspect
import re
import shutil
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from calib.offline.commands import app
from calib.offline.quality import command
from calib.offline.quality.fittables import CONDITIONS
from calib.offline.quality.qualitytable import QualityError
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from calib.offline.training import goldenimage
from calib.runfolder.images import RunFolderError
from engines.bundles.bundle import DEFAULT_BUNDLE, BundleError, Readout, load_bundle, store_quality


@pytest.fixture
def bundle(tmp_path):
    """A copy of the default bundle without scores."""
    folder = tmp_path / "bundle"
    shutil.copytree(DEFAULT_BUNDLE, folder)
    store_quality(load_bundle(folder), {})
    return folder


def simulated(root, density):
    conditions = Conditions(density_k_mm2=density, photons=1500)
    write_simulated_run(
        root, conditions, run="KNOWN", tiles=1, cycles=12, shape=(64, 64), seed=2, progress=lambda done: None
    )
    return root


def fit(bundle, *runs):
    return CliRunner().invoke(app, ["quality", str(bundle), *map(str, runs)])


def test_every_readout_gets_rising_scores_that_are_no_higher_than_its_calls_show(bundle, tmp_path):
    with pytest.raises(BundleError, match="no quality table for readout fused, there is none; `seqd calib quality`"):
        load_bundle(bundle).quality(Readout.FUSED)
    before = load_bundle(bundle).hash
    done = fit(bundle, simulated(tmp_path / "run", 500))
    assert done.exit_code == 0, done.output
    fitted = load_bundle(bundle)
    assert fitted.hash != before
    assert set(fitted.model.quality) == set(Readout)
    for table in fitted.model.quality.values():
        assert list(table.scores) == sorted(table.scores)
        # Some 290 clusters and 12 cycles: one error added leaves no score above 35.
        assert 2 <= table.scores[0] < table.scores[-1] <= 35
        assert list(table.binned) == sorted(table.binned)
        assert 2 <= table.binned[0] < table.binned[-1] < 40
    assert all(readout.value in done.output for readout in Readout)


def test_runs_without_truth_or_calls_leave_the_bundle_as_it_was(bundle, tmp_path):
    before = load_bundle(bundle).hash
    untold = simulated(tmp_path / "untold", 200)
    shutil.rmtree(untold / "Truth")
    assert isinstance(fit(bundle, untold).exception, RunFolderError)
    assert isinstance(fit(bundle, simulated(tmp_path / "empty", 0)).exception, QualityError)
    assert load_bundle(bundle).hash == before


def conditions_in(folder):
    found = [Conditions.model_validate_json(path.read_bytes()) for path in sorted(folder.glob("*.json"))]
    assert len(found) == 9
    return found


def test_scores_and_golden_tile_have_conditions_that_the_evaluation_does_not_use():
    evaluated = conditions_in(CONDITIONS.parents[1] / "evaluation" / "conditions")
    for own, held_out in product([*conditions_in(CONDITIONS), goldenimage.CONDITIONS], evaluated):
        differing = [
            name
            for name in ("sigma_px", "crosstalk", "photons", "brightness_sigma", "background_px", "phasing", "decay")
            if not np.allclose(getattr(own, name), getattr(held_out, name), rtol=0.05, atol=0)
        ]
        assert len(differing) >= 6, f"{own} is nearly {held_out}"


def test_scores_and_golden_tile_have_seeds_that_the_evaluation_does_not_use():
    makefile = (Path(__file__).parents[3] / "Makefile").read_text()
    (evaluated,) = re.findall(r"calib simulate .*--seed (\d+)", makefile)
    first = inspect.signature(command.quality).parameters["seed"].default
    assert int(evaluated) not in {goldenimage.SEED, *range(first, first + command.RUNS)}
