"""The parts of a WebRTC session that know nothing of networks: the player, its tracks, and what is speech."""

import asyncio
from fractions import Fraction

import cv2
import numpy as np
import pytest
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

from avatar.inference.live_stream import LiveFrame
from gateway.webrtc.gate import AFTER_BLOCKS, BEFORE_BLOCKS, SAMPLE_RATE, SpeechGate
from gateway.webrtc.player import SPARE, UNTAKEN_SECONDS, Player
from gateway.webrtc.tracks import FaceTrack, SoundTrack
from tests.support.gateway_fakes import eventually

BLOCK = SAMPLE_RATE // 50
LOUD = np.tile(np.array([4000, -4000], np.int16), BLOCK // 2)
QUIET = np.zeros(BLOCK, np.int16)
FPS = Fraction(25)
SLOT = SAMPLE_RATE // 25


def frame(index: int, *, speaks: bool) -> LiveFrame:
    image = np.full((32, 32, 3), 255 if speaks else 0, np.uint8)
    sound = np.full(SLOT, 9000 if speaks else 0, np.int16)
    return LiveFrame(index, cv2.imencode(".jpg", image)[1].tobytes(), sound.tobytes(), index / 25 if speaks else -1.0)


def seconds(media: VideoFrame | AudioFrame) -> Fraction:
    assert media.pts is not None
    assert media.time_base is not None
    return media.pts * media.time_base


def test_speech_is_passed_on_with_a_little_of_what_is_around_it() -> None:
    gate = SpeechGate()
    assert gate.feed(np.tile(QUIET, 40)) == (b"", False)
    speech, has_ended = gate.feed(np.concatenate([LOUD, LOUD]))
    assert np.frombuffer(speech, np.int16).tolist() == [0] * BLOCK * BEFORE_BLOCKS + [*LOUD, *LOUD]
    assert (has_ended, gate.is_open) == (False, True)
    speech, has_ended = gate.feed(np.tile(QUIET, 100))
    assert len(speech) == (AFTER_BLOCKS - 1) * BLOCK * 2
    assert (has_ended, gate.is_open) == (True, False)
    assert gate.feed(QUIET) == (b"", False)


def test_a_short_pause_does_not_end_the_speech() -> None:
    gate = SpeechGate()
    pieces = [gate.feed(np.tile(each, 10)) for each in (LOUD, QUIET, LOUD, QUIET)]
    assert not any(has_ended for _, has_ended in pieces)
    assert sum(len(speech) for speech, _ in pieces) == 40 * BLOCK * 2


def test_samples_may_come_in_any_pieces() -> None:
    gate, whole = SpeechGate(), np.concatenate([LOUD] * 7)
    passed = b"".join(gate.feed(whole[start : start + 441])[0] for start in range(0, len(whole), 441))
    assert passed == whole.tobytes()


async def test_picture_and_sound_of_a_slot_have_the_same_time() -> None:
    player = Player(FPS, 0.2, SAMPLE_RATE)
    face, sound = FaceTrack(player, FPS), SoundTrack(player)
    flashes, clicks = [], []
    for number in range(30):
        await player.put(frame(number, speaks=number in (7, 19)))
        await player.begin_slot(number)
        picture = await face.recv()
        if picture.to_ndarray(format="gray").mean() > 128:
            flashes.append(seconds(picture))
        for _ in range(2):
            packet = await sound.recv()
            if packet.to_ndarray().max() > 5000:
                clicks.append(seconds(packet))
    assert flashes == [Fraction(7, 25), Fraction(19, 25)]
    assert clicks[::2] == flashes


async def test_sound_that_no_track_takes_is_dropped_and_the_rest_keeps_its_time() -> None:
    player = Player(FPS, 0.2, SAMPLE_RATE)
    for number in range(200):
        await player.put(frame(number, speaks=number == 190))
        await player.begin_slot(number)
    sound = SoundTrack(player)
    packets = [await sound.recv() for _ in range(int(UNTAKEN_SECONDS * 50))]
    assert seconds(packets[0]) == Fraction(200, 25) - int(UNTAKEN_SECONDS)
    clicks = [seconds(packet) for packet in packets if packet.to_ndarray().max() > 5000]
    assert clicks[0] == Fraction(190, 25)


async def test_a_slot_without_a_frame_shows_the_one_before_in_silence() -> None:
    player = Player(FPS, 0.2, SAMPLE_RATE)
    await player.put(frame(0, speaks=True))
    await player.begin_slot(0)
    first = await player.next_slot(-1)
    await player.begin_slot(1)
    second = await player.next_slot(0)
    assert first is not None
    assert second is not None
    assert (second.number, second.jpeg) == (1, first.jpeg)
    assert await player.next_sound(SLOT) == frame(0, speaks=True).sound
    assert await player.next_sound(SLOT) == bytes(SLOT * 2)
    assert player.shown == 0


async def test_frames_at_rest_are_left_out_until_the_delay_is_right_and_speech_never_is() -> None:
    player = Player(FPS, 0.2, SAMPLE_RATE)  # five frames
    for index in range(20):
        await player.put(frame(index, speaks=False))
    await player.begin_slot(0)
    assert player.shown == 20 - 5 - SPARE
    for index in range(20, 60):
        await player.put(frame(index, speaks=True))
    shown = []
    for number in range(1, 43):
        await player.begin_slot(number)
        shown.append(player.shown)
    assert shown == [*range(19, 60), 59]


async def test_slots_of_an_odd_rate_have_all_samples_of_the_second() -> None:
    player = Player(Fraction(30000, 1001), 0.2, SAMPLE_RATE)
    for number in range(30):
        await player.begin_slot(number)
    assert len(await player.next_sound(48_048) or b"") == 96_096


async def test_slots_begin_in_real_time_and_wait_for_the_first_frame() -> None:
    player = Player(FPS, 0.05, SAMPLE_RATE)
    running = asyncio.create_task(player.run())
    await asyncio.sleep(0.05)
    for index in range(5):
        await player.put(frame(index, speaks=True))
    await eventually(lambda: player.shown == 4)
    await asyncio.wait_for(player.wait_until_played(), 20)
    running.cancel()


async def test_too_many_frames_wait_outside_and_a_clear_makes_room() -> None:
    player = Player(FPS, 0.2, SAMPLE_RATE)
    for index in range(250):
        await player.put(frame(index, speaks=True))
    waiting = asyncio.create_task(player.put(frame(250, speaks=True)))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    await player.clear()
    await asyncio.wait_for(waiting, 20)
    await player.begin_slot(0)
    assert player.shown == 250


async def test_the_end_of_the_player_ends_the_tracks() -> None:
    player = Player(FPS, 0.2, SAMPLE_RATE)
    tracks = FaceTrack(player, FPS), SoundTrack(player)
    waiting = [asyncio.create_task(track.recv()) for track in tracks]
    await asyncio.sleep(0.01)
    await player.close()
    for each in waiting:
        with pytest.raises(MediaStreamError):
            await each
