"""The provenance of a run: its software, model and settings, as written beside its calls and into file headers."""

import hashlib
import json
from dataclasses import asdict

from pydantic import BaseModel, ConfigDict

from daemon.record.ledgerreader import LedgerReader


class Provenance(BaseModel):
    """Software, model, calibration, configuration and engines of a run; hashes are SHA-256, hexadecimal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    software: str
    """Name and version of the daemon that wrote the newest cycle."""
    model: str
    """Hash of the bundle's files: network, weights, quality tables."""
    calibration: str
    """Hash of the other facts that decide the calls: readout, template cycles, filter, binning of scores."""
    configuration: str
    """Hash of the configuration of the daemon that wrote the newest cycle."""
    engine: str
    """Backend, software and precision of the engine that read the newest cycle."""
    precision: str
    engines: tuple[dict[str, object], ...]
    """Every engine that read cycles, in their order, with the reason why it replaced the one before."""
    starts: tuple[dict[str, object], ...]
    """Every start of a daemon on the run."""

    @property
    def hashes(self) -> dict[str, str]:
        """The entries that are written into the headers of files."""
        return self.model_dump(exclude={"engines", "starts"})


NOT_CALIBRATION = frozenset({"schema", "info", "model", "threads", "sinks"})
"""Facts of a run that the hash of the calibration leaves out."""


def provenance_of(ledger: LedgerReader) -> Provenance:
    """The provenance that a ledger records.

    Raises
    ------
    OutputError : the ledger cannot be read.
    """
    facts, last_ns = ledger.facts(), ledger.last_committed_ns()
    # A daemon that was started on a finished run commits nothing of it, so its start does not count.
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
