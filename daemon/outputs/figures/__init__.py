"""Figures of a run, from its ledger and its calls."""
