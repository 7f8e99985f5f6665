import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "systemd" / "seqd.service"
MOST_EXPOSURE = 2.5


def unit() -> configparser.ConfigParser:
    # SystemCallFilter is given twice, as systemd allows.
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(UNIT)
    return parser


def test_unit_starts_the_daemon_with_readiness_and_watchdog():
    service = unit()["Service"]
    assert service["Type"] == "notify"
    assert service["ExecStart"].endswith("seqd run --config /etc/seqd/seqd.toml")
    assert int(service["WatchdogSec"]) > 0
    assert service["Restart"] == "on-failure"


def test_unit_can_write_to_its_own_folders_only():
    service = unit()["Service"]
    assert service["User"] == "seqd"
    assert service["ProtectSystem"] == "strict"
    assert service["CapabilityBoundingSet"] == ""


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_the_unit_sound_and_sandboxed(tmp_path):
    copy = tmp_path / "seqd.service"
    copy.write_text(UNIT.read_text().replace("/opt/seqd/bin/seqd", "/bin/true"))
    verified = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert verified.returncode == 0
    assert "seqd.service" not in verified.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(copy)], capture_output=True, text=True, timeout=60
    )
    exposure = next(line for line in rated.stdout.splitlines() if "Overall exposure level" in line)
    assert float(exposure.rsplit(": ", 1)[1].split()[0]) <= MOST_EXPOSURE
