"""``python -m daemon.cli`` is ``seqd``."""

from daemon.cli.app import main

main()
