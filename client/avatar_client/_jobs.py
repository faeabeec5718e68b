"""Jobs: work that is handed over to the gateway by HTTP, and fetched later."""

from __future__ import annotations

import contextlib
import os
import secrets
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode, urlsplit

from . import _options
from ._errors import InvalidRequest, ServerError
from ._files import atomic_write
from ._http import MultipartForm, OnProgress
from ._job_records import Job, JobEvent, JobState, KeptFace, face_of, job_of
from ._job_streams import Download, Watcher
from ._jobs_http import Transport
from ._options import File, RenderOptions
from ._schema import BACKGROUND_FILE, FACE_FILE, FACE_TYPE, SPEECH_FILE

if TYPE_CHECKING:
    from typing_extensions import Unpack

KEY_VARIABLE = "AVATAR_API_KEY"
URL_SCHEMES = ("https://", "http://", "s3://")
Priority = Literal["interactive", "batch"]
_URL_FIELDS = {FACE_FILE: "face_url", SPEECH_FILE: "audio_url"}
_JOBS, _FACES = "/v1/jobs", "/v1/avatars"


def key_of(key: str | None) -> str:
    """Return the API key: the given one, else that of the environment, else none. Raises ValueError."""
    found = os.environ.get(KEY_VARIABLE, "").strip() if key is None else key
    if not (found.isascii() and found.isprintable()):
        raise ValueError(f"the API key has characters that no key has; is {KEY_VARIABLE} right?")
    return found


