"""Reads as files: FASTQ, BAM and CRAM."""
