"""Quantisation of a network, and comparison of the calls with it and with the network in FP32."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo

from calib.offline.cli import UsageError
from calib.offline.evaluation.agreement import agreement
from calib.offline.evaluation.callers import Reads
from calib.offline.evaluation.clustermatch import match, pooled
from calib.offline.evaluation.oncodebook import compare_with_codebook
from calib.offline.quality.fittables import known_truth
from calib.offline.quality.replay import engine_map, replay
from calib.offline.quantisation.bound import Compared, RunMeasures, against_codebook, against_truth
from calib.offline.quantisation.int8graph import calibration_patches, write_quantised
from calib.runfolder.images import LABELS, TRUTH
from engines.backends import EngineOptions, open_engine
from engines.bundles.bundle import INT8_WEIGHTS, Bundle, Readout, load_bundle, store_quantised
from engines.bundles.golden import check_golden

Codes = NDArray[np.uint8]


def check_truth_known(runs: Mapping[Path, RunInfo], codes: Codes | None) -> None:
    """Check that every run has truth or labels, or that there is a codebook.

    Raises
    ------
    UsageError : a run has neither truth nor labels, and there are no codes.
    """
    for root, info in runs.items():
        if codes is None and not _has_truth(root):
            raise UsageError(f"run {info.run}: neither truth nor labels in {root}; --codebook is needed")


def quantised_copy(bundle: Bundle, runs: Mapping[Path, RunInfo], folder: Path) -> Bundle:
    """Copy a bundle into an empty folder, with the network in INT8; its ranges are measured on images of the runs.

    Raises
    ------
    RunFolderError : an image is missing or damaged.
    """
    copy = Path(shutil.copytree(bundle.folder, folder / "bundle"))
    graph = write_quantised(bundle, calibration_patches(runs), folder)
    store_quantised(load_bundle(copy), graph, graph.with_name(INT8_WEIGHTS))
    return load_bundle(copy)


def compare(
    bundle: Bundle, runs: Mapping[Path, RunInfo], codes: Codes | None, *, progress: Callable[[], None]
) -> list[Compared]:
    """Call the first read of every tile twice, in FP32 and in INT8, and compare the calls with the truth.

    Parameters
    ----------
    bundle : with a network in INT8.
    runs : simulated or labelled run folders, or runs whose reads are codes.
    codes : (codes, length) letters.
    progress : called for every cycle of every tile, in FP32 and in INT8.

    Raises
    ------
    EngineError : the network in INT8 does not give the bundle's golden answer, within the bound of its precision.
    RunFolderError : an image is missing or damaged.
    """
    compared = []
    for root, info in runs.items():
        # INT8 first: a network that misses the golden answer is refused at once.
        after, before = (
            _measures(root, info, _called(root, info, bundle, precision, progress), codes)
            for precision in ("int8", "f32")
        )
        compared += [Compared(info.run, readout, before[readout], after[readout]) for readout in Readout]
    return compared


def _called(
    root: Path, info: RunInfo, bundle: Bundle, precision: str, progress: Callable[[], None]
) -> dict[Readout, list[Reads]]:
    """Reads of every tile."""
    options = EngineOptions(precision=precision)
    reads: dict[Readout, list[Reads]] = {readout: [] for readout in Readout}
    with closing(open_engine(bundle, shape=(info.height, info.width), options=options)) as engine:
        check_golden(engine, bundle)
        for tile in info.tiles:
            quality = bundle.quality(Readout.FUSED)
            replayed = replay(root, info, tile, map_of=partial(engine_map, engine), quality=quality, progress=progress)
            for readout, called in replayed.items():
                reads[readout].append(called.reads())
    return reads


def _measures(
    root: Path, info: RunInfo, reads: Mapping[Readout, Sequence[Reads]], codes: Codes | None
) -> dict[Readout, RunMeasures]:
    if codes is not None and not _has_truth(root):
        return {
            readout: against_codebook(compare_with_codebook(codes, np.concatenate([tile.sequences for tile in tiles])))
            for readout, tiles in reads.items()
        }
    truth = [known_truth(root, tile) for tile in info.tiles]
    cycles = info.reads[0].cycles
    return {
        readout: against_truth(
            agreement(pooled([match(known, called, cycles=cycles) for known, called in zip(truth, tiles, strict=True)]))
        )
        for readout, tiles in reads.items()
    }


def _has_truth(root: Path) -> bool:
    return (root / TRUTH).exists() or (root / LABELS).exists()
