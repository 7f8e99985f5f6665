"""Where the files of an Illumina run folder lie."""

from pathlib import Path

from calib.runfolder import TileId


def intensities(root: Path) -> Path:
    """Folder of positions."""
    return root / "Data" / "Intensities"


def lane_folder(root: Path, lane: int) -> Path:
    """Folder of a lane's base calls."""
    return intensities(root) / "BaseCalls" / f"L{lane:03d}"


def cycle_folder(root: Path, lane: int, cycle: int) -> Path:
    """Folder of a lane's base calls in a 1-based cycle."""
    return lane_folder(root, lane) / f"C{cycle}.1"


def bcl_path(root: Path, tile: TileId, cycle: int, ending: str) -> Path:
    """Base calls of a tile in a 1-based cycle; ``bcl`` or ``bcl.gz``."""
    return cycle_folder(root, tile.lane, cycle) / f"s_{tile}.{ending}"


def filter_path(root: Path, tile: TileId) -> Path:
    """Which clusters of a tile pass the filter."""
    return lane_folder(root, tile.lane) / f"s_{tile}.filter"


def locs_path(root: Path, tile: TileId) -> Path:
    """Positions of a tile's clusters."""
    return intensities(root) / f"L{tile.lane:03d}" / f"s_{tile}.locs"


def shared_locs_path(root: Path) -> Path:
    """Positions of every tile's clusters."""
    return intensities(root) / "s.locs"
