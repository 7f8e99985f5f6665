import re
import struct

import pytest
from seqd_client.wire.codec import Refusal, decode, encode
from seqd_client.wire.messages import MESSAGES, VERSION

from tests.support.places import DOCS, GOLDEN

REGENERATE = "python -m tests.client.regenerate"
PROTOCOL = (DOCS / "reference" / "protocol.md").read_text("utf-8")


def read_golden(topic):
    path = GOLDEN / f"{topic}.bin"
    assert path.exists(), f"no golden message for {topic}; write it with: {REGENERATE}"
    content, parts = path.read_bytes(), []
    while content:
        (length,) = struct.unpack_from("<I", content)
        parts.append(content[4 : 4 + length])
        content = content[4 + length :]
    return parts


def section(topic):
    found = re.search(rf"^### `{topic}`\n(.*?)(?=^##)", PROTOCOL, re.MULTILINE | re.DOTALL)
    assert found, f"docs/reference/protocol.md has no section ### `{topic}`"
    return found[1]


@pytest.mark.parametrize("topic", MESSAGES)
def test_golden_message_decodes_and_encodes_to_the_same_bytes(topic):
    parts = read_golden(topic)
    message, payload = decode(parts)
    assert type(message) is MESSAGES[topic]
    assert encode(message, payload) == parts, f"{topic} is encoded otherwise; in a new protocol version: {REGENERATE}"


def test_every_golden_file_is_of_a_kind_that_exists():
    assert {path.stem for path in GOLDEN.glob("*.bin")} == set(MESSAGES), (
        f"remove what is left over, then: {REGENERATE}"
    )


@pytest.mark.parametrize("topic", MESSAGES)
def test_protocol_document_names_every_field(topic):
    documented = re.findall(r"^\| `(\w+)` \|", section(topic), re.MULTILINE)
    assert documented == list(MESSAGES[topic].model_fields)


def test_protocol_document_names_every_field_of_the_run():
    info = MESSAGES["run_start"].model_fields["info"].annotation
    documented = re.findall(r"^\| `info\.(\w+)` \|", section("run_start"), re.MULTILINE)
    assert documented == list(info.model_fields)


def test_protocol_document_names_every_refusal():
    refusals = PROTOCOL.split("## What the daemon refuses")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", refusals, re.MULTILINE)) == {refusal.value for refusal in Refusal}


def test_protocol_document_is_of_this_version():
    assert PROTOCOL.startswith(f"# The wire protocol, version {VERSION}\n")


def test_worked_example_is_the_golden_message():
    block = re.search(r"```hex\n(.*?)```", PROTOCOL, re.DOTALL)[1]
    digits = "".join(line.partition(";")[0] for line in block.splitlines())
    assert bytes.fromhex(digits) == b"".join(read_golden("calls"))
