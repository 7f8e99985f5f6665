"""The outputs that a run's configuration asks for: threads write them during the run, and an export at any time."""
