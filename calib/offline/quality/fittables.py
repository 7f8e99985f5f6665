"""Quality tables of a bundle, from run folders whose truth is known."""

from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from seqd_client.runinfo import TileId

from calib.offline.evaluation.clustermatch import NO_READ, match
from calib.offline.labels.labelfiles import labels_path, read_labels
from calib.offline.quality.qualitytable import KnownCalls, fit_quality
from calib.offline.quality.replay import Replayed, engine_map, replay
from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import Truth, read_truth, write_simulated_run
from calib.runfolder.images import read_run_info
from engines.backends import EngineOptions, open_engine
from engines.bundles.bundle import Bundle, QualityTable, Readout, load_bundle, store_quality

ASSUMED = QualityTable(weights=(0,) * 6, edges=(), scores=(20,), binned=(12,))
"""Table that gives every call Q20, used while the bundle has none yet."""

CONDITIONS = Path(__file__).parent / "conditions"
"""Folder with the conditions of the simulated runs; the evaluation uses none of these conditions."""

CYCLES = 40
"""Cycles of a simulated run."""

Progress = Callable[[], None]


def fit_bundle(bundle: Path, roots: Sequence[Path], *, progress: Progress) -> dict[Readout, QualityTable]:
    """Fit the tables of all readouts and store them in the bundle.

    Parameters
    ----------
    roots : simulated or labelled run folders that the network was not trained on.
    progress : called for every cycle of every tile.

    Raises
    ------
    RunFolderError : a folder has neither truth nor labels, or an image is missing.
    BundleError : the bundle cannot be used.
    """
    loaded = load_bundle(bundle)
    runs = [_known(root, loaded, progress) for root in roots]
    tables = {readout: fit_quality([known[readout] for known in runs]) for readout in Readout}
    store_quality(loaded, tables)
    return tables


def tile_cycles(roots: Sequence[Path]) -> int:
    """How often :func:`fit_bundle` calls ``progress``."""
    infos = [read_run_info(root) for root in roots]
    return sum(len(info.tiles) * info.reads[0].cycles for info in infos)


def simulate_runs(folder: Path, *, runs: int, size: int, seed: int) -> list[Path]:
    """Simulate run folders; each run uses the next file of :data:`CONDITIONS`, and after the last file the first.

    A run has one tile of ``size`` × ``size`` pixels and :data:`CYCLES` cycles. The scores should hold for an
    instrument that works well. The training uses conditions that vary much more; scores fitted under such conditions
    would be far too low.
    """
    files = sorted(CONDITIONS.glob("*.json"))
    roots = [folder / f"run_{index}" for index in range(runs)]
    for index, root in enumerate(roots):
        write_simulated_run(
            root,
            Conditions.model_validate_json(files[index % len(files)].read_bytes()),
            run=f"QUALITY_{index}",
            tiles=1,
            cycles=CYCLES,
            shape=(size, size),
            seed=seed + index,
            progress=lambda _: None,
        )
    return roots


def _known(root: Path, bundle: Bundle, progress: Progress) -> dict[Readout, KnownCalls]:
    info = read_run_info(root)
    parts: dict[Readout, list[KnownCalls]] = {readout: [] for readout in Readout}
    with closing(open_engine(bundle, shape=(info.height, info.width), options=EngineOptions())) as engine:
        for tile in info.tiles:
            truth = known_truth(root, tile)
            replayed = replay(root, info, tile, map_of=partial(engine_map, engine), quality=ASSUMED, progress=progress)
            for readout, calls in replayed.items():
                parts[readout].append(_compared(calls, truth))
    return {
        readout: KnownCalls(
            np.concatenate([calls.features for calls in known]), np.concatenate([calls.wrong for calls in known])
        )
        for readout, known in parts.items()
    }


def _compared(replayed: Replayed, truth: Truth) -> KnownCalls:
    """The calls of the clusters whose truth is known."""
    matched = match(truth, replayed.reads(), cycles=len(replayed.calls))
    called = matched.called
    described = replayed.features.transpose(1, 0, 2)[matched.read_of[matched.read_of != NO_READ]]
    return KnownCalls(described[called], matched.wrong[called])


def known_truth(root: Path, tile: TileId) -> Truth:
    """Known bases of a tile: its labels, or the truth of the simulation.

    Raises
    ------
    RunFolderError : there is neither.
    """
    if not labels_path(root, tile, ".json").exists():
        return read_truth(root, tile)
    labels = read_labels(root, tile)
    return Truth(labels.positions.astype(np.float64), labels.bases)
