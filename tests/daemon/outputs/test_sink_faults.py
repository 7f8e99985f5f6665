"""Sinks that cannot write, or die while they do: calling goes on, and they catch up."""

import json
import shutil
from pathlib import Path

import pytest
from seqd_client.status import Phase

from calib.offline.simulation.conditions import Conditions
from calib.offline.simulation.simulatedrun import write_simulated_run
from daemon.config import SinksConfig
from daemon.errors import OutputError
from daemon.outputs.sinks.folderexport import sink_files, write_files
from daemon.record.committed import open_run
from daemon.verification import verify_run
from tests.chaos.shim import Death, Error, build, environment
from tests.support.processes import Bench, bench, finish

RUN, CYCLES, SIZE, TILES = "SINKS", 9, 96, 2
NAMES = ("BCL", "FASTQ", "run parameters", "InterOp", "report")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("sink_images")
    write_simulated_run(
        root,
        Conditions(density_k_mm2=100),
        run=RUN,
        tiles=TILES,
        cycles=CYCLES,
        shape=(SIZE, SIZE),
        seed=8,
        progress=lambda done: None,
    )
    return root


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    return build(tmp_path_factory.mktemp("shim"))


def setting(folder: Path, *, retry_for_s: float) -> Bench:
    """A daemon whose sinks have a folder of their own."""
    sinks = {"folder": str(folder / "sinks"), "interop": True, "report": True}
    return bench(folder, calling={"template_cycles": 3}, sinks=sinks, faults={"retry_for_s": retry_for_s})


