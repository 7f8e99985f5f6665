"""Bounds of how much worse the calls may become by quantisation, and their check."""

from dataclasses import dataclass

from seqd_client.errors import SeqdError

from calib.offline.evaluation.agreement import Agreement
from calib.offline.evaluation.clustermatch import share
from calib.offline.evaluation.oncodebook import CodebookAgreement
from engines.bundles.bundle import Readout

FEWER_RIGHT = 0.005
"""Largest loss of clusters read right, as a share of the true clusters (or of hits, as a share of the reads)."""

MORE_ERRORS = 0.001
"""Errors per base may rise by this at most."""


BOUND_READOUT = Readout.FUSED
"""The readout to which the bounds apply: the default one."""


class QuantisationError(SeqdError):
    """The calls with the network in INT8 are too bad to keep it."""

    exit_code = 4


@dataclass(frozen=True)
class RunMeasures:
    """Measures of the calls of one run."""

    reads: int
    right: float
    """Number of true clusters that are found and read right, or of reads that are a code."""
    total: int
    """Number of all true clusters, or of all reads."""
    errors: float
    """Error rate: wrong bases and no-calls divided by the bases of the clusters found, or mismatches to the nearest
    codes divided by the bases of all reads."""


@dataclass(frozen=True)
class Compared:
    """One run, read with the network in FP32 and in INT8, by one readout."""

    run: str
    readout: Readout
    before: RunMeasures
    """In FP32."""
    after: RunMeasures
    """In INT8."""

    @property
    def fewer_right(self) -> float:
        """Clusters or reads that are right in FP32 only, as a share of all."""
        return share(self.before.right - self.after.right, self.before.total)

    @property
    def more_errors(self) -> float:
        """Rise of the errors per base."""
        return self.after.errors - self.before.errors


def against_truth(found: Agreement) -> RunMeasures:
    """Measures of reads whose true clusters are known."""
    return RunMeasures(found.reads, found.yielded * found.clusters, found.clusters, found.error_rate)


def against_codebook(found: CodebookAgreement) -> RunMeasures:
    """Measures of reads whose true sequences are codes of a codebook."""
    mismatches = sum(distance * reads for distance, reads in enumerate(found.distances))
    bases = found.reads * (len(found.distances) - 1)
    return RunMeasures(found.reads, found.hits, found.reads, share(mismatches, bases))


def check_bounds(compared: list[Compared]) -> None:
    """Check that :data:`BOUND_READOUT` loses no more than :data:`FEWER_RIGHT` and :data:`MORE_ERRORS` in any run.

    Raises
    ------
    QuantisationError : a bound is exceeded, or nothing was measured in a run.
    """
    for one in compared:
        if one.readout is not BOUND_READOUT:
            continue
        name = f"INT8: run {one.run}"
        # A value that was not measured is NaN, for which every comparison is false.
        if not one.fewer_right <= FEWER_RIGHT:
            raise QuantisationError(
                f"{name}: {one.fewer_right:.2%} fewer clusters are read right, at most {FEWER_RIGHT:.1%} is allowed; "
                "the bundle stays as it is"
            )
        if not one.more_errors <= MORE_ERRORS:
            raise QuantisationError(
                f"{name}: errors per base rise by {one.more_errors:.2%}, at most {MORE_ERRORS:.1%} is allowed; "
                "the bundle stays as it is"
            )
