"""The command line. ``daemon.cli.app`` is the entry point of the ``seqd`` command."""
