"""The outputs of a run as sinks: written during the run by threads of their own, and exported again at any time."""
