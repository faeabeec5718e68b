"""Take in a job: receive it, check it, store its files, write it into the database."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID, uuid4

from fastapi import Request

from avatar.errors import ClientError, InvalidField, MachineFault, ShuttingDown
from avatar.form.parse import Form, parse
from avatar.tracing import request_id, span, traceparent
from jobs.folder import hash_file
from jobs.net.errors import RefusedUrl, RequestFailed
from jobs.quotas import QuotaExceeded, check_quotas
from jobs.records import Job, StoredFile, Submission
from jobs.repository import avatars
from jobs.repository.submit import find_by_key, submit
from lipsync.tensors import FACE_TYPE

from ..authentication import Caller
from ..cancellation import run_until_disconnect
from ..clients import client_of
from ..errors import UnsupportedType
from ..job_fields import JOB_FIELDS, URLS, WEBHOOK, JobFields, read_fields
from ..job_service import JobService
from ..service import Service
from ..unknown_fields import report_ignored
from ..uploads import media_type, receive_form, receive_text
from .job_json import MAX_JSON_BYTES, parse_json

logger = logging.getLogger(__name__)

IDEMPOTENCY_KEY = "Idempotency-Key"
_KEY = re.compile(r"[\x20-\x7e]{1,255}")


@dataclass(frozen=True)
class Submitter:
    """Hands over the job of one request.

    Args:
        folder: the request's own folder.
    """

    service: Service
    v1: JobService
    caller: Caller
    folder: Path

    async def submit(self, request: Request) -> tuple[Job, bool]:
        """Return the job, and whether it is new. Raises what `gateway.errors` lists, and `jobs.errors`."""
        key = _idempotency_key(request)
        if self.service.jobs.closed:
            raise ShuttingDown()
        if key is None:  # with a key, the job may exist already, and is returned whatever the quotas say
            await check_quotas(self.v1.database, self.caller.tenant, self.caller.limits)
        with self.v1.uploads.hold(client_of(request, self.service.settings.trusted_proxies)):
            with span("upload"):
                receiving = self._receive(request)
                fields = read_fields(await run_until_disconnect(receiving, self.service.jobs.stopped))
            self._check(fields, None)
            submission = await self._submission(fields, key)
            earlier = await find_by_key(self.v1.database, submission)
            if earlier is not None:
                return earlier, False
            return await self._store_and_submit(await self._complete(fields, submission), fields)

    async def _receive(self, request: Request) -> Form:
        settings = self.service.settings
        kind = media_type(request)
        if kind == "application/json":
            text = await receive_text(request, settings, MAX_JSON_BYTES)
            form, ignored = parse_json(text, strict=settings.strict_form)
            report_ignored(request, ignored, JOB_FIELDS.names)
            return form
        if kind and kind != "multipart/form-data":
            raise UnsupportedType(f"send the job as multipart/form-data or as application/json; got {kind[:40]!a}")
        return await receive_form(request, self.folder, settings, JOB_FIELDS)

    def _check(self, fields: JobFields, face_type: str | None) -> None:
        """Check the texts as the form is checked. Raises InvalidField, ForbiddenPriority."""
        parse(fields.form(face_type), self.folder, request_id.get(), self.service.settings.limits)
        self.caller.check_priority(fields.job_class)
        if fields.webhook and not self.service.settings.webhook_secrets:
            raise InvalidField(WEBHOOK, "this service sends no webhooks; AVATAR_WEBHOOK_SECRETS is not set")

    async def _submission(self, fields: JobFields, key: str | None) -> Submission:
        digest = await asyncio.to_thread(_digest, fields) if key is not None else ""  # it reads the whole files
        return Submission(
            id=uuid4(),
            form=fields.texts,
            digest=digest,
            tenant=self.caller.tenant,
            job_class=fields.job_class,
            urls=fields.urls,
            avatar=fields.avatar,
            result_url=fields.result_url,
            webhook=fields.webhook,
            webhook_events=fields.webhook_events,
            request_id=request_id.get(),
            idempotency_key=key,
        )

    async def _complete(self, fields: JobFields, submission: Submission) -> Submission:
        """Check what only other systems know, and add the type of a kept face. Raises InvalidField, AvatarNotFound."""
        if fields.avatar is not None:
            avatar = await avatars.use(self.v1.database, self.caller.tenant, fields.avatar)
            self._check(fields, avatar.face_type)
            submission = replace(submission, form={FACE_TYPE: avatar.face_type, **submission.form})
        for name, url in fields.named_urls().items():
            try:
                await self.v1.urls.check(url, s3=name in URLS)
            except (RefusedUrl, RequestFailed) as error:
                raise InvalidField(name, str(error)) from error
        return submission

    async def _store_and_submit(self, submission: Submission, fields: JobFields) -> tuple[Job, bool]:
        """Store the files, and write the job.

        If the database does not answer, the job may have been written: then the files stay, for it or for the sweep.
        """
        inputs: dict[str, StoredFile] = {}
        try:
            for name, file in fields.files.items():
                key = input_key(submission.id, name)
                inputs[name] = StoredFile(key, file.size, "")
                stored = await self.v1.store.put_file(key, file.path)
                inputs[name] = StoredFile(key, stored.size, stored.sha256)
            with span("submit", kind="producer", job=str(submission.id)):
                submission = replace(submission, inputs=inputs, traceparent=traceparent())
                lifetime = self.v1.key_lifetime
                job, is_new = await submit(self.v1.database, submission, lifetime, limits=self.caller.limits)
        except (ClientError, QuotaExceeded, MachineFault):
            await self._discard(inputs)
            raise
        if not is_new:
            await self._discard(inputs)
        else:
            logger.info("job %s is queued", job.id)
        return job, is_new

    async def _discard(self, inputs: Mapping[str, StoredFile]) -> None:
        try:
            await self.v1.store.delete([file.key for file in inputs.values()])
        except MachineFault as fault:
            logger.warning("files of a job that was not written stay until the sweep: %s", fault.reason)


def input_key(job_id: UUID, field: str) -> str:
    """Return the key in the store of a file of a job."""
    return f"inputs/{job_id}/{field}"


def _idempotency_key(request: Request) -> str | None:
    key = request.headers.get(IDEMPOTENCY_KEY)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidField(IDEMPOTENCY_KEY, "expected 1 to 255 printable ASCII characters")
    return key


def _digest(fields: JobFields) -> str:
    """Return the hash of everything that the caller sent, however it was sent."""
    content = {
        "texts": dict(fields.texts),
        "files": {name: hash_file(file.path)[1] for name, file in fields.files.items()},
        "urls": dict(fields.urls),
        "avatar": str(fields.avatar),
        "result_url": fields.result_url,
        "webhook": fields.webhook,
        "events": list(fields.webhook_events),
        "priority": fields.job_class,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
