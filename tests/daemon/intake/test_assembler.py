import zlib
from contextlib import suppress

import numpy as np
import pytest
from seqd_client.runinfo import Read, RunInfo, TileId
from seqd_client.wire.codec import Refusal, WireError
from seqd_client.wire.messages import Frame, Gone

from daemon.intake.assembler import REQUEST_WINDOW, Assembler, ChannelKey, Outcome
from daemon.intake.tileimages import MissingImage, SpooledImage, TileImage

FIRST, SECOND = TileId(lane=1, tile=1101), TileId(lane=1, tile=1102)
IMAGE = 4 * 8 * 10 * 2
"""Bytes of a tile image."""


def assembler(*, tiles=(FIRST,), cycles=3, next_cycle=None, spooled=(), images=100):
    info = RunInfo(
        run="R1",
        flowcell="FC",
        instrument="SEQ",
        reads=(Read(number=1, cycles=cycles),),
        tiles=tiles,
        height=8,
        width=10,
    )
    return Assembler(
        info,
        next_cycle=next_cycle or {},
        spooled=spooled,
        refuse_above=images * IMAGE,
        resend_after_s=1,
        missing_after_s=30,
    )


def frame(cycle, channel, tile=FIRST, **changes):
    value = 1000 * cycle + 10 * "ACGT".index(channel) + tile.tile
    payload = np.full((8, 10), value, "<u2").tobytes()
    fields = {
        "run": "R1",
        "seq": 0,
        "lane": tile.lane,
        "tile": tile.tile,
        "cycle": cycle,
        "channel": channel,
        "height": 8,
        "width": 10,
        "t_ns": 0,
        "crc32": zlib.crc32(payload),
        **changes,
    }
    return Frame(**fields), payload


def add(assembler, cycle, channels="ACGT", tile=FIRST, now=0.0):
    return [assembler.add(*frame(cycle, channel, tile), now) for channel in channels]


def ready(assembler, now=0.0):
    """(tile, cycle, whether it came) of what leaves."""
    return [(item.tile, item.cycle, isinstance(item, TileImage)) for item in assembler.pop_ready(now)]


def refusal_of(assembler, cycle=1, tile=FIRST, **changes):
    with pytest.raises(WireError) as caught:
        assembler.add(*frame(cycle, "A", tile, **changes), 0)
    return caught.value.refusal


def asked_for(assembler, now):
    """What is asked for, and sent."""
    keys = assembler.requests(now)
    for key in keys:
        assembler.mark_requested(key, now)
    return keys


def gone(assembler, cycle, channel, tile=FIRST):
    assembler.mark_gone(Gone(run="R1", lane=tile.lane, tile=tile.tile, cycle=cycle, channel=channel))


def test_four_channels_make_an_image_with_each_in_its_place():
    waiting = assembler()
    assert add(waiting, 1, "TGC") == [Outcome.ACCEPTED] * 3
    assert list(waiting.pop_ready(0)) == []
    add(waiting, 1, "A")
    (image,) = waiting.pop_ready(0)
    assert (image.tile, image.cycle, image.pixels.shape, image.pixels.dtype) == (FIRST, 1, (4, 8, 10), np.uint16)
    assert [np.unique(channel).tolist() for channel in image.pixels] == [[2101], [2111], [2121], [2131]]


def test_cycles_that_come_out_of_order_leave_in_order():
    waiting = assembler()
    for cycle in (3, 2):
        add(waiting, cycle)
        assert ready(waiting) == []
    add(waiting, 1)
    assert ready(waiting) == [(FIRST, 1, True), (FIRST, 2, True), (FIRST, 3, True)]
    assert waiting.finished
    assert waiting.bytes_held == 0


def test_tiles_do_not_wait_for_each_other():
    waiting = assembler(tiles=(FIRST, SECOND))
    add(waiting, 1, tile=SECOND)
    add(waiting, 2, tile=SECOND)
    assert ready(waiting) == [(SECOND, 1, True), (SECOND, 2, True)]
    assert not waiting.finished


def test_what_is_not_taken_from_ready_stays():
    waiting = assembler()
    add(waiting, 1)
    add(waiting, 2)
    assert next(waiting.pop_ready(0)).cycle == 1
    assert waiting.bytes_held == IMAGE
    assert ready(waiting) == [(FIRST, 2, True)]


