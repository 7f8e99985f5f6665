"""Holding the files of a run against its ledger."""

from daemon.verification.findings import Difference, Verification
from daemon.verification.runverification import verify_run

__all__ = ["Difference", "Verification", "verify_run"]
