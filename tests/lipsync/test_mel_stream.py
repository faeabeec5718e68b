"""Speech in pieces gives exactly the windows of the whole, and each of them as early as possible."""

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
def speech_sample(golden: Path) -> np.ndarray:
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
    """Feed speech in pieces of `piece` samples, end it, and return all windows."""
    windows = [stream.feed(speech[first : first + piece]) for first in range(0, len(speech), piece)]
    assert sum(map(len, windows)) == stream.frames
    return np.concatenate((*windows, stream.flush()))


def whole(speech: np.ndarray, fps: float, frames: int) -> np.ndarray:
    """Return the first windows of the whole speech followed by silence."""
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


# single samples take a second at each rate
PIECES = [(1, 30_000 / 1001), *((piece, fps) for piece in (320, 333, 640, sys.maxsize) for fps in RATES)]
SINGLE = [pytest.param(1, fps, marks=pytest.mark.slow) for fps in RATES if fps != 30_000 / 1001]


@pytest.mark.parametrize(("piece", "fps"), [*PIECES, *SINGLE])
def test_pieces_give_exactly_the_windows_of_the_whole(speech_sample: np.ndarray, piece: int, fps: float) -> None:
    stream = MelStream(fps)
    assert_same(streamed(stream, speech_sample, piece), speech_sample, stream, fps)


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("piece", [320, 333])
def test_the_shipped_speech_in_pieces_gives_the_windows_of_the_whole(
    sample: np.ndarray, piece: int, fps: float
) -> None:
    stream = MelStream(fps)
    assert_same(streamed(stream, sample, piece), sample, stream, fps)


@pytest.mark.parametrize("seed", range(20))
def test_random_pieces_give_the_windows_of_the_whole(seed: int) -> None:
    rng = np.random.default_rng(seed)
    fps = float(rng.choice([1, 3, 5.0, 23.976, 25, 29.97, 50, 79.9, 80, 81, 120]))
    speech = noise(int(rng.integers(0, 20_000)), seed)
    cuts = np.sort(rng.integers(0, len(speech) + 1, int(rng.integers(0, 40))))
    stream = MelStream(fps)
    windows = np.concatenate([*map(stream.feed, np.split(speech, cuts)), stream.flush()])
    assert_same(windows, speech, stream, fps)


def test_a_piece_longer_than_a_block_gives_the_windows_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mel_stream, "BLOCK_SAMPLES", 5000)
    speech, stream = noise(40_321), MelStream(25.0)
    assert_same(streamed(stream, speech, 12_345), speech, stream, 25.0)


@pytest.mark.parametrize("length", [1, 2, 199, 200, 201, 399, 400, 401, 799, 800, 3399, 3400, 3401])
def test_speech_shorter_than_a_window_gives_more_than_one_window(length: int) -> None:
    speech, stream = noise(length), MelStream(25.0)
    assert_same(streamed(stream, speech, 7), speech, stream, 25.0)
    assert stream.frames > 1


@pytest.mark.parametrize("fps", RATES)
def test_empty_speech_gives_one_silent_window(fps: float) -> None:
    stream = MelStream(fps)
    assert stream.feed(np.empty(0, np.float32)).shape == (0, 80, 16)
    assert_same(stream.flush(), np.empty(0, np.float32), stream, fps)
    assert stream.frames == 1


def test_nan_and_infinities_count_as_zero(speech_sample: np.ndarray) -> None:
    broken, clean = speech_sample.copy(), speech_sample.copy()
    broken[[0, 700, 701, 5000, -1]] = (np.nan, np.inf, -np.inf, np.nan, np.inf)
    clean[[0, 700, 701, 5000, -1]] = 0
    stream = MelStream(25.0)
    assert_same(streamed(stream, broken, 320), clean, stream, 25.0)


@pytest.mark.parametrize("column", [0, 1, 5, 40])
def test_a_column_depends_on_the_400_samples_before_and_after_its_position(column: int) -> None:
    """All other limits in this file follow from this property of the mel spectrogram."""
    speech = noise(20_000)
    position, mel = 200 * column, mel_spectrogram(speech)[:, column]

    def depends_on(sample: int) -> bool:
        other = speech.copy()
        other[sample] = 1e3
        return bool((mel_spectrogram(other)[:, column] != mel).any())

    assert depends_on(position + 399)
    assert not depends_on(position + 400)
    if position > 400:
        assert depends_on(position - 400)
        assert not depends_on(position - 401)


@pytest.mark.parametrize("fps", [*RATES, 5.0, 1.0])
def test_every_window_is_returned_with_its_last_sample(fps: float) -> None:
    """The last sample of a frame is number 200·(its first column) + 3400, counted from 1."""
    speech, stream = noise(40_000), MelStream(fps)
    fed = 0
    for frame in range(int(fps * 2.5) - int(fps * LATENCY) - 1):
        needed = 200 * (first_column(frame, fps) + 15) + 400
        before = stream.feed(speech[fed : needed - 1])
        assert (len(before), stream.frames) == (0, frame)
        assert len(stream.feed(speech[needed - 1 : needed])) == 1
        assert stream.frames == frame + 1
        fed = needed


@pytest.mark.parametrize("fps", RATES)
def test_a_window_depends_on_no_later_sample(fps: float) -> None:
    """Later samples do not change the window, but its own last sample does."""
    frame = 10
    needed = 200 * (first_column(frame, fps) + 15) + 400
    speech = noise(needed)
    loud = np.full(4000, 10, np.float32)
    last = [whole(np.concatenate((speech[:end], loud)), fps, frame + 1)[-1] for end in (needed, needed - 1)]
    window = MelStream(fps).feed(speech)[-1]
    np.testing.assert_array_equal(window, last[0])
    assert (window != last[1]).any()