def test_second_copy_of_a_frame_changes_nothing():
    waiting = assembler()
    add(waiting, 1)
    header, _ = frame(1, "C")
    assert waiting.add(header, bytes(IMAGE // 4), 0) is Outcome.DUPLICATE
    (image,) = waiting.pop_ready(0)
    assert np.unique(image.pixels[1]).tolist() == [2111]


def test_frame_of_a_cycle_that_left_is_late():
    waiting = assembler()
    add(waiting, 1)
    ready(waiting)
    assert add(waiting, 1, "A") == [Outcome.LATE]
    assert waiting.bytes_held == 0


def test_committed_cycles_are_late_and_the_next_one_is_awaited():
    waiting = assembler(tiles=(FIRST, SECOND), next_cycle={FIRST: 3, SECOND: 1})
    assert add(waiting, 2, "A") == [Outcome.LATE]
    add(waiting, 3)
    assert ready(waiting) == [(FIRST, 3, True)]
    asked = {key.tile for key in asked_for(waiting, 100)} | {key.tile for key in asked_for(waiting, 102)}
    assert asked == {SECOND}


def test_run_that_was_committed_wholly_is_finished_at_once():
    assert assembler(next_cycle={FIRST: 4}).finished


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"run": "R2"}, Refusal.FOREIGN_RUN),
        ({"tile": SECOND}, Refusal.UNKNOWN_TILE),
        ({"cycle": 4}, Refusal.UNKNOWN_CYCLE),
        ({"height": 16}, Refusal.SIZE),
        ({"width": 8}, Refusal.SIZE),
    ],
)
def test_frame_that_the_run_does_not_declare_is_refused(changes, refusal):
    waiting = assembler()
    assert refusal_of(waiting, **changes) is refusal
    assert waiting.bytes_held == 0
    assert waiting.newest_cycle == 0


def test_refusal_names_what_came_and_what_is_declared():
    with pytest.raises(WireError, match="tile 1_1101, cycle 2: frame is 16×10, the run declares 8×10"):
        assembler().add(*frame(2, "A", height=16), 0)


def test_nothing_is_asked_for_before_a_cycle_is_due():
    waiting = assembler()
    add(waiting, 1, "AC")
    assert asked_for(waiting, 1000) == []


@pytest.mark.parametrize("how", ["cycle_end", "later frame"])
def test_lacking_channel_of_a_due_cycle_is_asked_for_after_the_delay_and_again(how):
    waiting = assembler()
    add(waiting, 1, "ACG")
    if how == "cycle_end":
        waiting.mark_due(1, 10)
    else:
        add(waiting, 2, "A", now=10)
    lacking = [ChannelKey(FIRST, 1, "T")]
    assert waiting.newest_cycle == 1
    assert asked_for(waiting, 10.9) == []
    assert asked_for(waiting, 11) == lacking
    assert asked_for(waiting, 11.9) == []
    assert asked_for(waiting, 12) == lacking
    add(waiting, 1, "T", now=12.5)
    assert asked_for(waiting, 20) == []
    assert ready(waiting, 20) == [(FIRST, 1, True)]


def test_frame_that_stays_away_makes_its_cycle_missing_and_the_next_goes_on():
    waiting = assembler()
    add(waiting, 1, "AG")
    add(waiting, 2)
    waiting.mark_due(2, 0)
    asked_for(waiting, 1)
    assert ready(waiting, 30.9) == []
    missing, image = waiting.pop_ready(31)
    assert missing == MissingImage(FIRST, 1, "channel C,T: not sent within 30 s", 2)
    assert image.cycle == 2
    assert waiting.bytes_held == 0


def test_cycle_that_was_never_asked_for_does_not_grow_missing():
    waiting = assembler()
    waiting.mark_due(3, 0)
    assert ready(waiting, 10_000) == []


def test_frame_that_is_gone_makes_its_cycle_missing_at_once():
    waiting = assembler()
    add(waiting, 1, "ACT")
    waiting.mark_due(1, 0)
    asked_for(waiting, 1)
    gone(waiting, 1, "G")
    assert asked_for(waiting, 5) == []
    assert list(waiting.pop_ready(1.1)) == [MissingImage(FIRST, 1, "channel G: the controller no longer has it", 3)]


def test_gone_for_a_frame_that_was_not_asked_for_is_ignored():
    waiting = assembler()
    add(waiting, 1, "ACG")
    gone(waiting, 1, "T")
    gone(waiting, 3, "A", tile=SECOND)
    add(waiting, 1, "T")
    assert ready(waiting) == [(FIRST, 1, True)]


