"""Hand over a job, be called when it has ended, and fetch its video.

    python job_with_webhook.py face.png speech.wav out.mp4 --listen 127.0.0.1:8099 --hook http://127.0.0.1:8099/

It needs `pip install httpx standardwebhooks`. The service is at AVATAR_URL, AVATAR_API_KEY is its key if it needs one,
and AVATAR_WEBHOOK_SECRET is one of its AVATAR_WEBHOOK_SECRETS. The service calls public https URLs only; for a receiver
on the same machine it has to be started with AVATAR_URL_ALLOWED_HOSTS="127.0.0.1:*" AVATAR_URL_ALLOW_HTTP=true. Exit
status: 0 the video is saved, 1 it is not.
"""

from __future__ import annotations

import argparse
import os
import queue
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from standardwebhooks import Webhook, WebhookVerificationError

URL = os.environ.get("AVATAR_URL", "http://127.0.0.1:16000")
KEY = os.environ.get("AVATAR_API_KEY", "")
ENDED = ("job.succeeded", "job.failed", "job.canceled")
MAX_BYTES = 1 << 20  # of a message; a real one has a few thousand


class Receiver(ThreadingHTTPServer):
    """Takes in signed messages; `events` has each of them once."""

    def __init__(self, address: tuple[str, int], secret: str) -> None:
        super().__init__(address, Handler)
        self.webhook = Webhook(secret)
        self.events: queue.Queue[dict[str, Any]] = queue.Queue()
        self.seen: set[str] = set()  # a message may arrive more than once; keep these ids where you keep the results


class Handler(BaseHTTPRequestHandler):
    """Answers 204 to a message whose signature is right, so that the service does not send it again."""

    server: Receiver
    timeout = 10

    def do_POST(self) -> None:
        """Check a message, and put it into the queue: the work is done elsewhere, because the sender waits 10 s."""
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(min(length, MAX_BYTES))
        try:
            event: dict[str, Any] = self.server.webhook.verify(body, {k.lower(): v for k, v in self.headers.items()})
        except WebhookVerificationError as error:
            self.send_error(400, str(error))
            return
        if (identity := self.headers["webhook-id"]) not in self.server.seen:
            self.server.seen.add(identity)
            self.server.events.put(event)
        self.send_response(204)
        self.end_headers()


def main(arguments: argparse.Namespace, secret: str) -> str:
    """Return a sentence about the video, or end with one about what went wrong."""
    headers = {"Authorization": f"Bearer {KEY}"} if KEY else {}
    host, _, port = arguments.listen.rpartition(":")
    with Receiver((host, int(port)), secret) as receiver, httpx.Client(base_url=URL, headers=headers) as client:
        threading.Thread(target=receiver.serve_forever, daemon=True).start()
        with arguments.face.open("rb") as face, arguments.speech.open("rb") as speech:
            fields = {"webhook": arguments.hook, "webhook_events": ",".join(ENDED)}
            files = {"face_file": face, "audio_file": speech}
            job = client.post("/v1/jobs", data=fields, files=files, timeout=120)
        if job.is_error:
            sys.exit(f"{job.status_code}: {job.json()['detail']}")
        print(f"job {job.json()['id']} is {job.json()['state']}", file=sys.stderr)
        while True:
            event = receiver.events.get(timeout=arguments.wait)
            if event["data"]["id"] == job.json()["id"]:
                break
        receiver.shutdown()
        if event["type"] != "job.succeeded":
            sys.exit(f"{event['type']}: {(event['data']['error'] or {}).get('detail', '')}")
        # where the files are in object storage, the answer is a redirect to it
        with client.stream("GET", event["data"]["result"]["url"], follow_redirects=True) as video:
            video.raise_for_status()
            with arguments.out.open("wb") as out:
                out.writelines(video.iter_bytes())
    return f"{arguments.out}: {event['data']['result']['frames']} frames"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Hand over a job, be called when it has ended, and fetch its video.")
    for name in ("face", "speech", "out"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--listen", default="127.0.0.1:8099", help="address of the receiver (default: %(default)s)")
    parser.add_argument("--hook", default="http://127.0.0.1:8099/", help="its URL, as the service reaches it")
    parser.add_argument("--wait", type=float, default=3600, help="seconds to wait for the call (default: %(default)s)")
    if not (given := os.environ.get("AVATAR_WEBHOOK_SECRET")):
        sys.exit("AVATAR_WEBHOOK_SECRET is not set: it is the whsec_... of the service's AVATAR_WEBHOOK_SECRETS")
    try:
        print(main(parser.parse_args(), given))
    except httpx.HTTPError as failure:
        sys.exit(f"{URL} does not answer: {failure or type(failure).__name__}; is the service running (make up)?")
    except queue.Empty:
        sys.exit("the service has not called: can it reach the URL of --hook?")
    except OSError as failure:
        sys.exit(f"{failure.filename or ''}: {failure.strerror or failure}".removeprefix(": "))