def written(root: Path) -> dict[str, bytes]:
    """All files of the sinks that have their names: of a write that did not end there may be a leftover beside."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files if not path.name.startswith(".")}


def whole(here: Bench, tmp_path: Path) -> dict[str, bytes]:
    """All files as an export makes them of what is committed."""
    root = tmp_path / "exported"
    with open_run(here.runs / RUN) as run:
        write_files(sink_files(run, root, run.facts["sinks"]), written=lambda _: None)
    return written(root)


def differing(here: Bench) -> list[str]:
    """Files of the sinks that `seqd verify` finds to differ."""
    found = verify_run(here.runs / RUN, progress=lambda done, of: None)
    return [difference.file.partition(f"{RUN}/")[2] for difference in found.differences]


def test_sinks_write_what_an_export_makes_later(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    found = written(here.folder / "sinks" / RUN)
    assert found == whole(here, tmp_path)
    base_calls = "Data/Intensities/BaseCalls/L001"
    expected = {f"{base_calls}/C{cycle}.1/s_1_110{tile}.bcl" for cycle in range(1, 1 + CYCLES) for tile in (1, 2)}
    expected |= {f"{base_calls}/s_1_110{tile}.filter" for tile in (1, 2)}
    expected |= {f"Data/Intensities/L001/s_1_110{tile}.locs" for tile in (1, 2)}
    expected |= {f"fastq/s_1_110{tile}_R1.fastq.gz" for tile in (1, 2)}
    expected |= {"RunInfo.xml", "RunParameters.xml", "RunCompletionStatus.xml"}
    expected |= {"SequenceComplete.txt", "RTAComplete.txt", "CopyComplete.txt"}
    assert expected <= found.keys()
    assert differing(here) == []
    for name in (f"{base_calls}/C4.1/s_1_1102.bcl", f"{base_calls}/s_1_1101.filter", "fastq/s_1_1101_R1.fastq.gz"):
        path = here.folder / "sinks" / RUN / name
        before = path.read_bytes()
        path.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        assert differing(here) == [name]
        path.write_bytes(before)
    (here.folder / "sinks" / RUN / base_calls / "C3.1" / "s_1_1101.bcl.gz").write_bytes(b"")
    assert differing(here) == [f"{base_calls}/C3.1/s_1_1101.bcl.gz"]


def test_markers_come_last_and_in_order(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    root = here.folder / "sinks" / RUN
    times = {path.name: path.stat().st_mtime_ns for path in root.rglob("*") if path.is_file()}
    order = ["RunCompletionStatus.xml", "SequenceComplete.txt", "RTAComplete.txt", "CopyComplete.txt"]
    assert [times[name] for name in order] == sorted(times[name] for name in order)
    assert all(time <= times[order[0]] for name, time in times.items() if name not in order)


@pytest.mark.parametrize("name", ["ENOSPC", "EACCES"])
def test_calling_goes_on_while_sinks_cannot_write(name, images, shim, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    fault = Error(name, "won", change=8, seconds=4)
    env = environment(shim, here.folder / "sinks", error=fault)
    seen = []
    with here.camera(images), here.daemon("--once", env=env) as daemon:
        while daemon.poll() is None:
            for status in here.statuses():
                waiting = [trouble.phase for trouble in status.troubles if trouble.what in NAMES]
                seen += [(status.tile_cycles.called, phase) for phase in waiting]
        assert finish(daemon) == 0
    phases = {"ENOSPC": Phase.DISK_FULL, "EACCES": Phase.PERMISSION_LOST}
    assert {phase for _, phase in seen} == {phases[name]}
    # Tile-cycles were committed while a sink waited.
    assert len({called for called, _ in seen}) > 1
    assert written(here.folder / "sinks" / RUN) == whole(here, tmp_path)


def test_what_sinks_could_not_write_is_written_by_the_next_start(images, shim, tmp_path):
    here = setting(tmp_path, retry_for_s=1)
    env = environment(shim, here.folder / "sinks", error=Error("ENOSPC", "wson", change=20, seconds=-1))
    with here.camera(images, "--linger", "100"):
        with here.daemon("--once", env=env) as daemon:
            assert finish(daemon) == 7
        with open_run(here.runs / RUN) as run:
            assert run.complete
        partly, complete = written(here.folder / "sinks" / RUN), whole(here, tmp_path)
        assert partly.items() < complete.items()
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 0
    assert written(here.folder / "sinks" / RUN) == whole(here, tmp_path)


@pytest.mark.parametrize(("ending", "permille"), [(".bcl.tmp", 500), (".gz.tmp", 1000)])
def test_no_half_of_a_file_has_its_name_when_the_daemon_is_killed(ending, permille, images, shim, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    env = environment(shim, here.folder / "sinks", death=Death(change=2, permille=permille, ending=ending))
    root = here.folder / "sinks" / RUN
    with here.camera(images, "--linger", "100"):
        with here.daemon("--once", env=env) as daemon:
            assert finish(daemon) == -9
        left = written(root)
        assert not (root / "CopyComplete.txt").exists()
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 0
    complete = whole(here, tmp_path)
    changing = {"RunParameters.xml", "report.html"} | {name for name in complete if name.startswith("InterOp/")}
    assert {name: left[name] for name in left.keys() - changing}.items() <= complete.items()
    assert written(root) == complete


def test_folder_that_cannot_be_made_is_waited_for(images, tmp_path):
    here = setting(tmp_path, retry_for_s=1)
    (here.folder / "sinks").write_text("no folder")
    with here.camera(images, "--linger", "100"):
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 7
        lines = [json.loads(line) for line in (here.folder / "daemon.log").read_text().splitlines() if line[0] == "{"]
        assert any(line["event"] == "not written" and line["sink"] == "BCL" for line in lines)
        with open_run(here.runs / RUN) as run:
            assert run.complete
        (here.folder / "sinks").unlink()
        with here.daemon("--once") as daemon:
            assert finish(daemon) == 0
    assert written(here.folder / "sinks" / RUN) == whole(here, tmp_path)


def test_folder_that_is_lost_while_it_is_written_is_whole_at_the_end(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    root = here.folder / "sinks" / RUN
    with here.camera(images, "--tile-seconds", "0.3"), here.daemon("--once") as daemon:
        while not (root / "Data/Intensities/BaseCalls/L001/C3.1").exists():
            assert daemon.poll() is None
        root.rename(root.with_name("lost"))
        assert finish(daemon) == 0
    assert written(root) == whole(here, tmp_path)


def test_files_of_another_run_of_the_same_id_are_not_taken_for_ones_own(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    shutil.rmtree(here.runs)
    with here.camera(images, "--linger", "5"), here.daemon("--once") as daemon:
        assert finish(daemon) == 8
    assert "it holds files of another run of this id" in (here.folder / "daemon.log").read_text().splitlines()[-1]


def test_a_finished_run_that_is_taken_up_again_changes_nothing(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    before = written(here.folder / "sinks" / RUN)
    again = setting(tmp_path, retry_for_s=61)
    with again.camera(images), again.daemon("--once") as daemon:
        assert finish(daemon) == 0
    assert written(here.folder / "sinks" / RUN) == before


def test_views_may_be_switched_while_a_run_lasts_and_base_calls_may_not(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    for changes, code in (({"report": False}, 0), ({"bcl": "gzip"}, 8)):
        sinks = here.settings["sinks"] | changes
        again = bench(tmp_path, calling={"template_cycles": 3}, sinks=sinks)
        with again.camera(images, "--linger", "5"), again.daemon("--once") as daemon:
            assert finish(daemon) == code
    line = (here.folder / "daemon.log").read_text().splitlines()[-1]
    assert 'begun with sinks {"bcl": "plain"}, this daemon has {"bcl": "gzip"}' in line


def test_lost_folder_is_rebuilt_by_an_export(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    root = here.folder / "sinks" / RUN
    before = written(root)
    shutil.rmtree(root)
    with open_run(here.runs / RUN) as run:
        write_files(sink_files(run, root, run.facts["sinks"]), written=lambda _: None)
    assert written(root) == before


def test_export_to_a_full_disk_is_one_line(images, tmp_path):
    here = setting(tmp_path, retry_for_s=60)
    with here.camera(images), here.daemon("--once") as daemon:
        assert finish(daemon) == 0
    (tmp_path / "taken").write_text("")
    with open_run(here.runs / RUN) as run, pytest.raises(OutputError, match=r"file .*taken.*"):
        write_files(sink_files(run, tmp_path / "taken", SinksConfig()), written=lambda _: None)
