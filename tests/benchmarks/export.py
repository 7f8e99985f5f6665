"""FASTQ and BAM of a run beside Picard's, of the same calls, in turn.

``python -m tests.benchmarks.export [--clusters N] [--cycles N] [--rounds N]`` prints medians and
ratios. Both sides are whole processes, files on the disk at their end. How long a program takes to start is measured on a run of few clusters and
taken off: what is left is for each cluster. Picard runs as fast as it goes on one thread: unsorted (``SORT=false``),
without the EAMSS filter, on plain ``.bcl`` files.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from daemon.outputs.sinks.folderexport import FolderKind, folder_files, write_files
from daemon.record.committed import open_run
from tests.support.writtenrun import run_info, write_run

FEW = 1000
PICARD = "PicardCommandLine"

EXPORT = """
import sys
from pathlib import Path
from daemon.outputs.reads.bam import export_bam
from daemon.outputs.reads.fastq import export_fastq
from daemon.record.committed import open_run
run, folder, form, threads = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
with open_run(run) as opened:
    common = {"threads": threads, "progress": lambda done, of: None}
    if form == "BAM":
        export_bam(opened, folder, provenance={}, **common)
    else:
        export_fastq(opened, folder, compress=form == "FASTQ, gzip", **common)
"""
FORMS = ("FASTQ", "FASTQ, gzip", "BAM")


@dataclass(frozen=True)
class Measured:
    """One process."""

    wall_s: float
    processor_s: float
    memory_mb: float
    """Most that it held at once."""


@dataclass(frozen=True)
class Way:
    """A program that makes files of a form of a run."""

    name: str
    form: str

    def command(self, root: Path, output: Path, cycles: int) -> list[str]:
        """Arguments of the process; ``root`` holds the run as seqd and as Picard reads it."""
        if self.name != "Picard":
            threads = self.name.removeprefix("seqd, ").split(" ")[0]
            return [sys.executable, "-c", EXPORT, str(root / "run"), str(output), self.form, threads]
        calls = root / "folder" / "Data" / "Intensities" / "BaseCalls"
        options = [f"BASECALLS_DIR={calls}", "LANE=1", f"READ_STRUCTURE={cycles}T", "RUN_BARCODE=42"]
        options += ["NUM_PROCESSORS=1", "SORT=false", "APPLY_EAMSS_FILTER=false", f"TMP_DIR={output}"]
        if self.form == "BAM":
            options += [f"OUTPUT={output}/reads.bam", "SAMPLE_ALIAS=s", "LIBRARY_NAME=l", "SEQUENCING_CENTER=c"]
            return [PICARD, "IlluminaBasecallsToSam", *options]
        options += ["READ_NAME_FORMAT=CASAVA_1_8", "MACHINE_NAME=SEQ1", "FLOWCELL_BARCODE=FC7"]
        options += [f"OUTPUT_PREFIX={output}/reads", f"COMPRESS_OUTPUTS={'gzip' in self.form}".lower()]
        return [PICARD, "IlluminaBasecallsToFastq", *options]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="FASTQ and BAM of a run beside Picard's.")
    parser.add_argument("--clusters", type=int, default=4_000_000, help="of the run's tile")
    parser.add_argument("--cycles", type=int, default=100, help="of its read")
    parser.add_argument("--rounds", type=int, default=3, help="of which the medians are taken")
    arguments = parser.parse_args()
    if shutil.which(PICARD) is None:
        parser.error(f"{PICARD} is missing: apt-get install picard-tools libcommons-lang-java libgkl-jni")
    ways = [Way(name, form) for form in FORMS for name in ("Picard", "seqd, 1 thread", "seqd, 2 threads")]
    with TemporaryDirectory(prefix="seqd-") as scratch:
        many, few = Path(scratch) / "many", Path(scratch) / "few"
        for root, clusters in ((many, arguments.clusters), (few, FEW)):
            _prepare(root, clusters, arguments.cycles)
        starts = {way: [_measured(way, few, arguments.cycles) for _ in range(arguments.rounds)] for way in ways}
        whole: dict[Way, list[Measured]] = {way: [] for way in ways}
        for _ in range(arguments.rounds):
            for way in ways:
                whole[way].append(_measured(way, many, arguments.cycles))
    _show(arguments.clusters, arguments.cycles, starts, whole)


def _prepare(root: Path, clusters: int, cycles: int) -> None:
    info = run_info(f"{cycles}T", tiles=(1101,))
    write_run(root / "run", info, clusters)
    with open_run(root / "run") as run:
        write_files(folder_files(run, root / "folder", FolderKind.BCL, None), written=lambda _: None)


def _measured(way: Way, root: Path, cycles: int) -> Measured:
    with TemporaryDirectory(prefix="out-", dir=root) as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            way.command(root, Path(output), cycles), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{way.name}, {way.form}: ended with {process.returncode}\n{said[-2000:]}")
    return Measured(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _show(clusters: int, cycles: int, starts: dict[Way, list[Measured]], whole: dict[Way, list[Measured]]) -> None:
    table = Table(
        *("form", "way", "s", "s to start", "clusters/s", "a processor s", "× Picard", "by processor s"),
        *("whole process", "memory, MB"),
        title=f"{clusters} clusters, {cycles} cycles",
    )
    for form in FORMS:
        theirs = Way("Picard", form)
        for way in (way for way in whole if way.form == form):
            each, each_of_picard = (_clusters_per_s(clusters, starts[one], whole[one]) for one in (way, theirs))
            table.add_row(
                form,
                way.name,
                f"{_median(whole[way]).wall_s:.2f}",
                f"{_median(starts[way]).wall_s:.2f}",
                f"{each.wall_s:.3g}",
                f"{each.processor_s:.3g}",
                f"{each.wall_s / each_of_picard.wall_s:.1f}",
                f"{each.processor_s / each_of_picard.processor_s:.1f}",
                f"{_median(whole[theirs]).wall_s / _median(whole[way]).wall_s:.1f}",
                f"{max(one.memory_mb for one in whole[way]):.0f}",
            )
    Console(width=160).print(table)


def _clusters_per_s(clusters: int, few: list[Measured], many: list[Measured]) -> Measured:
    """Clusters for each second beyond the start."""
    start, whole = _median(few), _median(many)
    return Measured(
        (clusters - FEW) / (whole.wall_s - start.wall_s),
        (clusters - FEW) / (whole.processor_s - start.processor_s),
        whole.memory_mb,
    )


def _median(measured: list[Measured]) -> Measured:
    return Measured(
        statistics.median(one.wall_s for one in measured),
        statistics.median(one.processor_s for one in measured),
        statistics.median(one.memory_mb for one in measured),
    )


if __name__ == "__main__":
    main()
