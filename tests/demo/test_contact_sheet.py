import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest

from avatar.media.ffmpeg import executable
from demo import contact_sheet


def test_a_sheet_shows_frames_in_order_above_the_waveform(samples: Path, tmp_path: Path) -> None:
    video, out = tmp_path / "fade.mp4", tmp_path / "sheet.png"
    source = ["-f", "lavfi", "-i", "color=white:s=160x120:d=2:r=25", "-vf", "fade=in:0:50", "-pix_fmt", "yuv420p"]
    subprocess.run([executable(), "-v", "error", "-nostdin", *source, str(video)], check=True)
    contact_sheet.draw(video, samples / "speech.wav", out)
    image = cv2.imread(str(out))
    assert image is not None
    assert image.shape == (2 * 240 + contact_sheet.WAVE_HEIGHT, 6 * 320, 3)
    brightness = [image[r * 240 + 60, c * 320 + 160].mean() for r in range(2) for c in range(6)]
    assert brightness == sorted(brightness)
    assert brightness[-1] - brightness[0] > 150
    waveform_pixels = (np.abs(image[2 * 240 :].astype(int) - contact_sheet.INK).max(axis=2) == 0).sum()
    assert waveform_pixels > 1000


def test_a_note_is_a_line_of_its_own_below_the_waveform(samples: Path, tmp_path: Path) -> None:
    video, out = tmp_path / "gray.mp4", tmp_path / "sheet.png"
    source = ["-f", "lavfi", "-i", "color=gray:s=160x120:d=1:r=25", "-pix_fmt", "yuv420p"]
    subprocess.run([executable(), "-v", "error", "-nostdin", *source, str(video)], check=True)
    contact_sheet.draw(video, samples / "speech.wav", out, "STAND-INS for wav2lip")
    image = cv2.imread(str(out))
    assert image is not None
    assert image.shape[0] == 2 * 240 + contact_sheet.WAVE_HEIGHT + contact_sheet.NOTE_HEIGHT
    assert (image[-contact_sheet.NOTE_HEIGHT :] == contact_sheet.ACCENT).all(axis=2).sum() > 500


def test_a_video_that_cannot_be_read_is_named(samples: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"not a video")
    with pytest.raises(OSError, match=r"broken\.mp4"):
        contact_sheet.draw(broken, samples / "speech.wav", tmp_path / "sheet.png")


def test_an_audio_file_that_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    video, speech = tmp_path / "gray.mp4", tmp_path / "speech.xyz"
    source = ["-f", "lavfi", "-i", "color=gray:s=160x120:d=1:r=25", "-pix_fmt", "yuv420p"]
    subprocess.run([executable(), "-v", "error", "-nostdin", *source, str(video)], check=True)
    speech.write_bytes(b"not a recording")
    with pytest.raises(OSError, match=r"speech\.xyz: cannot draw its waveform"):
        contact_sheet.draw(video, speech, tmp_path / "sheet.png")
