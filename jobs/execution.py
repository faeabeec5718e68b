"""Run one job: fetch its files, render, store the result. Nothing here knows of leases or of the queue."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from avatar import events
from avatar.errors import ClientError, InvalidField, StorageFault, Unavailable
from avatar.events import RenderResult
from avatar.faults import machine_fault
from avatar.form.parse import FILES, Form, Upload, parse
from avatar.inference.protocol import InferenceClient
from avatar.request import AvatarRequest
from avatar.resources.workspace import Workspace
from avatar.tracing import span
from lipsync.tensors import BACKGROUND_FILE, FACE_FILE, SPEECH_FILE

from .errors import ResultNotSent
from .net.client import UrlClient
from .net.download import download
from .net.upload import upload
from .records import Job, JobError, JobResult, Progress, StoredFile
from .settings import ServiceSettings
from .store import MissingBlob, Store

logger = logging.getLogger(__name__)

Render = Callable[[AvatarRequest, InferenceClient], AsyncGenerator[events.Event, None]]
Report = Callable[[Progress], None]

FETCH, STORE, SEND = "fetch", "store", "send"  # the stages of a job before and after those of the pipeline
URL_FIELDS = {FACE_FILE: "face_url", SPEECH_FILE: "audio_url", BACKGROUND_FILE: "background_url"}
AVATAR = "avatar"  # the field of a job that names a kept face
RESULT_URL = "result_url"
INTERNAL_ERROR = JobError("internal_error", "internal error", 500)


def error_of(error: BaseException) -> JobError:
    """Return what the record of a job says about an exception; it names no detail of a defect of this service."""
    if isinstance(error, ClientError):
        return JobError(error.code, str(error), error.status)
    if (unavailable := unavailable_of(error)) is not None:
        return JobError(Unavailable.code, str(unavailable), unavailable.status)
    return INTERNAL_ERROR


def unavailable_of(error: BaseException) -> Unavailable | None:
    """Return the exception as one that passes: another attempt may succeed; None if it would fail in the same way."""
    return error if isinstance(error, Unavailable) else machine_fault(error)


def result_key(job: Job, container: str) -> str:
    """Return where the store has the result of this attempt."""
    return f"results/{job.id}/{job.attempt}.{container}"


@dataclass(frozen=True)
class Execution:
    """What every job of a process needs.

    Attributes:
        store: where the files of jobs are.
        urls: the client for URLs of callers.
        models, render: as in the gateway.
        workspace: for the temporary files of a job.
    """

    store: Store
    urls: UrlClient
    models: InferenceClient
    render: Render
    settings: ServiceSettings
    workspace: Workspace

    async def run(self, job: Job, report: Report) -> JobResult:
        """Do the job and return its result, which is in the store then, under a key of this attempt.

        Raises:
            ClientError: the job cannot be done, whatever is tried.
            Unavailable: something that the job needs is down; another attempt may succeed.
        """
        async with self.workspace.folder() as folder:
            report(Progress(FETCH, 0, None))
            with span(FETCH):
                form = await self._fetch(job, folder)
            request = parse(form, folder, job.request_id, self.settings.limits)
            await self.models.check_ready()
            rendered = await self._render(request, report)
            if rendered.path is None:
                raise RuntimeError("the job produced no file")
            report(Progress(STORE, rendered.frames, rendered.frames))
            with span(STORE):
                file = await self._store(job, rendered, rendered.path)
            if job.result_url is not None:
                report(Progress(SEND, rendered.frames, rendered.frames))
                try:
                    with span(SEND):
                        await self._send(job.result_url, rendered, rendered.path)
                except BaseException:
                    await self._remove(file.key)
                    raise
            return _result(job, rendered, file)

    async def _fetch(self, job: Job, folder: Path) -> Form:
        """Return the form of the job, with its files in the folder."""
        form: dict[str, str | Upload] = dict(job.form)
        for field, file in job.inputs.items():
            path = folder / FILES[field]
            try:
                form[field] = Upload(path, await self.store.fetch_file(file.key, path))
            except MissingBlob as error:  # perhaps this process has another store than the gateway
                raise StorageFault("the store lacks a file of the job") from error
        for field, url in job.urls.items():
            path = folder / FILES[field]
            fetched = await download(
                self.urls,
                url,
                path,
                field=URL_FIELDS[field],
                max_bytes=self.settings.max_upload_bytes,
                seconds=self.settings.url_seconds,
            )
            form[field] = Upload(path, fetched.size)
        if job.avatar is not None:
            path = folder / FILES[FACE_FILE]
            try:
                form[FACE_FILE] = Upload(path, await self.store.fetch_file(f"avatars/{job.avatar}", path))
            except MissingBlob:
                raise InvalidField(AVATAR, "the kept face was removed; send the face again") from None
        return form

    async def _render(self, request: AvatarRequest, report: Report) -> RenderResult:
        rendered: RenderResult | None = None
        async with aclosing(self.render(request, self.models)) as happening:
            async for event in happening:  # to the end, because clean-up follows the result
                if isinstance(event, RenderResult):
                    rendered = event
                elif isinstance(event, events.Progress):
                    report(Progress(event.stage, event.done, event.total))
        if rendered is None:
            raise RuntimeError("the job produced no result")
        if rendered.stand_ins:
            logger.warning("rendered with STAND-IN checkpoints: %s", ", ".join(rendered.stand_ins))
        return rendered

    async def _store(self, job: Job, rendered: RenderResult, path: Path) -> StoredFile:
        """Store the result. Where that is cancelled, no file is left: a thread may still write it, so it is awaited."""
        key, container = result_key(job, rendered.container), rendered.container
        writing = asyncio.ensure_future(
            self.store.put_file(key, path, content_type=f"video/{container}", filename=f"{job.id}.{container}")
        )
        try:
            stored = await asyncio.shield(writing)
        except asyncio.CancelledError:
            await asyncio.wait((writing,))
            if writing.exception() is None:
                await self._remove(key)
            raise
        return StoredFile(key, stored.size, stored.sha256)

    async def _remove(self, key: str) -> None:
        try:
            await self.store.delete([key])
        except Unavailable as fault:
            logger.warning("a result that does not count is left to the sweep: %s", fault)

    async def _send(self, url: str, rendered: RenderResult, path: Path) -> None:
        content_type = f"video/{rendered.container}"
        try:
            await upload(self.urls, url, path, field=RESULT_URL, content_type=content_type)
        except InvalidField as error:
            raise ResultNotSent(str(error)) from error


def _result(job: Job, rendered: RenderResult, file: StoredFile) -> JobResult:
    return JobResult(
        file=file,
        container=rendered.container,
        frames=rendered.frames,
        fps=float(rendered.fps),
        duration=rendered.duration,
        without_face=rendered.without_face,
        stand_ins=rendered.stand_ins,
        notes=rendered.notes,
        encoder=rendered.encoder,
        decoder=rendered.decoder,
        seconds={stage: round(seconds, 3) for stage, seconds in rendered.seconds.items()},
        sent_to=None if job.result_url is None else _without_query(job.result_url),
    )


def _without_query(url: str) -> str:
    """Return a URL without its user, query and fragment: those of signed URLs are secrets."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
