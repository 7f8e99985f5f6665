"""Everything that is written from committed calls, during a run and again at any later time."""
