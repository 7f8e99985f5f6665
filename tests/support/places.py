"""Where the files lie that several tests read."""

from pathlib import Path

from seqd_client.wire import codec

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
CROP = ROOT / "tests" / "data" / "iss_mouse_brain_crop"
"""A run folder of real images."""
GOLDEN = Path(codec.__file__).with_name("golden")
"""Golden messages of the wire."""
