"""The document of the commands names every command and every exit code."""

import re

import typer

from calib.offline.commands import app as calib
from daemon.cli.app import COMMANDS, app
from tests.support.places import DOCS

DOCUMENT = (DOCS / "reference" / "commands.md").read_text("utf-8")
NAMED = set(re.findall(r"^\| `seqd ([a-z ]+)`", DOCUMENT, re.MULTILINE))


def test_every_command_is_named():
    calibrations = {f"calib {name}" for name in typer.main.get_command(calib).commands}
    assert {*COMMANDS, "camera", *calibrations} <= NAMED


def test_every_exit_code_is_named():
    codes = set(re.findall(r"(\d+) [a-z]", app.info.epilog))
    assert set(re.findall(r"^\| (\d+) \|", DOCUMENT, re.MULTILINE)) == codes
