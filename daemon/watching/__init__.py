"""Status, watchdog and logs: the information that operators and systemd get about the daemon."""
