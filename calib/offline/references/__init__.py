"""Known sequences: FASTA files and codebooks."""
