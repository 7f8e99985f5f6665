"""The speed of writing FASTQ and BAM, compared with Picard's on the same calls.

``python -m tests.benchmarks.export [--clusters N] [--cycles N] [--rounds N]`` prints medians and ratios. Each program
runs as a whole process that leaves files on the disk. The time to start is measured on a run of few clusters and
subtracted; the rest, divided by the number of clusters, gives the speed. Picard is used in its fastest form on one
thread: unsorted (``SORT=false``), without the EAMSS filter, on plain ``.bcl`` files.
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

FEW_CLUSTERS = 1000
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
class Measurement:
    """The figures of one process."""

    wall_s: float
    processor_s: float
    memory_mb: float
    """Largest resident memory, MB."""


@dataclass(frozen=True)
class Program:
    """A program that writes a run in one file format."""

    name: str
    form: str

    def command(self, root: Path, output: Path, cycles: int) -> list[str]:
        """Arguments of the process; ``root`` holds the run twice, in seqd's and in Picard's format."""
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
    parser = argparse.ArgumentParser(description="The speed of writing FASTQ and BAM, compared with Picard's.")
    parser.add_argument("--clusters", type=int, default=4_000_000, help="clusters of the tile")
    parser.add_argument("--cycles", type=int, default=100, help="cycles of the read")
    parser.add_argument("--rounds", type=int, default=3, help="rounds; medians of them are printed")
    arguments = parser.parse_args()
    if shutil.which(PICARD) is None:
        parser.error(f"{PICARD} is missing: apt-get install picard-tools libcommons-lang-java libgkl-jni")
    programs = [Program(name, form) for form in FORMS for name in ("Picard", "seqd, 1 thread", "seqd, 2 threads")]
    with TemporaryDirectory(prefix="seqd-") as scratch:
        many, few = Path(scratch) / "many", Path(scratch) / "few"
        for root, clusters in ((many, arguments.clusters), (few, FEW_CLUSTERS)):
            _prepare(root, clusters, arguments.cycles)
        starts = {
            program: [_measured(program, few, arguments.cycles) for _ in range(arguments.rounds)]
            for program in programs
        }
        whole: dict[Program, list[Measurement]] = {program: [] for program in programs}
        for _ in range(arguments.rounds):
            for program in programs:
                whole[program].append(_measured(program, many, arguments.cycles))
    _show(arguments.clusters, arguments.cycles, starts, whole)


def _prepare(root: Path, clusters: int, cycles: int) -> None:
    info = run_info(f"{cycles}T", tiles=(1101,))
    write_run(root / "run", info, clusters)
    with open_run(root / "run") as run:
        write_files(folder_files(run, root / "folder", FolderKind.BCL, None), written=lambda _: None)


def _measured(program: Program, root: Path, cycles: int) -> Measurement:
    with TemporaryDirectory(prefix="out-", dir=root) as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            program.command(root, Path(output), cycles), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        assert process.stderr is not None
        said = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stderr.close()
    if process.returncode:
        raise SystemExit(f"{program.name}, {program.form}: ended with {process.returncode}\n{said[-2000:]}")
    return Measurement(wall_s, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


def _show(
    clusters: int, cycles: int, starts: dict[Program, list[Measurement]], whole: dict[Program, list[Measurement]]
) -> None:
    table = Table(
        *(
            "form",
            "program",
            "s",
            "s to start",
            "clusters/s",
            "clusters per processor s",
            "speed / Picard's",
            "same, per processor s",
        ),
        *("whole process", "memory, MB"),
        title=f"{clusters} clusters, {cycles} cycles",
    )
    for form in FORMS:
        theirs = Program("Picard", form)
        for program in (program for program in whole if program.form == form):
            each, each_of_picard = (_clusters_per_s(clusters, starts[one], whole[one]) for one in (program, theirs))
            table.add_row(
                form,
                program.name,
                f"{_median(whole[program]).wall_s:.2f}",
                f"{_median(starts[program]).wall_s:.2f}",
                f"{each.wall_s:.3g}",
                f"{each.processor_s:.3g}",
                f"{each.wall_s / each_of_picard.wall_s:.1f}",
                f"{each.processor_s / each_of_picard.processor_s:.1f}",
                f"{_median(whole[theirs]).wall_s / _median(whole[program]).wall_s:.1f}",
                f"{max(one.memory_mb for one in whole[program]):.0f}",
            )
    Console(width=160).print(table)


def _clusters_per_s(clusters: int, few: list[Measurement], many: list[Measurement]) -> Measurement:
    """Clusters per second, without the time that the program needs to start."""
    start, whole = _median(few), _median(many)
    return Measurement(
        (clusters - FEW_CLUSTERS) / (whole.wall_s - start.wall_s),
        (clusters - FEW_CLUSTERS) / (whole.processor_s - start.processor_s),
        whole.memory_mb,
    )


def _median(measured: list[Measurement]) -> Measurement:
    return Measurement(
        statistics.median(one.wall_s for one in measured),
        statistics.median(one.processor_s for one in measured),
        statistics.median(one.memory_mb for one in measured),
    )


if __name__ == "__main__":
    main()