def test_frame_that_comes_after_gone_still_counts():
    waiting = assembler()
    add(waiting, 1, "ACG")
    waiting.mark_due(1, 0)
    asked_for(waiting, 1)
    gone(waiting, 1, "T")
    assert add(waiting, 1, "T", now=1.1) == [Outcome.ACCEPTED]
    assert ready(waiting, 1.2) == [(FIRST, 1, True)]


def test_end_of_the_run_is_not_past_its_last_cycle():
    waiting = assembler()
    waiting.mark_due(5000, 0)
    assert waiting.newest_cycle == 3
    assert {key.cycle for key in asked_for(waiting, 1)} == {1, 2, 3}


def test_requests_at_once_are_bounded_and_the_oldest_cycles_come_first():
    tiles = tuple(TileId(lane=1, tile=number) for number in range(1, 6))
    waiting = assembler(tiles=tiles, cycles=4)
    waiting.mark_due(4, 0)
    asked = asked_for(waiting, 1)
    assert len(asked) == REQUEST_WINDOW
    assert [key.cycle for key in asked] == [1] * 20 + [2] * 12
    assert asked_for(waiting, 1.5) == []
    for key in asked[:8]:
        add(waiting, key.cycle, key.channel, tile=key.tile, now=1.5)
    assert [key.cycle for key in asked_for(waiting, 1.6)] == [2] * 8
    assert len(asked_for(waiting, 2.7)) == REQUEST_WINDOW


def test_without_memory_later_cycles_are_refused_and_the_awaited_one_is_let_in():
    waiting = assembler(images=2)
    add(waiting, 2, "A")
    add(waiting, 3, "A")
    assert waiting.bytes_held == 2 * IMAGE
    assert add(waiting, 3, "C") == [Outcome.ACCEPTED]
    assert add(waiting, 1) == [Outcome.ACCEPTED] * 4
    add(waiting, 2, "CGT")
    add(waiting, 3, "GT")
    assert ready(waiting) == [(FIRST, 1, True), (FIRST, 2, True), (FIRST, 3, True)]


def test_frame_that_is_refused_for_memory_is_asked_for_when_there_is_room():
    waiting = assembler(images=1)
    add(waiting, 1, "ACG")
    with pytest.raises(WireError, match=f"tile 1_1101, cycle 2: {IMAGE} bytes of frames are held") as caught:
        waiting.add(*frame(2, "A"), 0)
    assert caught.value.refusal is Refusal.MEMORY
    waiting.mark_due(2, 0)
    assert asked_for(waiting, 1) == [ChannelKey(FIRST, 1, "T")]
    add(waiting, 1, "T", now=1.5)
    assert ready(waiting, 1.5) == [(FIRST, 1, True)]
    assert [(key.cycle, key.channel) for key in asked_for(waiting, 1.6)] == [(2, channel) for channel in "ACGT"]


def test_cycle_that_was_refused_for_memory_does_not_grow_missing_meanwhile():
    waiting = assembler(images=2)
    add(waiting, 1, "ACG")
    waiting.mark_due(3, 0)
    assert {key.cycle for key in asked_for(waiting, 1)} == {1, 2, 3}
    add(waiting, 2, now=2)
    with pytest.raises(WireError, match="bytes of frames are held"):
        waiting.add(*frame(3, "A"), 2)
    asked_for(waiting, 2)
    assert ready(waiting, 31) == [(FIRST, 1, False), (FIRST, 2, True)]
    assert {key.cycle for key in asked_for(waiting, 31)} == {3}
    add(waiting, 3, now=32)
    assert ready(waiting, 32) == [(FIRST, 3, True)]


@pytest.mark.parametrize("seed", range(20))
def test_whatever_the_order_and_the_faults_nothing_is_lost(seed):
    rng = np.random.default_rng(seed)
    waiting = assembler(tiles=(FIRST, SECOND), cycles=5, images=3)
    wanted = [(tile, cycle, channel) for cycle in range(1, 6) for tile in (FIRST, SECOND) for channel in "ACGT"]
    sent = [wanted[index] for index in rng.permutation(len(wanted)) for _ in range(rng.integers(3))]
    left = {FIRST: [], SECOND: []}

    def step(tile, cycle, channel, now):
        with suppress(WireError):
            add(waiting, cycle, channel, tile, now)
        for item in waiting.pop_ready(now):
            assert isinstance(item, TileImage)
            expected = [1000 * item.cycle + 10 * index + item.tile.tile for index in range(4)]
            assert [np.unique(channel).tolist() for channel in item.pixels] == [[value] for value in expected]
            left[item.tile].append(item.cycle)

    for key in sent:
        step(*key, 0)
    waiting.mark_due(5, 0)
    for now in range(1, 20):
        for key in asked_for(waiting, now):
            step(key.tile, key.cycle, key.channel, now)
    assert left == {FIRST: [1, 2, 3, 4, 5], SECOND: [1, 2, 3, 4, 5]}
    assert waiting.finished
    assert waiting.bytes_held == 0


