"""What operators, systemd and logs are told."""