class AvatarJobs:
    """Jobs of one gateway. It has no connection between two calls, and may be used by any number of threads.

    Every call raises AvatarClientError: `InvalidRequest` (the input, or an id or a key that is not valid),
    `Unavailable` (not reachable, busy, or a limit of the key, with `retry_after`), `ServerError`. A request that did
    not arrive, or was answered with 503, is repeated: `submit` cannot make two jobs by that.
    """

    def __init__(self, url: str, key: str | None = None, *, timeout: float = 120.0, retries: int = 3) -> None:
        """Make a client.

        Args:
            url: of the gateway, such as `http://127.0.0.1:16000`.
            key: the API key; by default that of the environment, `AVATAR_API_KEY`, if it has one.
            timeout: seconds without a byte after which a request has failed.
            retries: how many times a request may be repeated.

        Raises:
            ValueError: an invalid value.
        """
        self._transport = Transport(url, key_of(key), timeout, retries)

    def submit(
        self,
        face: File | None,
        audio: File,
        /,
        *,
        avatar: str | None = None,
        priority: Priority | None = None,
        webhook: str | None = None,
        webhook_events: Sequence[str] = (),
        result_url: str | None = None,
        idempotency_key: str | None = None,
        on_progress: OnProgress = lambda stage, done, total: None,
        **chosen: Unpack[RenderOptions],
    ) -> Job:
        """Hand over a job, and return it, queued.

        Args:
            face: an image or a video: its bytes, its path, or a URL that the service fetches. None with `avatar`.
            audio: an audio file, likewise.
            avatar: the id of a face that `keep_face` has returned.
            webhook: a URL that is called for `webhook_events`, or for all events.
            result_url: a URL that the video is sent to by PUT.
            idempotency_key: two submissions with the same key are one job; by default each call has its own.
            on_progress: called with the stage, and bytes of all, while the files are sent.
            chosen: the form's options, as for `AvatarClient.render`.

        Raises:
            TypeError: an unknown option, or a value of a type that cannot become text.
            OSError: a file cannot be read.
            AvatarClientError: see the class.
        """
        background_file: File | None = chosen.get("background_file")
        fields = {"background": "From Input"} | _options.texts(chosen, _options.RENDER_NAMES)
        more = {"avatar": avatar, "priority": priority, "webhook": webhook, "result_url": result_url}
        fields |= {name: value for name, value in more.items() if value is not None}
        if webhook_events:
            fields["webhook_events"] = ",".join(webhook_events)
        if face is not None:
            fields.setdefault(FACE_TYPE, _face_type(face))
        files: dict[str, Path | bytes] = {}
        sources: dict[str, File | None] = {FACE_FILE: face, SPEECH_FILE: audio, BACKGROUND_FILE: background_file}
        for name, file in sources.items():
            if isinstance(file, str) and file.startswith(URL_SCHEMES) and name in _URL_FIELDS:
                fields[_URL_FIELDS[name]] = file
            elif file is not None:
                files[name] = file if isinstance(file, bytes) else Path(file)
        headers = {"Idempotency-Key": idempotency_key or secrets.token_hex(16)}
        return job_of(self._transport.submit(_JOBS, MultipartForm(fields, files), headers, on_progress))

    def get(self, job: str) -> Job:
        """Return a job as it is now. Raises AvatarClientError."""
        return job_of(self._transport.json("GET", _path(job)))

    def list(self, state: JobState | None = None) -> Iterator[Job]:
        """Yield the jobs of this key, newest first, of one state or of all. Raises AvatarClientError."""
        yield from map(job_of, self._pages(_JOBS, "jobs", {"state": state} if state else {}))

    def watch(self, job: str, *, after: str | None = None, timeout: float | None = None) -> Iterator[JobEvent]:
        """Yield what happens to a job, from its start, until it has ended.

        A connection that is lost is opened again, and the stream goes on after the last event that arrived.

        Args:
            after: the `id` of an event; only what follows it is of interest.
            timeout: seconds after which the call ends with Unavailable although the job has not; None for no limit.

        Raises:
            AvatarClientError: see the class.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        watcher = Watcher(self._transport, _path(job), after, deadline)
        try:
            while not watcher.ended:
                event = self._transport.repeated(watcher.next, progressed=lambda: watcher.received)
                if event is not None:
                    yield event
        finally:
            watcher.close()

    def wait(self, job: str, timeout: float | None = None) -> Job:
        """Return the job when it has ended. Arguments and errors are those of `watch`."""
        for _ in self.watch(job, timeout=timeout):
            pass
        return self.get(job)

    def result(
        self, job: str, path: str | os.PathLike[str], on_progress: OnProgress = lambda stage, done, total: None
    ) -> Job:
        """Write the video of a job to `path`, which is complete or stays as it was; return the job.

        A connection that is lost is opened again, and the download goes on where it was. The video has to have the
        SHA-256 that the service has stored.

        Args:
            on_progress: called with the stage, and bytes of all.

        Raises:
            InvalidRequest: the job has not ended (409), has failed, or its video was removed (410).
            OSError: the file cannot be written.
            AvatarClientError: see the class.
        """
        found = self.get(job)
        with atomic_write(path) as file:
            download = Download(self._transport, _path(job), file, on_progress)
            self._transport.repeated(download.go_on, progressed=lambda: download.received)
            if found.result and download.digest.hexdigest() != found.result.sha256:
                raise ServerError("the video that arrived has another SHA-256 than the stored one")
        return found

    def cancel(self, job: str) -> Job:
        """Cancel a job that has not ended, and return it; one that has ended stays as it is.

        Raises:
            AvatarClientError: see the class.
        """
        return job_of(self._transport.json("DELETE", f"{_path(job)}?remove=false"))

    def remove(self, job: str) -> None:
        """Remove a job and its video; one that has not ended is canceled first. Raises AvatarClientError."""
        if self._transport.json("DELETE", _path(job)) is not None:  # it was canceled, and is removed now
            with contextlib.suppress(InvalidRequest):
                self._transport.json("DELETE", _path(job))

    def keep_face(self, face: File, on_progress: OnProgress = lambda stage, done, total: None) -> KeptFace:
        """Let the service keep a face, and return it; `submit` takes its `id` as `avatar`.

        The service decodes it and detects a face in it now, so a picture without one is an InvalidRequest here.

        Args:
            face: an image or a video, its bytes or its path.

        Raises:
            ValueError: the face is a URL.
            OSError: the file cannot be read.
            AvatarClientError: see the class. After Unavailable, the face may be kept: look for it in `list_faces`.
        """
        if isinstance(face, str) and face.startswith(URL_SCHEMES):
            raise ValueError("a face is kept from a file or from bytes; give a URL to `submit`")
        kept = face if isinstance(face, bytes) else Path(face)
        suffix = "" if isinstance(kept, bytes) else kept.suffix.removeprefix(".")
        form = MultipartForm({FACE_TYPE: suffix} if suffix else {}, {FACE_FILE: kept})
        return face_of(self._transport.submit(_FACES, form, {}, on_progress, only_rejected=True))

    def get_face(self, face: str) -> KeptFace:
        """Return a kept face by its id. Raises AvatarClientError."""
        return face_of(self._transport.json("GET", _path(face, _FACES)))

    def list_faces(self) -> Iterator[KeptFace]:
        """Yield the kept faces of this key, newest first. Raises AvatarClientError."""
        yield from map(face_of, self._pages(_FACES, "avatars", {}))

    def remove_face(self, face: str) -> None:
        """Remove a kept face; one that a job needs stays, which is an InvalidRequest. Raises AvatarClientError."""
        self._transport.json("DELETE", _path(face, _FACES))

    def _pages(self, path: str, name: str, parameters: dict[str, str]) -> Iterator[object]:
        """Yield what all pages of a list hold under `name`."""
        while True:
            page = self._transport.json("GET", f"{path}?{urlencode(parameters)}")
            yield from page[name]
            if not page["next"]:
                return
            parameters["cursor"] = page["next"]


def _path(identity: str, of: str = _JOBS) -> str:
    return f"{of}/{quote(identity, safe='')}"


def _face_type(face: File) -> str:
    """Return the extension of a file's name, which the form asks for; the service looks at the content."""
    if isinstance(face, bytes):
        return "png"
    text = os.fspath(face)
    name = urlsplit(text).path if text.startswith(URL_SCHEMES) else text
    return Path(name).suffix.removeprefix(".") or "png"
