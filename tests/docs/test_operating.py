"""The operator's document names what the status can say."""

import re

from seqd_client.status import Phase, RunState, StopReason

from tests.support.places import DOCS

OPERATING = (DOCS / "how-to" / "operate.md").read_text("utf-8")


def first_column(header):
    """Names in the first column of a table."""
    table = OPERATING.split(header)[1].split("\n\n")[0]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return [name for cell in cells for name in re.findall(r"`(\w+)`", cell)]


def test_every_phase_is_explained_in_its_order():
    assert first_column("| `phase` |") == [phase.value for phase in Phase]


def test_every_stop_reason_is_explained_in_its_order():
    assert first_column("| `stop_reason` |") == [reason.value for reason in StopReason]


def test_every_state_is_in_the_picture():
    picture = OPERATING.split("```")[1]
    assert {state.value for state in RunState} <= set(re.findall(r"\w+", picture))
