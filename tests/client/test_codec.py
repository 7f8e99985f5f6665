import subprocess
import sys
import zlib

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqd_client.wire.codec import Refusal, WireError, decode, encode
from seqd_client.wire.messages import MESSAGES, Calls, Event, Frame, Refused, RunStart

PIXELS = bytes(range(128))
FRAME = {
    "v": 1,
    "run": "R1",
    "seq": 5,
    "lane": 1,
    "tile": 1101,
    "cycle": 3,
    "channel": "C",
    "height": 8,
    "width": 8,
    "dtype": "uint16",
    "t_ns": 1_700_000_000_000_000_000,
    "crc32": zlib.crc32(PIXELS),
}
INFO = {
    "run": "R1",
    "flowcell": "FC",
    "instrument": "SEQ",
    "reads": [{"number": 1, "cycles": 10}],
    "tiles": [{"lane": 1, "tile": 1101}, {"lane": 1, "tile": 1102}],
    "height": 8,
    "width": 8,
}


def parts_of(topic, fields, payload=b""):
    return [topic.encode(), msgpack.packb(fields), payload]


def frame_parts(payload=PIXELS, **changes):
    return parts_of("frame", {**FRAME, **changes}, payload)


def refusal_of(parts):
    with pytest.raises(WireError) as caught:
        decode(parts)
    return caught.value.refusal


def nested(levels):
    return b"\x91" * levels + b"\xc0"


def test_frame_comes_back_as_it_was_sent():
    frame = Frame.model_validate({name: value for name, value in FRAME.items() if name != "v"})
    assert decode(encode(frame, PIXELS)) == (frame, PIXELS)


def test_calls_come_back_with_their_payload():
    calls = Calls(run="R1", seq=2**63 - 1, lane=64, tile=999_999, cycle=5000, n=3)
    assert decode(encode(calls, b"\x00\xa1\xff")) == (calls, b"\x00\xa1\xff")


def test_fields_with_a_default_may_be_left_out():
    fields = {name: value for name, value in FRAME.items() if name != "dtype"}
    message, _ = decode(parts_of("frame", fields, PIXELS))
    assert message.dtype == "uint16"


def test_order_of_fields_does_not_matter():
    message, _ = decode(parts_of("frame", dict(reversed(FRAME.items())), PIXELS))
    assert message.cycle == 3


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"sync"],
        [b"sync", msgpack.packb({"v": 1})],
        [b"sync", msgpack.packb({"v": 1}), b"", b""],
        [b"sync", b"", b""],
        [b"sync", b"\xc1", b""],
        [b"sync", b"\x81\xa1v", b""],
        [b"sync", msgpack.packb({"v": 1}) + b"\x00", b""],
        [b"sync", b"\x81\xa1\xff\x01", b""],
        [b"sync", msgpack.packb([1, 2]), b""],
        [b"sync", msgpack.packb(1), b""],
        [b"sync", msgpack.packb({1: 2}), b""],
        [b"sync", msgpack.packb({b"v": 1}), b""],
        [b"sync", b"\xdf\xff\xff\xff\xff", b""],
    ],
)
def test_what_is_not_a_message_is_garbage(parts):
    assert refusal_of(parts) is Refusal.GARBAGE


@pytest.mark.parametrize("topic", [*MESSAGES, "unheard-of"])
def test_header_over_its_limit_is_garbage_whatever_is_in_it(topic):
    limit = {"run_start": 8 * 2**20, "tiles_answer": 8 * 2**20, "event": 16384, "refused": 16384}.get(topic, 4096)
    fill = limit - len(msgpack.packb({"v": 2, "run": ""})) - (2 if limit < 2**16 else 4)
    header = msgpack.packb({"v": 2, "run": "x" * fill})
    assert len(header) == limit
    assert refusal_of([topic.encode(), header, b""]) is Refusal.VERSION
    longer = msgpack.packb({"v": 2, "run": "x" * (fill + 1)})
    assert refusal_of([topic.encode(), longer, b""]) is Refusal.GARBAGE


WIDE = "\U0001f9ec"
"""A character of four bytes."""


