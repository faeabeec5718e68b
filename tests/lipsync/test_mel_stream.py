"""A speech in pieces has the windows of the whole, bit by bit, and each of them as soon as it can be."""

import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from lipsync import mel_stream
from lipsync.errors import InvalidInput
from lipsync.mel import SAMPLE_RATE, mel_spectrogram
from lipsync.mel_stream import LATENCY, LOOKAHEAD, MelStream
from lipsync.mel_windows import mel_windows

RATES = (25.0, 30_000 / 1001, 24.0, 60.0, 12.5)
WINDOW = 80 * 16 * 4  # bytes


@pytest.fixture(scope="module")
def spoken(golden: Path) -> np.ndarray:
    """1.7 s of speech, FP32."""
    with np.load(golden / "mel.npz") as arrays:
        return arrays["wav"]


@pytest.fixture(scope="module")
def sample(samples: Path) -> np.ndarray:
    """The speech that ships with the project, FP32."""
    with wave.open(str(samples / "speech.wav")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (SAMPLE_RATE, 1, 2)
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.float32) / 32768


def noise(samples: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(samples) * 0.1).astype(np.float32)


def streamed(stream: MelStream, speech: np.ndarray, piece: int) -> np.ndarray:
    """All windows of a speech that is fed in pieces of so many samples, and ended."""
    given = [stream.feed(speech[first : first + piece]) for first in range(0, len(speech), piece)]
    assert sum(map(len, given)) == stream.frames
    return np.concatenate((*given, stream.flush()))


def whole(speech: np.ndarray, fps: float, frames: int) -> np.ndarray:
    """The first windows of the whole speech with silence behind it."""
    silence = int(SAMPLE_RATE * frames / fps) + SAMPLE_RATE
    return mel_windows(mel_spectrogram(np.concatenate((speech, np.zeros(silence, np.float32)))), fps)[:frames]


def first_column(frame: int, fps: float) -> int:
    step = 80 / fps
    return int(frame * step)


def assert_same(windows: np.ndarray, speech: np.ndarray, stream: MelStream, fps: float) -> None:
    assert windows.dtype == np.float32
    assert windows.shape == (stream.frames, 80, 16)
    assert stream.samples == len(speech)
    np.testing.assert_array_equal(windows.view(np.uint32), whole(speech, fps, stream.frames).view(np.uint32))


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("piece", [1, 320, 333, 640, sys.maxsize])
def test_pieces_have_the_windows_of_the_whole_to_the_bit(spoken: np.ndarray, piece: int, fps: float) -> None:
    stream = MelStream(fps)
    assert_same(streamed(stream, spoken, piece), spoken, stream, fps)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("piece", [320, 333])
def test_the_sample_in_pieces_has_the_windows_of_the_whole(sample: np.ndarray, piece: int, fps: float) -> None:
    stream = MelStream(fps)
    assert_same(streamed(stream, sample, piece), sample, stream, fps)


@pytest.mark.parametrize("seed", range(20))
def test_any_cuts_of_any_length_have_the_windows_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fps = float(rng.choice([1, 3, 5.0, 23.976, 25, 29.97, 50, 79.9, 80, 81, 120]))
    speech = noise(int(rng.integers(0, 20_000)), seed)
    cuts = np.sort(rng.integers(0, len(speech) + 1, int(rng.integers(0, 40))))
    stream = MelStream(fps)
    windows = np.concatenate([*map(stream.feed, np.split(speech, cuts)), stream.flush()])
    assert_same(windows, speech, stream, fps)


def test_a_piece_longer_than_what_is_worked_on_at_once_is_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mel_stream, "BLOCK_SAMPLES", 5000)
    speech, stream = noise(40_321), MelStream(25.0)
    assert_same(streamed(stream, speech, 12_345), speech, stream, 25.0)


@pytest.mark.parametrize("length", [1, 2, 199, 200, 201, 399, 400, 401, 799, 800, 3399, 3400, 3401])
def test_a_speech_shorter_than_a_window_is_heard(length: int) -> None:
    speech, stream = noise(length), MelStream(25.0)
    assert_same(streamed(stream, speech, 7), speech, stream, 25.0)
    assert stream.frames > 1


@pytest.mark.parametrize("fps", RATES)
def test_nothing_is_one_silent_window(fps: float) -> None:
    stream = MelStream(fps)
    assert stream.feed(np.empty(0, np.float32)).shape == (0, 80, 16)
    assert_same(stream.flush(), np.empty(0, np.float32), stream, fps)
    assert stream.frames == 1


