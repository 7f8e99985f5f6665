from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from pydantic import ValidationError
from seqd_client.runinfo import Read, RunInfo, TileId

from calib.runfolder.images import RUN_INFO, RunFolderError, image_path, read_image, read_run_info, run_info_xml


def run_info(**changes):
    facts = {
        "run": "240101_M1_0007_FC1",
        "number": 7,
        "flowcell": "FC1",
        "instrument": "M1",
        "date": "2024-01-01",
        "reads": (Read(number=1, cycles=30), Read(number=2, cycles=8, index=True), Read(number=3, cycles=30)),
        "tiles": (TileId(lane=1, tile=1101), TileId(lane=1, tile=1102), TileId(lane=2, tile=1101)),
        "height": 512,
        "width": 640,
    }
    return RunInfo(**facts | changes)


def edited(root, edit):
    """Write a good RunInfo.xml, then change its tree."""
    (root / RUN_INFO).write_bytes(run_info_xml(run_info()))
    tree = ElementTree.parse(root / RUN_INFO)
    edit(tree.getroot())
    tree.write(root / RUN_INFO)


def remove_dimensions(document):
    run = document.find("Run")
    run.remove(run.find("ImageDimensions"))


def write_frame(root, cycle=1, shape=(48, 56)):
    path = image_path(root, TileId(lane=1, tile=1101), cycle, "A")
    path.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(path, np.zeros(shape, np.uint16))
    return path


@pytest.mark.parametrize("changes", [{}, {"date": ""}, {"number": 0}, {"reads": (Read(number=1, cycles=1),)}])
def test_run_info_reads_back_as_written(tmp_path, changes):
    (tmp_path / RUN_INFO).write_bytes(run_info_xml(run_info(**changes)))
    assert read_run_info(tmp_path) == run_info(**changes)


def test_cycles_of_a_read_follow_the_reads_before_it():
    info = run_info()
    assert info.cycles == 68
    assert [info.cycles_of(read) for read in info.reads] == [range(1, 31), range(31, 39), range(39, 69)]


@pytest.mark.parametrize("name", ["../elsewhere", "..", ".hidden", "a/b", "a\\b", "/etc", "", "a b", "a\n", "x" * 129])
def test_names_unsafe_as_file_names_are_refused(tmp_path, name):
    with pytest.raises(ValidationError):
        run_info(run=name)
    edited(tmp_path, lambda document: document.find("Run").set("Id", name))
    with pytest.raises(RunFolderError, match=r"RunInfo\.xml: run: "):
        read_run_info(tmp_path)


def test_missing_run_info_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"cannot read RunInfo\.xml: No such file"):
        read_run_info(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "no XML", "<RunInfo><Run>", '<?xml version="1.0" encoding="shift_jis"?><RunInfo/>']
)
def test_run_info_that_is_not_xml_is_refused(tmp_path, text):
    (tmp_path / RUN_INFO).write_text(text)
    with pytest.raises(RunFolderError, match="not XML"):
        read_run_info(tmp_path)


def test_missing_run_element_is_named(tmp_path):
    (tmp_path / RUN_INFO).write_text("<RunInfo><Walk/></RunInfo>")
    with pytest.raises(RunFolderError, match="<Run> is missing in <RunInfo>"):
        read_run_info(tmp_path)


def test_tile_listed_twice_is_refused(tmp_path):
    def duplicate(document):
        tiles = document.find("Run/FlowcellLayout/TileSet/Tiles")
        ElementTree.SubElement(tiles, "Tile").text = "1_1102"

    edited(tmp_path, duplicate)
    with pytest.raises(RunFolderError, match="a tile is listed twice"):
        read_run_info(tmp_path)


def test_read_number_used_twice_is_refused():
    with pytest.raises(ValidationError, match="a read number is used twice"):
        run_info(reads=(Read(number=1, cycles=3), Read(number=1, cycles=4)))


@pytest.mark.parametrize("text", ["1101", "1-1101", "one_1101", "1_", "1_11_01", "", "²_1101"])
def test_tile_that_is_not_lane_and_tile_is_refused(tmp_path, text):
    edited(tmp_path, lambda document: setattr(document.find(".//Tile"), "text", text))
    with pytest.raises(RunFolderError, match=r"RunInfo\.xml: "):
        read_run_info(tmp_path)


@pytest.mark.parametrize(
    ("place", "attribute", "value"),
    [("Run", "Number", "seven"), ("Run/Reads/Read", "NumCycles", "0"), ("Run/ImageDimensions", "Width", "4")],
)
def test_numbers_out_of_range_are_refused(tmp_path, place, attribute, value):
    edited(tmp_path, lambda document: document.find(place).set(attribute, value))
    with pytest.raises(RunFolderError, match=r"RunInfo\.xml: "):
        read_run_info(tmp_path)


def test_size_is_that_of_the_first_image_when_it_is_not_declared(tmp_path):
    edited(tmp_path, remove_dimensions)
    write_frame(tmp_path)
    info = read_run_info(tmp_path)
    assert (info.height, info.width) == (48, 56)


def test_size_neither_declared_nor_shown_is_an_error(tmp_path):
    edited(tmp_path, remove_dimensions)
    write_frame(tmp_path, cycle=2)
    with pytest.raises(RunFolderError, match="<ImageDimensions> is missing and there are no images of cycle 1"):
        read_run_info(tmp_path)


def test_image_path_is_as_documented(tmp_path):
    path = image_path(tmp_path, TileId(lane=2, tile=1101), 17, "G")
    assert path.relative_to(tmp_path).as_posix() == "Images/L002/C17.1/s_2_1101_G.tif"


def test_image_reads_back_as_written(tmp_path):
    image = np.random.default_rng(1).integers(0, 65536, (20, 30), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", image)
    found = read_image(tmp_path / "a.tif")
    assert found.dtype == np.uint16
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (np.zeros((20, 30), np.uint8), "2-dimensional uint8"),
        (np.zeros((20, 30), np.float32), "2-dimensional float32"),
        (np.zeros((2, 20, 30), np.uint16), "3-dimensional uint16"),
    ],
)
def test_image_that_is_no_frame_is_refused(tmp_path, image, what):
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    with pytest.raises(RunFolderError, match=f"{what}, a frame is 2-dimensional uint16"):
        read_image(tmp_path / "a.tif")


def test_missing_image_is_named(tmp_path):
    with pytest.raises(RunFolderError, match=r"a\.tif: No such file"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kept", [0, 1, 4, 8, 20, 100, 300, 2000])
def test_image_cut_short_is_refused(tmp_path, kept):
    whole = write_frame(tmp_path).read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[:kept])
    with pytest.raises(RunFolderError, match=r"a\.tif: "):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("tag", [257, 258, 273, 278])
def test_image_with_a_damaged_tag_is_refused(tmp_path, tag):
    image = bytearray(write_frame(tmp_path).read_bytes())
    entry = image.index(tag.to_bytes(2, "little"), 8)
    image[entry + 4 : entry + 12] = b"\0" * 8
    (tmp_path / "a.tif").write_bytes(image)
    with pytest.raises(RunFolderError, match=r"a\.tif: "):
        read_image(tmp_path / "a.tif")
