"""What a run was made with, as it is written beside its calls and into the headers of its files."""

import hashlib
import json
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict

from daemon.record.ledgerreader import LedgerReader


class Provenance(BaseModel):
    """Software, model, calibration, configuration and engines of a run; hashes are SHA-256, hexadecimal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    software: str
    """Name and version of what took the run up last."""
    model: str
    """Of the bundle's files: network, weights, quality tables."""
    calibration: str
    """Of what decides about the calls beside the model: readout, template cycles, filter, binning of scores."""
    configuration: str
    """Of the configuration that the run was taken up with last."""
    engine: str
    """Backend, software and precision of the engine in use last."""
    precision: str
    engines: tuple[dict[str, object], ...]
    """Every one that called a cycle, in their order, with the reason why it took over."""
    starts: tuple[dict[str, object], ...]
    """Every time that a daemon took the run up."""

    @property
    def hashes(self) -> dict[str, str]:
        """What goes into the headers of files."""
        return {
            name: getattr(self, name)
            for name in ("software", "model", "calibration", "configuration", "engine", "precision")
        }


NOT_CALIBRATION = frozenset({"schema", "info", "model", "threads", "sinks"})
"""Facts of a run that do not say how images become calls."""


def provenance_of(ledger: LedgerReader) -> Provenance:
    """What a ledger says of how its run was made.

    Raises
    ------
    OutputError : the ledger cannot be read, or is none.
    """
    facts, last_ns = ledger.facts(), ledger.last_committed_ns()
    # What took a finished run up once more committed nothing of it.
    engines = [use for use in ledger.engines() if last_ns is None or use.since_ns <= last_ns]
    starts = [start for start in ledger.starts() if last_ns is None or start.began_ns <= last_ns]
    calibration = {key: value for key, value in facts.items() if key not in NOT_CALIBRATION}
    used = engines[-1].facts if engines else {}
    return Provenance(
        software=f"seqd {starts[-1].seqd}" if starts else "seqd",
        model=str(facts.get("model", "")),
        calibration=hashlib.sha256(json.dumps(calibration, sort_keys=True).encode()).hexdigest(),
        configuration=starts[-1].configuration if starts else "",
        engine=f"{used.get('backend', 'none')} ({used.get('software', '')})",
        precision=str(used.get("precision", "")),
        engines=tuple(asdict(use) for use in engines),
        starts=tuple(asdict(start) for start in starts),
    )