@pytest.mark.parametrize(
    "message",
    [
        Event(run=WIDE * 128, seq=2**63 - 1, t_ns=2**63 - 1, level="warning", run_state=WIDE * 32, text=WIDE * 2000),
        Refused(reason=WIDE * 2000),
    ],
    ids=lambda message: message.topic,
)
def test_longest_texts_fit_their_headers(message):
    assert decode(encode(message)) == (message, b"")


@pytest.mark.parametrize(("topic", "items"), [("run_start", 100_000), ("tiles_answer", 100_000), ("frame", 16)])
def test_array_over_its_limit_is_refused_before_it_is_made(topic, items):
    # It is announced and not there: nothing but its length can be refused.
    announced = b"\x82\xa1v\x01\xa4info\xdd" + (items + 1).to_bytes(4, "big")
    announced += bytes(min(8 * items, 4000 if items == 16 else 10**6) - len(announced))
    with pytest.raises(WireError, match=rf"{items + 1} exceeds max_array_len\({items}\)") as caught:
        decode([topic.encode(), announced, b""])
    assert caught.value.refusal is Refusal.GARBAGE


@pytest.mark.parametrize("topic", ["run_start", "sync"])
def test_map_of_too_many_fields_is_refused_before_it_is_made(topic):
    with pytest.raises(WireError, match=r"33 exceeds max_map_len\(32\)"):
        decode([topic.encode(), b"\xde\x00\x21", b""])


NESTED = """
import resource
from seqd_client.wire.codec import WireError, decode

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

header = b"\\x82\\xa1v\\x01\\xa4info" + (b"\\xdd" + (100_000).to_bytes(4, "big")) * 1000
header += b"\\xc0" * (8 * 2**20 - len(header))
before = peak()
for _ in range(5):
    try:
        decode([b"run_start", header, b""])
    except WireError as error:
        reason = error.refusal
print(reason, peak() - before)
"""


def test_arrays_in_arrays_that_are_announced_and_not_there_take_little_memory():
    done = subprocess.run([sys.executable, "-c", NESTED], capture_output=True, text=True, check=True, timeout=60)
    reason, grown_mib = done.stdout.split()
    assert reason == "garbage"
    # Full arrays of pointers would be 800 MiB.
    assert int(grown_mib) < 256


def test_long_value_is_cut_in_the_message():
    with pytest.raises(WireError) as caught:
        decode(parts_of("run_start", {"v": 1, "run": "x" * 10**6}))
    assert caught.value.refusal is Refusal.HEADER
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("levels", [10, 900, 1000, 1020, 100_000])
@pytest.mark.parametrize("topic", ["done", "sync"])
def test_deep_nesting_is_refused_wherever_it_stands(topic, levels):
    for header in (b"\x81\xa1v" + nested(levels), b"\x82\xa1v\x01\xa3run" + nested(levels), nested(levels)):
        assert refusal_of([topic.encode(), header, b""]) in {Refusal.GARBAGE, Refusal.VERSION, Refusal.HEADER}


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, True, "1", None, [1]])
def test_every_other_version_is_refused(version):
    assert refusal_of(parts_of("sync", {"v": version})) is Refusal.VERSION


def test_header_without_a_version_is_refused():
    assert refusal_of(parts_of("sync", {})) is Refusal.VERSION


@pytest.mark.parametrize("topic", [b"", b"Frame", b"frame ", b"\xff\xfe", b"x" * 1000])
def test_unknown_topic_is_refused(topic):
    assert refusal_of([topic, msgpack.packb(FRAME), PIXELS]) is Refusal.TOPIC


@pytest.mark.parametrize("topic", MESSAGES)
def test_unknown_field_is_refused_in_every_message(topic):
    assert refusal_of(parts_of(topic, {"v": 1, "surprise": 1})) is Refusal.HEADER


def test_field_beside_the_known_ones_is_named():
    with pytest.raises(WireError, match=r"^frame: gain is 2: Extra inputs"):
        decode(frame_parts(gain=2))


