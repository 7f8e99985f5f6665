"""Labelling one tile: classical calls, corrected to a reference."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from seqd_client.runinfo import RunInfo, TileId

from calib.offline.classical_caller.calltile import ClassicalCalls, call_folder
from calib.offline.labels.labelfiles import TileSummary, write_labels
from calib.offline.labels.sequencematch import (
    MAX_CHANCE,
    NO_CALL,
    Match,
    Outcome,
    Reference,
    allowed_distance,
    chance,
)

SEED = 1

SHIFT_DECIMALS = 3
"""Positions and shifts are stored with this number of decimals, which is finer than the registration."""


@dataclass(frozen=True)
class LabelledTile:
    """Clusters of a tile as they were called and matched."""

    calls: ClassicalCalls
    called: tuple[str, ...]
    """One read per cluster; ``N`` is a no-call."""
    matches: tuple[Match, ...]
    """One per cluster."""
    summary: TileSummary


def label_tile(
    root: Path, info: RunInfo, tile: TileId, reference: Reference, *, distance: int | None = None
) -> LabelledTile:
    """Label a tile of a run folder and write the files beside its images.

    Parameters
    ----------
    distance : largest number of wrong called bases of a read; by default it is computed by :func:`allowed_distance`.

    Raises
    ------
    RunFolderError : a frame is missing or not as documented.
    """
    calls = call_folder(root, tile)
    called = reads(calls)
    matches = match_reads(called, calls.passed, reference, distance=distance)
    shuffled = match_reads(_shuffled(called), calls.passed, reference, distance=distance)
    summary = _summary(calls, called, matches, shuffled)
    kept, removed = [], []
    for (y, x), read, match in zip(calls.positions.tolist(), called, matches, strict=True):
        if match.corrected is None:
            removed.append((y, x, read))
        else:
            kept.append((y, x, read, match.corrected))
    write_labels(root, tile, summary, kept=kept, removed=removed, shape=(info.height, info.width))
    return LabelledTile(calls, called, matches, summary)


def reads(calls: ClassicalCalls) -> tuple[str, ...]:
    """One read per cluster; ``N`` is a no-call."""
    letters = np.where(calls.qualities > 0, np.frombuffer(b"ACGT", np.uint8)[calls.bases], ord(NO_CALL))
    return tuple(bytes(row).decode() for row in letters.astype(np.uint8))


def match_reads(
    called: tuple[str, ...], passed: NDArray[np.bool_], reference: Reference, *, distance: int | None = None
) -> tuple[Match, ...]:
    """Compare every read with a reference.

    If random reads match too often, as with the few bases of a codebook, a match proves little, and
    only clusters that pass the chastity filter are kept.

    Parameters
    ----------
    called : n reads.
    passed : (n,) from the chastity filter.
    distance : largest number of wrong called bases of a read; by default it is computed by :func:`allowed_distance`.
    """
    matches = []
    for read, pure in zip(called, passed, strict=True):
        length, places = len(read) - read.count(NO_CALL), reference.places(len(read))
        most = allowed_distance(length=length, places=places) if distance is None else distance
        proven = pure or chance(length=length, places=places, distance=most) <= MAX_CHANCE
        found = reference.match(read, distance=most) if length > most else Match(Outcome.UNALIGNED)
        matches.append(Match(Outcome.UNPROVEN) if found.corrected and not proven else found)
    return tuple(matches)


def _shuffled(called: tuple[str, ...]) -> tuple[str, ...]:
    rng = np.random.default_rng(SEED)
    return tuple("".join(rng.permutation(list(read))) for read in called)


def _summary(
    calls: ClassicalCalls, called: tuple[str, ...], matches: tuple[Match, ...], shuffled: tuple[Match, ...]
) -> TileSummary:
    cycles = calls.bases.shape[1]
    corrected = [0] * cycles
    for read, match in zip(called, matches, strict=True):
        for cycle, (base, true) in enumerate(zip(read, match.corrected or read, strict=True)):
            corrected[cycle] += base not in (true, NO_CALL)
    outcomes = Counter(match.outcome for match in matches)
    aligned = outcomes.pop(Outcome.ALIGNED, 0)
    number = max(1, len(called))
    return TileSummary.model_validate(
        {
            "drift_px": [None if np.isnan(drift[0]) else _rounded(drift) for drift in calls.geometry.drift_px],
            "channel_shift_px": [_rounded(shift) for shift in calls.geometry.channel_shift_px],
            "offset": calls.normalisation.offset.tolist(),
            "gain": calls.normalisation.gain.tolist(),
            "clusters": len(called),
            "aligned_share": aligned / number,
            "shuffled_share": sum(match.corrected is not None for match in shuffled) / number,
            "removed": outcomes,
            "corrected_bases": sum(corrected),
            "corrected_by_cycle": corrected,
        }
    )


def _rounded(shift: NDArray[np.float32]) -> tuple[float, ...]:
    return tuple(round(float(part), SHIFT_DECIMALS) + 0.0 for part in shift)
