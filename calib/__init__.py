"""What is known about the instrument, and how it is learnt."""
