import configparser
import json
import shutil
import subprocess

import pytest

from tests.support.places import ROOT

UNIT = ROOT / "systemd" / "seqd.service"
MOST_EXPOSURE = 2.0


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


def test_unit_sees_no_device_and_no_network_of_itself():
    service = unit()["Service"]
    assert service["PrivateDevices"] == "yes"
    assert service["DevicePolicy"] == "closed"
    assert service["PrivateNetwork"] == "yes"
    assert service["UMask"] == "0027"


def with_drop_ins(folder, names):
    """A copy of the unit that systemd can verify where seqd is not installed; of the same name, as drop-ins need."""
    copy = folder / "seqd.service"
    copy.write_text(UNIT.read_text().replace("/opt/seqd/bin/seqd", "/bin/true"))
    for name in names:
        (folder / "seqd.service.d").mkdir(exist_ok=True)
        shutil.copy(UNIT.parent / "seqd.service.d" / f"{name}.conf", folder / "seqd.service.d")
    return copy


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("drop_ins", [(), ("gpu",), ("network",), ("gpu", "network")], ids="+".join)
def test_systemd_finds_the_unit_sound_and_sandboxed(drop_ins, tmp_path):
    copy = with_drop_ins(tmp_path, drop_ins)
    verified = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, timeout=60)
    assert verified.returncode == 0
    assert "seqd.service" not in verified.stderr
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--json=short", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
    )
    settings = {line["name"]: line["set"] for line in json.loads(rated.stdout)}
    assert (not settings["PrivateDevices="]) == ("gpu" in drop_ins)
    assert (not settings["PrivateNetwork="]) == ("network" in drop_ins)
    # A device ACL there is in any case, and of foreign devices it names those of NVIDIA only.
    allowed = next(line["description"] for line in json.loads(rated.stdout) if line["name"] == "DeviceAllow=")
    assert ("char-nvidia*:rw" in allowed) == ("gpu" in drop_ins)
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", str(copy)], capture_output=True, text=True, timeout=60
    )
    exposure = next(line for line in rated.stdout.splitlines() if "Overall exposure level" in line)
    assert float(exposure.rsplit(": ", 1)[1].split()[0]) <= MOST_EXPOSURE