def test_nan_and_infinities_count_as_zero(spoken: np.ndarray) -> None:
    broken, clean = spoken.copy(), spoken.copy()
    broken[[0, 700, 701, 5000, -1]] = (np.nan, np.inf, -np.inf, np.nan, np.inf)
    clean[[0, 700, 701, 5000, -1]] = 0
    stream = MelStream(25.0)
    assert_same(streamed(stream, broken, 320), clean, stream, 25.0)


@pytest.mark.parametrize("column", [0, 1, 5, 40])
def test_a_column_hears_400_samples_before_it_and_400_from_it_on(column: int) -> None:
    """The rule that all else here follows from, from the arithmetic itself."""
    speech = noise(20_000)
    place, mel = 200 * column, mel_spectrogram(speech)[:, column]

    def hears(sample: int) -> bool:
        other = speech.copy()
        other[sample] = 1e3
        return bool((mel_spectrogram(other)[:, column] != mel).any())

    assert hears(place + 399)
    assert not hears(place + 400)
    if place > 400:
        assert hears(place - 400)
        assert not hears(place - 401)


@pytest.mark.parametrize("fps", [*RATES, 5.0, 1.0])
def test_no_window_is_late_and_none_early(fps: float) -> None:
    """Frame i is there with sample 200·(its first column) + 3400, counted from 1, and not with the one before it."""
    speech, stream = noise(40_000), MelStream(fps)
    have = 0
    for frame in range(int(fps * 2.5) - int(fps * LATENCY) - 1):
        needed = 200 * (first_column(frame, fps) + 15) + 400
        before = stream.feed(speech[have : needed - 1])
        assert (len(before), stream.frames) == (0, frame)
        assert len(stream.feed(speech[needed - 1 : needed])) == 1
        assert stream.frames == frame + 1
        have = needed


@pytest.mark.parametrize("fps", RATES)
def test_a_window_that_is_given_hears_nothing_that_is_not_there_yet(fps: float) -> None:
    """Whatever comes next, it is the same; and one sample earlier it could not have been."""
    frame = 10
    needed = 200 * (first_column(frame, fps) + 15) + 400
    speech = noise(needed)
    loud = np.full(4000, 10, np.float32)
    last = [whole(np.concatenate((speech[:end], loud)), fps, frame + 1)[-1] for end in (needed, needed - 1)]
    window = MelStream(fps).feed(speech)[-1]
    np.testing.assert_array_equal(window, last[0])
    assert (window != last[1]).any()


def test_the_latency_is_the_longest_that_a_frame_waits() -> None:
    assert LATENCY == 3400 / 16_000
    for fps in RATES:
        waits = [(200 * first_column(frame, fps) + LOOKAHEAD) / SAMPLE_RATE - frame / fps for frame in range(1000)]
        assert waits[0] == LATENCY
        assert max(waits) < LATENCY + 1e-9
        assert min(waits) > LATENCY - 200 / 16_000


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("length", [1, 200, 1000, 27_199, 27_200, 27_201])
def test_the_end_goes_on_until_one_window_hears_silence_only(length: int, fps: float) -> None:
    loud = noise(length) * np.float32(1e7)  # so that the very last sample is heard wherever it can be
    stream = MelStream(fps)
    given = stream.feed(loud)
    rest = stream.flush()
    silent = (np.concatenate((given, rest)) == -4).all(axis=(1, 2))
    assert silent.tolist() == [False] * (stream.frames - 1) + [True]
    last, previous = (200 * first_column(stream.frames - back, fps) for back in (1, 2))
    assert last >= length + 400 > previous


def test_ends_in_silence_are_as_long_as_any_other() -> None:
    """What counts as speech is what was fed, not how loud it is."""
    frames = []
    for speech in (noise(16_000), np.zeros(16_000, np.float32)):
        stream = MelStream(25.0)
        streamed(stream, speech, 320)
        frames.append(stream.frames)
    assert frames[0] == frames[1]


def test_nothing_follows_the_end() -> None:
    stream = MelStream(25.0)
    stream.feed(noise(5000))
    stream.flush()
    frames = stream.frames
    with pytest.raises(InvalidInput, match=r"^audio: the speech has already ended"):
        stream.feed(noise(320))
    with pytest.raises(InvalidInput, match=r"^audio: the speech has already ended"):
        stream.flush()
    assert (stream.frames, stream.samples) == (frames, 5000)


