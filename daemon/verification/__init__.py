"""Holding the files of a run against its ledger."""

from daemon.verification.verification import Difference, Verification
from daemon.verification.verify import verify_run

__all__ = ["Difference", "Verification", "verify_run"]