def test_a_cycle_that_is_still_imaged_does_not_count_as_waiting():
    collecting = assembler(tiles=(FIRST, SECOND))
    add(collecting, 1, "ACG")
    add(collecting, 1, "A", tile=SECOND)
    assert (collecting.bytes_held, collecting.bytes_waiting) == (2 * IMAGE, 0)
    add(collecting, 1, "T")
    assert collecting.bytes_waiting == IMAGE
    collecting.mark_due(1, 0.0)
    assert collecting.bytes_waiting == 2 * IMAGE


def test_frame_that_could_not_be_asked_for_is_waited_for_longer():
    waiting = assembler()
    add(waiting, 1, "ACG")
    waiting.mark_due(1, 0)
    waiting.requests(1)
    assert ready(waiting, 1 + 4 * 30 - 0.1) == []
    (missing,) = waiting.pop_ready(1 + 4 * 30)
    assert missing.reason == "channel T: not sent within 120 s"


def test_controller_that_is_silent_is_given_longer_and_asked_again():
    waiting = assembler()
    add(waiting, 1, "ACG")
    waiting.mark_due(1, 0)
    asked_for(waiting, 1)
    assert list(waiting.pop_ready(60, silent=True)) == []
    waiting.forget_requests()
    assert ready(waiting, 61) == []
    assert [key.channel for key in asked_for(waiting, 61)] == ["T"]
    assert ready(waiting, 90) == []
    assert ready(waiting, 91) == [(FIRST, 1, False)]


def test_whole_images_move_to_the_spool_and_leave_in_their_turn():
    waiting = assembler(cycles=4, images=3)
    for cycle in (2, 3):
        add(waiting, cycle)
    assert [image.cycle for image in waiting.complete_images] == [3, 2]
    waiting.moved_to_spool(FIRST, 3)
    waiting.moved_to_spool(FIRST, 3)
    assert (waiting.bytes_held, waiting.spooled) == (IMAGE, 1)
    assert add(waiting, 3, "A") == [Outcome.DUPLICATE]
    add(waiting, 1)
    assert [type(item) for item in waiting.pop_ready(0)] == [TileImage, TileImage, SpooledImage]
    waiting.moved_to_spool(FIRST, 2)
    assert (waiting.bytes_held, waiting.spooled) == (0, 0)


def test_images_of_an_earlier_start_are_not_asked_for():
    waiting = assembler(next_cycle={FIRST: 2}, spooled={(FIRST, 1), (FIRST, 2)})
    waiting.mark_due(3, 0)
    assert [key.cycle for key in asked_for(waiting, 1)] == [3] * 4
    assert [(item.cycle, type(item)) for item in waiting.pop_ready(0)] == [(2, SpooledImage)]


MANY = tuple(TileId(lane=1, tile=1101 + number) for number in range(400))


def looks(monkeypatch):
    """Every tile-cycle that the assembler checks for missing frames."""
    looked, missing = [], Assembler._missing_channels
    monkeypatch.setattr(
        Assembler, "_missing_channels", lambda self, *place: looked.append(place) or missing(self, *place)
    )
    return looked


def test_turn_of_a_long_backlog_looks_at_no_more_places_than_it_asks_for(monkeypatch):
    there = assembler(tiles=MANY, cycles=60, images=10**6)
    there.mark_due(50, 0.0)
    looked = looks(monkeypatch)
    assert len(there.requests(10.0)) == REQUEST_WINDOW
    assert len(looked) <= REQUEST_WINDOW


def test_where_memory_is_full_only_begun_images_and_the_oldest_cycle_are_asked_for(monkeypatch):
    there = assembler(tiles=MANY, cycles=60, images=2)
    for tile, cycle in ((MANY[0], 5), (MANY[1], 7)):
        there.add(*frame(cycle, "A", tile), 0.0)
    there.mark_due(50, 0.0)
    looked = looks(monkeypatch)
    asked = there.requests(10.0)
    assert len(looked) <= REQUEST_WINDOW
    assert {key.cycle for key in asked} == {1}
