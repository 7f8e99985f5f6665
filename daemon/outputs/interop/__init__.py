"""InterOp files: the figures of a run as Illumina's viewers and libraries read them."""