@pytest.mark.parametrize("field", ["run", "seq", "lane", "tile", "cycle", "height", "width", "t_ns", "crc32"])
def test_missing_field_is_named(field):
    fields = {name: value for name, value in FRAME.items() if name != field}
    with pytest.raises(WireError, match=rf"^frame: {field}: Field required$") as caught:
        decode(parts_of("frame", fields, PIXELS))
    assert caught.value.refusal is Refusal.HEADER


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("run", ""),
        ("run", "../elsewhere"),
        ("run", "name\n"),
        ("run", "x" * 129),
        ("run", b"R1"),
        ("seq", -1),
        ("seq", 2**63),
        ("lane", 0),
        ("lane", 65),
        ("lane", "1"),
        ("lane", 1.0),
        ("lane", True),
        ("tile", 0),
        ("tile", 1_000_000),
        ("cycle", 0),
        ("cycle", 5001),
        ("height", 7),
        ("width", 16385),
        ("t_ns", -1),
        ("crc32", 2**32),
    ],
)
def test_value_of_wrong_type_or_out_of_bounds_is_refused(field, value):
    assert refusal_of(frame_parts(**{field: value})) is Refusal.HEADER


@pytest.mark.parametrize("channel", ["N", "a", "", "AC", 0, None])
def test_unknown_channel_is_refused_as_such(channel):
    assert refusal_of(frame_parts(channel=channel)) is Refusal.CHANNEL


@pytest.mark.parametrize("dtype", ["uint8", "<u2", "", 16])
def test_other_pixels_are_refused_as_such(dtype):
    assert refusal_of(frame_parts(dtype=dtype)) is Refusal.DTYPE


@pytest.mark.parametrize("payload", [b"", PIXELS[:-1], PIXELS + b"\x00", PIXELS * 2])
def test_payload_of_another_size_is_refused(payload):
    assert refusal_of(frame_parts(payload, crc32=zlib.crc32(payload))) is Refusal.SIZE


def test_flipped_bit_is_refused():
    with pytest.raises(WireError, match="tile 1_1101, cycle 3, channel C: CRC-32") as caught:
        decode(frame_parts(bytes([PIXELS[0] ^ 1]) + PIXELS[1:]))
    assert caught.value.refusal is Refusal.CHECKSUM


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tiles": []}, "info.tiles is []"),
        ({"tiles": INFO["tiles"] * 2}, "a tile is listed twice"),
        ({"reads": INFO["reads"] * 2}, "a read number is used twice"),
        ({"height": 4}, "info.height is 4"),
        ({"run": "R2"}, "run R1 is declared as R2"),
    ],
)
def test_contradictory_run_is_refused_with_what_is_wrong(changes, text):
    with pytest.raises(WireError) as caught:
        decode(parts_of("run_start", {"v": 1, "run": "R1", "seq": 0, "info": {**INFO, **changes}}))
    assert caught.value.refusal is Refusal.HEADER
    assert text in str(caught.value)


def test_run_of_many_tiles_fits_a_header():
    tiles = [{"lane": 1 + index // 2000, "tile": 1 + index % 2000} for index in range(100_000)]
    message, _ = decode(parts_of("run_start", {"v": 1, "run": "R1", "seq": 0, "info": {**INFO, "tiles": tiles}}))
    assert isinstance(message, RunStart)
    assert len(encode(message)[1]) < RunStart.header_limit / 2


def decodes_or_is_refused(parts):
    try:
        message, payload = decode(parts)
    except WireError:
        return
    assert decode(encode(message, payload)) == (message, payload)


@settings(deadline=None)
@given(st.lists(st.binary(max_size=64), max_size=5))
def test_arbitrary_parts_raise_nothing_but_a_refusal(parts):
    decodes_or_is_refused(parts)


@settings(deadline=None)
@given(st.sampled_from(sorted(MESSAGES)), st.binary(max_size=200), st.binary(max_size=64))
def test_arbitrary_headers_raise_nothing_but_a_refusal(topic, header, payload):
    decodes_or_is_refused([topic.encode(), header, payload])


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
NAMES = st.sampled_from(sorted({name for kind in MESSAGES.values() for name in kind.model_fields}))


@settings(deadline=None)
@given(st.sampled_from(sorted(MESSAGES)), st.dictionaries(NAMES, VALUES))
def test_arbitrary_values_raise_nothing_but_a_refusal(topic, fields):
    decodes_or_is_refused(parts_of(topic, {"v": 1, **fields}))


@settings(deadline=None)
@given(st.sampled_from(sorted(FRAME)), VALUES)
def test_frame_with_any_one_value_replaced_raises_nothing_but_a_refusal(field, value):
    decodes_or_is_refused(frame_parts(**{field: value}))