def test_the_latency_is_the_longest_wait_of_a_frame() -> None:
    assert LATENCY == 3400 / 16_000
    for fps in RATES:
        waits = [(200 * first_column(frame, fps) + LOOKAHEAD) / SAMPLE_RATE - frame / fps for frame in range(1000)]
        assert waits[0] == LATENCY
        assert max(waits) < LATENCY + 1e-9
        assert min(waits) > LATENCY - 200 / 16_000


@pytest.mark.parametrize("fps", RATES)
@pytest.mark.parametrize("length", [1, 200, 1000, 27_199, 27_200, 27_201])
def test_after_the_end_windows_follow_until_one_holds_only_silence(length: int, fps: float) -> None:
    loud = noise(length) * np.float32(1e7)  # so that the last sample changes every window that depends on it
    stream = MelStream(fps)
    windows = stream.feed(loud)
    rest = stream.flush()
    silent = (np.concatenate((windows, rest)) == -4).all(axis=(1, 2))
    assert silent.tolist() == [False] * (stream.frames - 1) + [True]
    last, previous = (200 * first_column(stream.frames - back, fps) for back in (1, 2))
    assert last >= length + 400 > previous


def test_silent_speech_has_as_many_windows_as_any_other() -> None:
    """The number of windows depends on the number of samples, not on their loudness."""
    frames = []
    for speech in (noise(16_000), np.zeros(16_000, np.float32)):
        stream = MelStream(25.0)
        streamed(stream, speech, 320)
        frames.append(stream.frames)
    assert frames[0] == frames[1]


def test_feeding_after_the_end_is_rejected() -> None:
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
def test_pieces_that_are_not_mono_are_rejected_and_change_nothing(shape: tuple[int, ...]) -> None:
    stream = MelStream(25.0)
    with pytest.raises(InvalidInput, match=r"^audio: "):
        stream.feed(np.zeros(shape, np.float32))
    assert stream.samples == 0


@pytest.mark.parametrize("fps", [0.0, -25.0, float("nan"), float("inf"), 1000.1])
def test_an_invalid_frame_rate_is_rejected(fps: float) -> None:
    with pytest.raises(InvalidInput, match=r"^fps: "):
        MelStream(fps)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_frame_rate_with_an_infinite_step_is_rejected() -> None:
    with pytest.raises(InvalidInput, match=r"^fps: "):
        MelStream(5e-324)


@pytest.mark.parametrize("fps", [1e-15, 1e-3])
def test_samples_between_distant_frames_are_not_kept(fps: float) -> None:
    stream = MelStream(fps)
    assert len(stream.feed(noise(50_000))) == 1
    assert kept_bytes(stream) < 30_000
    assert (stream.flush() == -4).all()
    assert stream.frames == 2


def kept_bytes(stream: MelStream) -> int:
    """Return the bytes of the arrays that a stream keeps alive, including the bases of views."""
    arrays = [value for value in vars(stream).values() if isinstance(value, np.ndarray)]
    assert arrays
    return sum(array.nbytes if array.base is None else array.base.nbytes for array in arrays)


@pytest.mark.parametrize("fps", [*RATES, 1000.0, 1.0])
@pytest.mark.parametrize("piece", [320, 333, 100_000])
def test_the_memory_of_a_long_speech_is_bounded(fps: float, piece: int) -> None:
    stream, speech = MelStream(fps), noise(piece)
    peak = 0
    for _ in range(40_000 // piece + 20):
        stream.feed(speech)
        peak = max(peak, kept_bytes(stream))
    assert peak < 30_000  # 4200 samples and 16 columns


def test_windows_are_at_the_right_position_after_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fake spectrogram numbers its columns, so that no hour of speech is computed."""
    monkeypatch.setattr(mel_stream, "mel_spectrogram", numbered_columns)
    fps, hour = 30_000 / 1001, 3600 * SAMPLE_RATE
    stream, starts = MelStream(fps), []
    for first in range(0, hour, mel_stream.BLOCK_SAMPLES):
        windows = stream.feed((np.arange(first, first + mel_stream.BLOCK_SAMPLES) // 200).astype(np.float32))
        assert (np.diff(windows[:, 0]) == 1).all()
        starts.extend(windows[:, 0, 0].astype(int).tolist())
        assert kept_bytes(stream) < 30_000
    assert starts == [first_column(frame, fps) for frame in range(len(starts))]
    assert len(starts) == stream.frames > 107_000


def numbered_columns(audio: np.ndarray) -> np.ndarray:
    """Return a fake mel spectrogram: columns of increasing numbers, from the value of the first sample."""
    columns = audio[0] + np.arange(len(audio) // 200 + 1, dtype=np.float32)
    return np.tile(columns, (80, 1))


def test_a_small_piece_computes_only_a_few_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    computed: list[int] = []

    def counting(audio: np.ndarray) -> np.ndarray:
        mel = mel_spectrogram(audio)
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
        # the margin, the columns of one or two frames, and the reflected ones
        assert max(computed) <= 3 + int(80 / fps) + 3 + 2


def test_the_caller_may_overwrite_fed_pieces_and_returned_windows(speech_sample: np.ndarray) -> None:
    stream, buffer = MelStream(25.0), np.empty(320, np.float32)
    received = []
    for first in range(0, len(speech_sample), 320):
        buffer[:] = speech_sample[first : first + 320]
        windows = stream.feed(buffer)
        received.append(windows.copy())
        buffer[:] = windows[...] = 9
    rest = stream.flush()
    received.append(rest.copy())
    rest[...] = 9
    assert_same(np.concatenate(received), speech_sample, stream, 25.0)
    assert (MelStream(25.0).flush() == -4).all()
