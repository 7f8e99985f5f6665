"""The ``seqd`` command: a module for each subcommand, and ``daemon.cli.app``, where it starts."""
