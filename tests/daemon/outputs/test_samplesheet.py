import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.outputs.samples.barcodes import Demultiplexer
from daemon.outputs.samples.samples import BclConvert, Picard, Sample, SampleError
from daemon.outputs.samples.samplesheet import MAX_BARCODES, MAX_BYTES, read_samples
from tests.support.writtenrun import run_info

DUAL = run_info("151T8B8B151T", lanes=2)

SHEET = """[Header],,,
FileFormatVersion,2,,
RunName,any,,

[Reads],,,
Read1Cycles,151,,
[BCLConvert_Settings],,,
SoftwareVersion,4.2.7,,
BarcodeMismatchesIndex2,0,,
[BCLConvert_Data],,,
Lane,Sample_ID,index,index2,Sample_Project
1,alpha,ACGTACGT,TTGGCCAA,one
1,beta,GATTACAG,CATGCATG,
2,alpha,GATTACAG,CATGCATG,one
[Cloud_Settings],,,
GeneratedVersion,1.0,,
"""

WHITELIST = "name\tbarcode\tbarcode2\nalpha\tACGTAC\tTTGGCCAA\nbeta\tGATTAC\tCATGCATG\n"


@pytest.fixture
def declare(tmp_path):
    def write(text):
        path = tmp_path / "samples.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize(
    "text",
    [SHEET, SHEET.replace("\n", "\r\n"), "\ufeff" + SHEET, SHEET.replace("index", "Index"), SHEET + "\n,,,\n"],
    ids=["as it is", "CRLF", "byte order mark", "other case", "empty lines"],
)
def test_a_sample_sheet_is_read_with_its_settings(declare, text):
    declared = read_samples(declare(text), DUAL)

    assert declared.samples == (
        Sample(name="alpha", barcodes=("ACGTACGT", "TTGGCCAA"), lane=1, project="one"),
        Sample(name="beta", barcodes=("GATTACAG", "CATGCATG"), lane=1),
        Sample(name="alpha", barcodes=("GATTACAG", "CATGCATG"), lane=2, project="one"),
    )
    assert declared.rule == BclConvert(index1=1, index2=0)
    assert declared.names == ("alpha", "beta")
    assert Demultiplexer(declared, DUAL).names == declared.names


def test_a_sheet_without_lanes_is_of_every_lane(declare):
    text = SHEET.replace("Lane,", "").replace("\n1,", "\n").replace("2,alpha,GATTACAG,CATGCATG,one\n", "")
    declared = read_samples(declare(text), DUAL)
    assert [sample.lane for sample in declared.samples] == [None, None]
    assert len(Demultiplexer(declared, DUAL).lanes[2].declared) == 2


@pytest.mark.parametrize("text", [WHITELIST, WHITELIST.replace("\t", ","), WHITELIST.replace("name", "Name")])
def test_a_list_of_barcodes_brings_picards_rule(declare, text):
    declared = read_samples(declare(text), DUAL)

    assert declared.samples == (
        Sample(name="alpha", barcodes=("ACGTAC", "TTGGCCAA")),
        Sample(name="beta", barcodes=("GATTAC", "CATGCATG")),
    )
    assert declared.rule == Picard(max_mismatches=1, min_mismatch_delta=1, max_no_calls=2, minimum_base_quality=0)


def test_a_list_may_have_one_barcode_only(declare):
    declared = read_samples(declare("name,barcode\nalpha,ACGTAC\n"), DUAL)
    assert declared.samples == (Sample(name="alpha", barcodes=("ACGTAC", "")),)


def test_second_barcodes_are_turned_round_on_request_only(declare):
    path = declare("name,barcode,barcode2\nalpha,ACGTACGG,AACGTTTG\n")
    turned = read_samples(path, DUAL, reverse_complement_index2=True)
    assert turned.samples[0].barcodes == ("ACGTACGG", "CAAACGTT")
    assert read_samples(path, DUAL).samples[0].barcodes == ("ACGTACGG", "AACGTTTG")


@pytest.mark.parametrize(
    ("reads", "override", "barcodes"),
    [
        ("151T8B8B151T", "Y151;I8;I8;Y151", "ACGTACGT,TTGGCCAA"),
        ("151T10B10B151T", "Y151;I8N2;I8N2;Y151", "ACGTACGT,TTGGCCAA"),
        ("151T8B8B", "Y151;I8;N8", "ACGTACGT,"),
        ("151T8B8B", "Y151;I8;I6N2", "ACGTACGT,TTGGCC"),
    ],
)
def test_override_cycles_that_say_what_is_done_are_taken(declare, reads, override, barcodes):
    declared = read_samples(declare(overriding(override, barcodes)), run_info(reads))
    assert declared.samples[0].barcodes == tuple(barcodes.split(","))


@pytest.mark.parametrize(
    ("override", "allowed"),
    [
        ("Y150N1;I8;I8;Y151", "with barcodes of 8+8 bases it has to be Y151;I8N0;I8N0;Y151 in this run"),
        ("Y151;U8;I8;Y151", "it has to be Y151;I8N0;I8N0;Y151"),
        ("Y151;I8;I8", "OverrideCycles Y151;I8;I8 is not supported"),
        ("Y151;I6N2;I8;Y151", "OverrideCycles Y151;I6N2;I8;Y151 is not supported"),
        ("Y*;I8;I8;Y*", "is not supported"),
    ],
)
def test_other_override_cycles_are_refused(declare, override, allowed):
    with pytest.raises(SampleError, match=r"sample sheet .*samples.csv: OverrideCycles") as refused:
        read_samples(declare(overriding(override, "ACGTACGT,TTGGCCAA")), DUAL)
    assert allowed in str(refused.value)


