"""Post a form with httpx, and save the video.

    python post_form.py face.png speech.wav out.mp4 background=White quality=draft

It needs `pip install httpx`. The service is at AVATAR_URL, and AVATAR_API_KEY is its key if it needs one. Exit status:
0 the video is saved, 1 the service or a file says no.
"""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx

URL = os.environ.get("AVATAR_URL", "http://127.0.0.1:16000")
KEY = os.environ.get("AVATAR_API_KEY", "")


def main(face: Path, speech: Path, out: Path, options: dict[str, str]) -> str:
    """Save the video of a face that speaks; return a sentence about it."""
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    with ExitStack() as opened:
        paths = {"face_file": face, "audio_file": speech}
        files = {name: opened.enter_context(path.open("rb")) for name, path in paths.items()}  # sent as they are read
        # A video takes about as long as its speech, and much longer with stand-ins or a busy machine.
        client = opened.enter_context(httpx.Client(timeout=httpx.Timeout(30, read=600)))
        data = {"avatarFileType": face.suffix.lstrip("."), **options}
        response = opened.enter_context(client.stream("POST", URL, data=data, files=files, headers=headers))
        if response.is_error:
            response.read()
            sys.exit(f"{response.status_code}: {_detail(response)} (request {response.headers.get('x-request-id')})")
        with out.open("wb") as video:
            for chunk in response.iter_bytes():
                video.write(chunk)
    for name in ("X-Avatar-Stand-Ins", "X-Avatar-Ignored-Fields", "X-Avatar-Notes"):
        if value := response.headers.get(name):
            print(f"{name}: {value}", file=sys.stderr)
    return f"{out}: {response.headers['x-avatar-frames']} frames"


def _detail(response: httpx.Response) -> str:
    try:
        return str(response.json()["detail"])
    except (ValueError, KeyError, TypeError):  # of a proxy in between
        return response.text[:200]


if __name__ == "__main__":
    if len(sys.argv) < 4 or any("=" not in option for option in sys.argv[4:]):
        sys.exit("usage: post_form.py FACE SPEECH OUT [FIELD=VALUE ...]")
    try:
        given = dict(option.split("=", 1) for option in sys.argv[4:])
        print(main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), given))
    except httpx.HTTPError as error:
        sys.exit(f"{URL} does not answer: {error or type(error).__name__}; is the service running (make up)?")
    except OSError as error:
        sys.exit(f"{error.filename}: {error.strerror}")
