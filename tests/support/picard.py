"""Picard, the reference reader of Illumina run folders, as a subprocess."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path


def picard(tool: str, **options: object) -> str:
    """Run a tool of Picard; what it said on standard error."""
    command = shutil.which("PicardCommandLine")
    assert command, "PicardCommandLine is missing: apt-get install picard-tools libcommons-lang-java libgkl-jni"
    arguments = [f"{name}={value}" for name, value in options.items()]
    done = subprocess.run([command, tool, *arguments], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, f"{tool} {' '.join(arguments)}: {done.stderr[-3000:]}"
    return done.stderr


def fastq_records(text: str) -> Iterator[tuple[str, str, str]]:
    """Name without ``@``, bases and scores of each record."""
    lines = text.splitlines()
    assert len(lines) % 4 == 0
    for name, bases, plus, scores in zip(*[iter(lines)] * 4, strict=True):
        assert name.startswith("@")
        assert plus == "+"
        yield name[1:], bases, scores


def base_calls(root: Path) -> Path:
    """``BASECALLS_DIR`` of a run folder."""
    return root / "Data" / "Intensities" / "BaseCalls"
