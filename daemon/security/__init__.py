"""Who may reach the daemon from another machine: CURVE keys, who is let in, and who was shut out."""
