"""Verification of a run: its files are compared with its ledger, and the files of its sinks with its calls."""

from daemon.verification.findings import Difference, Verification
from daemon.verification.runverification import verify_run

__all__ = ["Difference", "Verification", "verify_run"]