def overriding(override, barcodes):
    return (
        f"[Header]\nFileFormatVersion,2\n[BCLConvert_Settings]\nOverrideCycles,{override}\n"
        f"[BCLConvert_Data]\nSample_ID,Index,Index2\nalpha,{barcodes}\n"
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "the file is empty"),
        ("\n,,,\n", "the file is empty"),
        (b"name,barcode\n\xff\xfe,ACGT\n", "byte 13 is not UTF-8"),
        (b"name,barcode\n" + b"a" * MAX_BYTES, f"more than the {MAX_BYTES} bytes that are allowed"),
        ('name,barcode\n"alpha,ACGT\n', "not comma-separated: unexpected end of data"),
        (f"name,barcode\n{'a' * 501},ACGT\n", "a cell of 501 letters, at most 500 are allowed"),
        ("name,barcode\n", f"0 barcodes, allowed are 1 to {MAX_BARCODES}"),
        (
            "name,barcode\n" + "".join(f"s{number},ACGT\n" for number in range(MAX_BARCODES + 1)),
            f"{MAX_BARCODES + 1} barcodes, allowed are 1 to {MAX_BARCODES}",
        ),
        ("alpha,ACGT\n", "column 'alpha'; allowed are name, barcode, barcode2, each once"),
        ("name,barcode,barcode\nalpha,ACGT,ACGT\n", "column 'barcode'; allowed are name, barcode, barcode2, each once"),
        ("name,barcode2\nalpha,ACGT\n", "there is no column 'barcode'; the columns are name, barcode2"),
        ("name,barcode\nalpha,ACGT,TTGG\n", "row 'alpha,ACGT,TTGG' has more cells than the 2 columns"),
        ("name,barcode\nalpha\n", "sample 'alpha' has no barcode"),
        ("name,barcode\nalpha,ACGN\n", "sample 'alpha': barcode 'ACGN'; allowed are A, C, G and T"),
        ("name,barcode\nalpha,acgt\n", "sample 'alpha': barcode 'acgt'; allowed are A, C, G and T"),
        ("name,barcode\n../alpha,ACGT\n", "sample '../alpha': name '../alpha': String should match pattern"),
        ("name,barcode\n,ACGT\n", "sample '': name '': String should match pattern"),
        ("name,barcode\nUndetermined,ACGT\n", "sample 'Undetermined': the name is reserved, as are all, default"),
        (f"name,barcode\nalpha,{'A' * 65}\n", "sample 'alpha': barcodes 'AAAA"),
        (
            SHEET.replace("FileFormatVersion,2", "IEMFileVersion,4"),
            "[Header] has no FileFormatVersion,2; only version 2 can be read",
        ),
        ("[Data]\nSample_ID,index\nalpha,ACGT\n", "[Header] has no FileFormatVersion,2; only version 2 can be read"),
        (SHEET.replace("[BCLConvert_Data]", "[Other]"), "there is no section [BCLConvert_Data]"),
        ("[Header]\nFileFormatVersion,2\n[BCLConvert_Data]\n", "there is no column 'sample_id'; the columns are "),
        (
            SHEET.replace("SoftwareVersion", "AdapterRead1"),
            "setting AdapterRead1 is not supported; allowed are Barcode",
        ),
        (SHEET.replace("Index2,0", "Index2,3"), "BarcodeMismatchesIndex2 '3', allowed are 0, 1 and 2"),
        (
            SHEET.replace("Sample_Project", "OverrideCycles"),
            "column 'overridecycles'; allowed are lane, sample_id, index",
        ),
        (SHEET.replace("\n1,beta", "\nx,beta"), "sample 'beta': lane 'x': Input should be a valid integer"),
        (SHEET.replace("\n1,beta", "\n0,beta"), "sample 'beta': lane '0': Input should be greater than or equal to 1"),
    ],
)
def test_what_is_no_declaration_is_refused_in_a_line(declare, text, says):
    path = declare(text)
    with pytest.raises(SampleError) as refused:
        read_samples(path, DUAL)
    assert str(path) in str(refused.value)
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(SampleError, match=r"none\.csv: No such file"):
        read_samples(tmp_path / "none.csv", DUAL)


PIECES = [
    "[Header]",
    "FileFormatVersion,2",
    "[BCLConvert_Settings]",
    "OverrideCycles,Y151;I8;I8;Y151",
    "[BCLConvert_Data]",
]
PIECES += [
    "Lane,Sample_ID,Index,Index2",
    "1,alpha,ACGTACGT,TTGGCCAA",
    "name,barcode",
    "alpha,ACGT",
    ",",
    '"',
    "[",
    "\t",
    "\0",
]
LINES = st.lists(st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=3).map("".join), max_size=12)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LINES.map("\n".join).map(str.encode) | st.binary(max_size=60))
def test_whatever_a_file_holds_it_is_read_or_refused_in_a_line(declare, content):
    refusal = ""
    try:
        assert read_samples(declare(content), DUAL).samples
    except SampleError as refused:
        refusal = str(refused)
    assert "\n" not in refusal
