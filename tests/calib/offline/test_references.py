import gzip

import numpy as np
import pytest

from calib.fasta import FastaError, Sequence, read_fasta, reverse_complement, write_fasta
from calib.offline.codebook import CodebookError, read_codebook


def test_fasta_reads_back_what_is_written(tmp_path):
    bases = np.random.default_rng(1).integers(0, 5, 205).astype(np.uint8)
    reference = (Sequence("one", bases), Sequence("other", np.array([0, 4, 3], np.uint8)))
    path = tmp_path / "r.fasta"
    write_fasta(path, reference)
    packed = tmp_path / "r.fasta.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    for again in (read_fasta(path), read_fasta(packed)):
        assert [sequence.name for sequence in again] == ["one", "other"]
        for before, after in zip(reference, again, strict=True):
            np.testing.assert_array_equal(before.bases, after.bases)


def test_fasta_in_any_case_with_a_description_and_windows_line_ends(tmp_path):
    path = tmp_path / "r.fasta"
    path.write_bytes(b">x phage, whole\r\nacgtRn\r\nAC\r\n>\r\nT")
    first, second = read_fasta(path)
    assert (first.name, first.bases.tolist()) == ("x", [0, 1, 2, 3, 4, 4, 0, 1])
    assert (second.name, second.bases.tolist()) == ("", [3])


def test_the_other_strand_reads_backwards_in_complements():
    assert reverse_complement(np.array([[0, 1, 4, 3]], np.uint8)).tolist() == [[0, 4, 2, 3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ACGT\n", "not FASTA, or empty; a sequence starts with a line '>name'"),
        (b"", "not FASTA, or empty; a sequence starts with a line '>name'"),
        (b">empty\n>x\nA", "sequence 'empty' is empty or has letters that are no nucleotides"),
        (b">protein of it\nMSNIQ", "sequence 'protein' is empty or has letters that are no nucleotides"),
        (b">a\nACGT\n>a again\nAAAA\n", "sequence 'a' occurs 2 times"),
        (b">x\n\xff", "not FASTA: byte 3 is not ASCII"),
        (gzip.compress(b">x\nA", mtime=0)[:-9], "Compressed file ended before the end-of-stream marker was reached"),
        (None, "No such file or directory"),
    ],
)
def test_a_reference_that_cannot_be_used_is_refused(tmp_path, content, message):
    path = tmp_path / "r.fasta"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FastaError) as error:
        read_fasta(path)
    assert str(error.value) == f"reference {path}: {message}"


def test_codes_come_once_in_the_order_of_the_file(tmp_path):
    path = tmp_path / "codebook.csv"
    path.write_text("name,code\nx,TTGC\ny, ACGT\nz,TTGC\n")
    assert [bytes(code) for code in read_codebook(path)] == [b"TTGC", b"ACGT"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "No such file or directory"),
        (b"", "no column `code`"),
        (b"name,barcode\nx,ACGT\n", "no column `code`"),
        (b"name,code\n", "no codes"),
        (b"name,code\nx\n", "the first code is empty"),
        (b"name,code\nx,ACGT\ny\n", "code '', 4 letters of ACGT are expected"),
        (b"name,code\nx,ACGT\ny,ACG\n", "code 'ACG', 4 letters of ACGT are expected"),
        (b"name,code\nx,ACGX\n", "code 'ACGX', 4 letters of ACGT are expected"),
        (b"code\n\xff\n", "'utf-8' codec can't decode byte 0xff in position 5: invalid start byte"),
    ],
)
def test_a_codebook_that_cannot_be_used_is_refused(tmp_path, content, message):
    path = tmp_path / "codebook.csv"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CodebookError) as error:
        read_codebook(path)
    assert str(error.value) == f"codebook {path}: {message}"