@pytest.mark.parametrize("shape", [(), (1, 320), (320, 1)])
def test_pieces_that_are_not_mono_are_refused_and_change_nothing(shape: tuple[int, ...]) -> None:
    stream = MelStream(25.0)
    with pytest.raises(InvalidInput, match=r"^audio: "):
        stream.feed(np.zeros(shape, np.float32))
    assert stream.samples == 0


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan"), float("inf"), 1000.1])
def test_a_senseless_frame_rate_is_refused(fps: float) -> None:
    with pytest.raises(InvalidInput, match=r"^fps: "):
        MelStream(fps)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_frame_rate_without_a_step_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^fps: "):
        MelStream(5e-324)


@pytest.mark.parametrize("fps", [1e-15, 1e-3])
def test_frames_that_are_hours_apart_cost_nothing_between_them(fps: float) -> None:
    stream = MelStream(fps)
    assert len(stream.feed(noise(50_000))) == 1
    assert held(stream) < 30_000
    assert (stream.flush() == -4).all()
    assert stream.frames == 2


def held(stream: MelStream) -> int:
    """Bytes of the arrays that a stream keeps, those that its views would keep alive included."""
    arrays = [value for value in vars(stream).values() if isinstance(value, np.ndarray)]
    assert arrays
    return sum(array.nbytes if array.base is None else array.base.nbytes for array in arrays)


@pytest.mark.parametrize("fps", [*RATES, 1000.0, 1.0])
@pytest.mark.parametrize("piece", [320, 333, 100_000])
def test_a_long_speech_is_not_kept(fps: float, piece: int) -> None:
    stream, speech = MelStream(fps), noise(piece)
    most = 0
    for _ in range(200_000 // piece + 20):
        stream.feed(speech)
        most = max(most, held(stream))
    assert most < 30_000  # 4200 samples and 16 columns


def test_after_an_hour_every_window_is_still_the_right_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The place of frame 90,000, without computing an hour: what is heard is given as its numbers."""
    monkeypatch.setattr(mel_stream, "mel_spectrogram", places)
    fps, hour = 30_000 / 1001, 3600 * SAMPLE_RATE
    stream, starts = MelStream(fps), []
    for first in range(0, hour, mel_stream.BLOCK_SAMPLES):
        windows = stream.feed((np.arange(first, first + mel_stream.BLOCK_SAMPLES) // 200).astype(np.float32))
        assert (np.diff(windows[:, 0]) == 1).all()
        starts.extend(windows[:, 0, 0].astype(int).tolist())
        assert held(stream) < 30_000
    assert starts == [first_column(frame, fps) for frame in range(len(starts))]
    assert len(starts) == stream.frames > 107_000


def places(sound: np.ndarray) -> np.ndarray:
    """In place of the mel spectrogram: columns that say which they are, where the sound says so."""
    columns = sound[0] + np.arange(len(sound) // 200 + 1, dtype=np.float32)
    return np.tile(columns, (80, 1))


def test_a_small_piece_computes_a_few_columns_only(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def counting(sound: np.ndarray) -> np.ndarray:
        mel = mel_spectrogram(sound)
        computed.append(mel.shape[1])
        return mel

    monkeypatch.setattr(mel_stream, "mel_spectrogram", counting)
    for fps in RATES:
        stream = MelStream(fps)
        stream.feed(noise(4000))
        computed.clear()
        for _ in range(200):
            before = len(computed)
            stream.feed(noise(320))
            assert len(computed) - before <= 1
        assert max(computed) <= 3 + int(80 / fps) + 3 + 2  # margin, those of one or two frames, reflected ones


def test_what_was_fed_may_be_written_over_and_so_may_what_was_given(spoken: np.ndarray) -> None:
    stream, buffer = MelStream(25.0), np.empty(320, np.float32)
    given = []
    for first in range(0, len(spoken), 320):
        buffer[:] = spoken[first : first + 320]
        windows = stream.feed(buffer)
        given.append(windows.copy())
        buffer[:] = windows[...] = 9
    rest = stream.flush()
    given.append(rest.copy())
    rest[...] = 9
    assert_same(np.concatenate(given), spoken, stream, 25.0)
    assert (MelStream(25.0).flush() == -4).all()
