"""The files of a run, and writing them so that a power cut loses nothing that was committed."""
