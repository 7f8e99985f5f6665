"""The chaos campaign: hundreds of disturbed runs of real daemons, each held against the undisturbed run.

``python -m tests.chaos --help``; `docs/explanation/durability.md` says what is disturbed and what is checked.
"""
