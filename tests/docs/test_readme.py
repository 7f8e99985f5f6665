"""The figures of the README: recorded in ``docs/benchmarks/figures.json``, and as the code gives them."""

import json
import re
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from calib.offline.codebook import read_codebook
from calib.offline.evaluation.callers import Reads, classical_reads, read_fastq
from calib.offline.evaluation.oncodebook import compare_with_codebook
from calib.runfolder.images import read_run_info
from engines.openvinolibrary import openvino

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "docs" / "benchmarks"
FIGURES = json.loads((BENCHMARKS / "figures.json").read_text("utf-8"))
README = (ROOT / "README.md").read_text("utf-8")
CROP = ROOT / "tests" / "data" / "iss_mouse_brain_crop"

recorded_precision = pytest.mark.skipif(
    "BF16" not in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"),
    reason="the figures are of a processor with BF16; others round otherwise",
)


def seqd(*arguments, folder):
    done = subprocess.run(
        [sys.executable, "-m", "daemon.cli", *map(str, arguments)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows_of(text, bar):
    """Cells of all rows of tables whose cells are parted by ``bar``."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith(bar)]
    return [[cell.strip() for cell in line.strip(bar).split(bar)] for line in lines]


def numbers_in(cells):
    return [float(number) for cell in cells for number in re.findall(r"\d+(?:\.\d+)?", cell)]


def section(title):
    (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", README, flags=re.MULTILINE | re.DOTALL)
    return text


def demo_rows(text):
    """Rows of the table of ``seqd calib evaluate``; `seqd call` prints a narrower one before it."""
    columns = len(FIGURES["demo"]["columns"])
    rows = [cells for cells in rows_of(text, "│") if re.fullmatch(r"\d+_\d+", cells[0]) and len(cells) == columns]
    return [[cells[0], *map(float, cells[1:])] for cells in rows]


@pytest.mark.timeout(900)
@recorded_precision
def test_demo_gives_the_recorded_figures(tmp_path):
    assert demo_rows(seqd(*FIGURES["demo"]["command"].split()[1:], folder=tmp_path)) == FIGURES["demo"]["tiles"]


@recorded_precision
def test_real_images_give_the_recorded_figures(tmp_path):
    seqd("call", CROP, "--output", tmp_path, folder=tmp_path)
    info = read_run_info(CROP)
    codes = read_codebook(CROP / "codebook.csv")
    called = {
        "classical": classical_reads(CROP, info, info.tiles[0]),
        "fused": read_fastq(tmp_path / info.run / "fastq" / f"s_{info.tiles[0]}_R1.fastq.gz"),
    }
    assert {name: found_on(codes, reads) for name, reads in called.items()} == FIGURES["mouse brain, crop"]["callers"]


def found_on(codes: np.ndarray, reads: Reads):
    found = compare_with_codebook(codes, reads.sequences)
    return {"reads": found.reads, "on the codebook": found.hits, "%": round(100 * found.share, 1)}


def test_speed_ratios_are_those_of_the_measurement():
    sizes = json.loads((BENCHMARKS / "cpu.json").read_text("utf-8"))["sizes"]
    for ratio in FIGURES["cpu"]["ratios"]:
        of_sizes = []
        for ways in sizes.values():
            slow, fast = (ways[ratio[side]]["seconds"] for side in ("slower", "faster"))
            of_sizes.append(round(statistics.median(a / b for a, b in zip(slow, fast, strict=True)), 1))
        assert sorted(of_sizes) == ratio["times as fast"]


def test_readme_shows_the_recorded_demo():
    assert demo_rows(README) == FIGURES["demo"]["tiles"]


def test_readme_shows_the_recorded_evaluation():
    recorded = [numbers_in(map(str, row["figures"])) for row in FIGURES["evaluation"]["conditions"]]
    _, _, *rows = rows_of(section("How good it is"), "|")
    assert len(rows) >= 6
    for row in rows:
        assert numbers_in(row[1:]) in recorded, f"{row}: not in {BENCHMARKS / 'figures.json'}"


def test_readme_shows_the_recorded_figures_of_real_images_and_speed():
    text = " ".join(section("How good it is").split())
    callers = FIGURES["mouse brain"]["callers"].values()
    shown = re.findall(r"(\d+) reads, of which (\d+) \(([\d.]+) %\)", text)
    assert len(shown) >= 2
    for reads, hits, percent in shown:
        assert {"reads": int(reads), "on the codebook": int(hits), "%": float(percent)} in callers
    ratios = [ratio["times as fast"] for ratio in FIGURES["cpu"]["ratios"]]
    ranges = re.findall(r"([\d.]+) to ([\d.]+) times", text)
    assert len(ranges) >= 2
    for low, high in ranges:
        assert [float(low), float(high)] in ratios
