"""Post a form with Python's standard library alone, and save the video.

    python post_form_stdlib.py face.png speech.wav out.mp4

The service is at AVATAR_URL, and AVATAR_API_KEY is its key if it needs one. Exit status: 0 the video is saved, 1 the
service or a file says no.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

URL = os.environ.get("AVATAR_URL", "http://127.0.0.1:16000")
KEY = os.environ.get("AVATAR_API_KEY", "")


def form(texts: dict[str, str], files: dict[str, Path]) -> tuple[bytes, str]:
    """Return the body of a multipart form, and its Content-Type."""
    boundary = uuid.uuid4().hex  # random, so that no file contains it
    body = bytearray()
    for name, text in texts.items():
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n'.encode()
    for name, path in files.items():
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode()
        body += path.read_bytes() + b"\r\n"
    return bytes(body + f"--{boundary}--\r\n".encode()), f"multipart/form-data; boundary={boundary}"


def main(face: Path, speech: Path, out: Path) -> None:
    """Save the video of a face that speaks."""
    texts = {"avatarFileType": face.suffix.lstrip("."), "background": "From Input"}
    body, kind = form(texts, {"face_file": face, "audio_file": speech})
    headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {KEY}"} if KEY else {})
    request = urllib.request.Request(URL, body, headers)  # noqa: S310 - the caller's own service
    with urllib.request.urlopen(request, timeout=600) as response, out.open("wb") as video:  # noqa: S310
        shutil.copyfileobj(response, video)
        print(f"{out}: {response.headers['X-Avatar-Frames']} frames")


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: post_form_stdlib.py FACE SPEECH OUT")
    try:
        main(*map(Path, sys.argv[1:]))
    except urllib.error.HTTPError as error:
        with error:
            answer = error.read()
        sys.exit(f"{error.code}: {json.loads(answer)['detail'] if answer[:1] == b'{' else answer[:200]!r}")
    except urllib.error.URLError as error:
        sys.exit(f"{URL} does not answer: {error.reason}; is the service running (make up)?")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}" if error.filename else f"{URL} does not answer: {error}")
