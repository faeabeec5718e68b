"""The forms that the soak posts, and what their right responses are."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import cv2
import httpx
import numpy as np
import soundfile
from numpy.typing import NDArray

from tests.support.media import read_sound, read_video, write_video, write_wav

SAMPLES = Path(__file__).resolve().parents[2] / "samples"
NO_FACE = "Face not detected! Ensure the video contains a face in all the frames."
SIZE = (320, 240)
POST_SECONDS = 60.0  # a form that gets no response within this time counts as unanswered
# Batches that Triton merges differently round differently, and the encoder amplifies that a little.
MAX_FRAME_DIFFERENCE = 2.0  # mean gray levels of one frame
MAX_SOUND_DIFFERENCE = 0.02  # mean of full scale 1


@dataclass(frozen=True)
class FormCase:
    """One form of the backend.

    Attributes:
        name: how reports call it.
        face, speech: its two files.
        fields: its text fields.
        error: where the form is invalid: the text of `detail`, as far as it is fixed; empty for a valid form.
    """

    name: str
    face: Path
    speech: Path
    fields: dict[str, str]
    error: str = ""

    def post(self, url: str) -> httpx.Response:
        """Post the form once. Raises httpx.HTTPError where no response comes."""
        with self.face.open("rb") as face, self.speech.open("rb") as speech:
            files = {"face_file": face, "audio_file": speech}
            return httpx.post(f"{url}/", data=self.fields, files=files, timeout=POST_SECONDS, trust_env=False)


@dataclass(frozen=True)
class Video:
    """A decoded result: frames UINT8 [n,H,W,3] BGR, and sound FP32 [n] at 16 kHz."""

    frames: NDArray[np.uint8]
    sound: NDArray[np.float32]

    @classmethod
    def decode(cls, data: bytes) -> Video:
        """Decode an mp4 or a WebM. Raises ValueError where it cannot be read."""
        with tempfile.NamedTemporaryFile(suffix=".mp4") as file:
            file.write(data)
            file.flush()
            return cls(read_video(Path(file.name)), read_sound(Path(file.name)))

    def difference(self, expected: Video) -> str:
        """Say how this video differs from the expected one; empty where it is the same to the eye and the ear."""
        if self.frames.shape != expected.frames.shape:
            return f"frames {self.frames.shape}, {expected.frames.shape} expected"
        per_frame = np.abs(self.frames.astype(np.int16) - expected.frames).mean(axis=(1, 2, 3))
        if per_frame.max() > MAX_FRAME_DIFFERENCE:
            return f"frame {per_frame.argmax()} differs by {per_frame.max():.1f} gray levels"
        if abs(len(self.sound) - len(expected.sound)) > 1024:
            return f"{len(self.sound)} samples of sound, {len(expected.sound)} expected"
        samples = min(len(self.sound), len(expected.sound))
        sound = float(np.abs(self.sound[:samples] - expected.sound[:samples]).mean())
        return f"sound differs by {sound:.3f}" if sound > MAX_SOUND_DIFFERENCE else ""


def write_forms(folder: Path) -> list[FormCase]:
    """Write the files of all forms into `folder`; every valid form shows a different image and a different speech."""
    portrait = cv2.resize(cv2.imread(str(SAMPLES / "face.png")), SIZE, interpolation=cv2.INTER_AREA)
    speech, rate = soundfile.read(SAMPLES / "speech.wav", dtype="float32")
    speeches = [
        write_wav(folder / f"speech{n}.wav", speech[n * rate : round((n + length) * rate)], rate)
        for n, length in enumerate((0.6, 0.8, 1.0, 1.2))
    ]
    stills = []
    for n, color in enumerate([(200, 40, 40), (40, 200, 40), (40, 40, 200)]):
        marked = portrait.copy()
        marked[:40, :40] = color  # away from the face: the color tells whose video it is
        stills.append(folder / f"face{n}.png")
        cv2.imwrite(str(stills[-1]), marked)
    moved = np.stack([np.roll(portrait, 3 * n, axis=1) for n in range(12)]).astype(np.uint8)
    clip = write_video(folder / "clip.mp4", moved)
    gray, damaged = folder / "gray.png", folder / "damaged.png"
    cv2.imwrite(str(gray), np.full((240, 320, 3), 128, np.uint8))
    damaged.write_bytes(b"not an image")
    plain = {"background": "From Input"}
    image, video = {**plain, "avatarFileType": "png"}, {**plain, "avatarFileType": "mp4"}
    return [
        FormCase("still", stills[0], speeches[0], image),
        FormCase("still on white", stills[1], speeches[1], {**image, "background": "White"}),
        FormCase("still, feathered", stills[2], speeches[3], {**image, "blend": "feather"}),
        FormCase("video", clip, speeches[2], video),
        FormCase("video, held", clip, speeches[0], {**video, "length": "hold", "detection": "exact"}),
        FormCase("no face", gray, speeches[0], image, NO_FACE),
        FormCase("damaged image", damaged, speeches[0], image, "face_file: "),
        FormCase("damaged speech", stills[0], damaged, image, "audio_file: "),
    ]
