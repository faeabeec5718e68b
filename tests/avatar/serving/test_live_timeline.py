"""The timeline of a live session: indexes, sound, segments, rests and the clock, as plain arithmetic."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from avatar.serving.live_speech import SpeechStream, as_pcm
from avatar.serving.live_timeline import AT_REST, ClearedInfo, Clock, PlannedFrame, SegmentInfo, Timeline
from lipsync.mel_stream import MelStream

RATES = pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
FRAME_RATES = pytest.mark.parametrize("fps", [Fraction(25), Fraction(30_000, 1001), Fraction(2)], ids=str)


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(-20_000, 20_000, samples).astype(np.int16)


class Speaker:
    """Says pieces of speech on a timeline, and sends all frames that it plans."""

    def __init__(self, fps: Fraction = Fraction(25), rate: int = 16_000) -> None:
        self.line = Timeline(fps, rate, echo=True)
        self._fps, self._rate = fps, rate
        self.sent: list[PlannedFrame] = []

    def say(self, speech: np.ndarray, size: int | None = None) -> None:
        for start in range(0, len(speech), size or len(speech)):
            piece = speech[start : start + (size or len(speech))]
            if not self.line.is_speaking:
                self._stream = SpeechStream(float(self._fps), self._rate)
            self.line.receive(len(piece), as_pcm(piece))
            self.send(self.line.add(self._stream.feed(piece)))

    def end(self) -> SegmentInfo:
        self.send(self.line.end_segment(self._stream.end()))
        return self.line.close_segment()

    def send(self, frames: list[PlannedFrame]) -> None:
        for frame in frames:
            self.line.mark_sent(frame)
            self.sent.append(frame)

    @property
    def sound(self) -> np.ndarray:
        sounds = [frame.sound for frame in self.sent if frame.sound is not None]
        return np.concatenate(sounds) if sounds else np.zeros(0, np.int16)


@RATES
@FRAME_RATES
@pytest.mark.parametrize("size", [None, 997])
def test_the_sounds_of_the_frames_are_the_speech_followed_by_silence(
    rate: int, fps: Fraction, size: int | None
) -> None:
    speaker, speech = Speaker(fps, rate), noise(rate)
    speaker.say(speech, size)
    segment = speaker.end()
    assert [frame.index for frame in speaker.sent] == list(range(segment.last + 1))
    np.testing.assert_array_equal(speaker.sound[: len(speech)], speech)
    assert not speaker.sound[len(speech) :].any()
    for frame in speaker.sent:
        assert frame.sound is not None
        assert abs(len(frame.sound) - rate / fps) < 1
        start = int(frame.index * rate / fps)
        assert frame.sound_time == (pytest.approx(start / rate) if start < len(speech) else AT_REST)


@RATES
def test_each_segment_has_the_windows_of_a_session_of_its_own(rate: int) -> None:
    speaker = Speaker(rate=rate)
    windows: list[np.ndarray | None] = []
    for seed in range(3):
        speech = noise(rate // 2 + seed * 100, seed)
        before = len(speaker.sent)
        speaker.say(speech, size=777 + seed)
        segment = speaker.end()
        assert (segment.segment, segment.first, segment.last) == (seed, before, len(speaker.sent) - 1)
        assert segment.duration == pytest.approx(len(speech) / rate)
        alone = SpeechStream(25.0, rate)
        windows += [*alone.feed(speech), *alone.end()]
        speaker.send([speaker.line.rest()])
        windows.append(None)
    assert len(windows) == len(speaker.sent)
    for frame, window in zip(speaker.sent, windows, strict=True):
        assert (frame.window is None) == (window is None)
        if window is not None and frame.window is not None:
            np.testing.assert_array_equal(frame.window, window)


def test_a_segment_at_16_khz_is_not_resampled() -> None:
    speech = noise(8000)
    stream, mel = SpeechStream(25.0, 16_000), MelStream(25.0)
    floats = speech.astype(np.float32) / 32768
    np.testing.assert_array_equal(
        np.stack([*stream.feed(speech), *stream.end()]), np.concatenate((mel.feed(floats), mel.flush()))
    )


def test_sound_times_count_all_speech_that_was_sent_before() -> None:
    speaker = Speaker()
    speaker.say(noise(8000))
    speaker.end()
    speaker.send([speaker.line.rest()])
    first = len(speaker.sent)
    speaker.say(noise(8000))
    speaker.end()
    assert speaker.sent[first - 1].sound_time == AT_REST
    assert speaker.sent[first].sound_time == pytest.approx(0.5)
    assert speaker.line.duration == 1.0


def test_clearing_goes_back_to_the_next_index_that_was_not_sent() -> None:
    speaker = Speaker()
    speaker.line.receive(16_000, noise(16_000))
    stream = SpeechStream(25.0, 16_000)
    planned = speaker.line.add(stream.feed(noise(16_000)))
    speaker.send(planned[:10])  # 0.4 s of the speech
    cleared = speaker.line.clear(-1, skipped=8000)
    assert (cleared.last, cleared.next, cleared.dropped) == (9, 10, pytest.approx(1.1))
    assert not speaker.line.is_speaking
    speaker.say(noise(8000, seed=1))
    assert speaker.sent[10].index == 10
    assert speaker.sent[10].sound_time == pytest.approx(1.5)
    np.testing.assert_array_equal(speaker.sound[6400:7040], noise(8000, seed=1)[:640])


def test_speech_that_was_shown_is_not_counted_as_dropped_and_none_is_counted_twice() -> None:
    speaker = Speaker()
    speaker.say(noise(8000))
    speaker.end()
    assert speaker.line.clear(-1, 0).dropped == 0
    speaker.line.receive(8000, noise(8000))
    assert speaker.line.clear(-1, 0).dropped == 0.5
    assert speaker.line.clear(-1, 0).dropped == 0
    assert speaker.line.dropped == 8000


def test_a_segment_that_has_ended_but_was_not_sent_is_dropped() -> None:
    line, stream = Timeline(Fraction(25), 16_000, echo=False), SpeechStream(25.0, 16_000)
    line.receive(8000)
    line.add(stream.feed(noise(8000)))
    line.end_segment(stream.end())
    line.close_segment()
    assert line.clear(-1, 0) == ClearedInfo(-1, 0, 0.5)


def test_motion_goes_on_after_the_last_frame_that_was_shown() -> None:
    line = Timeline(Fraction(25), 16_000, echo=False)

    def rest(count: int) -> list[int]:
        frames = [line.rest() for _ in range(count)]
        for frame in frames:
            line.mark_sent(frame)
        return [frame.position for frame in frames]

    assert rest(10) == list(range(10))
    line.clear(3, 0)
    assert rest(5) == [4, 5, 6, 7, 8]  # the indexes 10 to 14
    line.clear(3, 0)  # again what was shown before the first one
    assert rest(2) == [4, 5]
    line.clear(16, 0)
    assert rest(1) == [6]
    line.clear(-1, 0)
    assert rest(1) == [7]
    assert line.next == 19
    for _ in range(1000):
        line.clear(0, 0)
        rest(2)
    assert len(line._shifts) <= 100


def test_rests_have_silence_of_the_length_of_their_frames() -> None:
    line = Timeline(Fraction(30_000, 1001), 44_100, echo=True)
    sounds = [line.rest().sound for _ in range(300)]
    lengths = [len(sound) for sound in sounds if sound is not None]
    assert sum(lengths) == int(300 * 44_100 * 1001 / 30_000)
    assert max(lengths) - min(lengths) <= 1


def test_the_clock_waits_for_late_speech_and_not_for_late_frames() -> None:
    clock = Clock(Fraction(25), 0.2, now=100.0)
    assert clock.due(5) == pytest.approx(100.2)
    assert clock.reach(5, 100.1) == pytest.approx(100.4)  # shown with the lead, though its speech came early
    assert clock.reach(10, 103.0) == pytest.approx(103.0)  # nobody could show it earlier
    assert clock.due(10) == pytest.approx(102.8)
    assert clock.due(11) == pytest.approx(102.84)
    clock.restart(50, 110.0)
    assert clock.due(50) == 110.0
