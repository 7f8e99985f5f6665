"""The controller in the document drives a run to FASTQ."""

import gzip
import re
import subprocess
import sys

from tests.support.places import DOCS
from tests.support.processes import bench, finish


def test_documented_controller_drives_a_run(tmp_path):
    code = re.search(r"```python\n(.*?)```", (DOCS / "how-to" / "controller.md").read_text("utf-8"), re.DOTALL)[1]
    code = code.replace("ipc:///run/seqd/", f"ipc://{tmp_path}/")
    here = bench(tmp_path, calling={"template_cycles": 3}, engine={"threads": 1})
    with here.daemon() as daemon:
        command = [sys.executable, "-W", "error", "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (0, "")
        daemon.terminate()
        assert finish(daemon) == 0
    (fastq,) = (tmp_path / "runs" / "RUN1" / "fastq").glob("*.fastq.gz")
    assert len(gzip.decompress(fastq.read_bytes()).splitlines()) > 4 * 40
