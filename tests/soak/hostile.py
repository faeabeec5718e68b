"""Hostile and careless callers: whatever they do, no other caller may notice, and nothing may be left behind."""

from __future__ import annotations

import secrets
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from urllib.parse import urlsplit

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as pb

from tests.soak.callers import Caller, Gate
from tests.soak.forms import FormCase
from tests.soak.outcomes import Outcomes
from tests.soak.stack import SoakStack
from tests.support.triton_streams import make_request, stub

CONNECT_SECONDS = 5.0
HOLD_SECONDS = 3.0  # for which a slow caller holds its connection


class HostileCaller(Caller):
    """Does one of its tricks after another. Errors are its own problem; the honest callers show the damage."""

    kind = "hostile"

    def __init__(self, stack: SoakStack, outcomes: Outcomes, gate: Gate, seed: int, cases: Sequence[FormCase]) -> None:
        super().__init__(stack, outcomes, gate, seed)
        self._case = cases[0]
        self._tricks: tuple[Callable[[], None], ...] = (
            self.abandoned_form,
            self.dripping_upload,
            self.silent_connection,
            self.unread_response,
            self.noise,
            self.abandoned_live_session,
            self.cancelled_render,
            self.unread_render,
            self.invalid_model_inputs,
        )

    def call(self) -> float:
        """Do one trick."""
        trick = self.random.choice(self._tricks)
        with suppress(OSError, grpc.RpcError):
            trick()
        self.outcomes.count(self.kind, trick.__name__.replace("_", " "))
        return 0.2

    def abandoned_form(self) -> None:
        """Send a whole form, and disconnect before the response."""
        with self._connection() as connection:
            connection.sendall(self._form())
            time.sleep(self.random.uniform(0, 1))

    def dripping_upload(self) -> None:
        """Send the head of a form, and then a byte now and then."""
        with self._connection() as connection:
            data = self._form()
            connection.sendall(data[:400])
            end = time.monotonic() + HOLD_SECONDS
            for at in range(400, len(data)):
                if time.monotonic() > end:
                    return
                connection.sendall(data[at : at + 1])
                time.sleep(0.5)

    def silent_connection(self) -> None:
        """Connect, and send nothing."""
        with self._connection():
            time.sleep(HOLD_SECONDS)

    def unread_response(self) -> None:
        """Send a whole form, and read nothing of the video."""
        with self._connection() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
            connection.sendall(self._form())
            time.sleep(HOLD_SECONDS)

    def noise(self) -> None:
        """Send what is not HTTP."""
        with self._connection() as connection:
            connection.sendall(secrets.token_bytes(2048))
            connection.recv(1024)

    def abandoned_live_session(self) -> None:
        """Start a live session, send speech, and vanish."""
        start = make_request("live", "lost", face_file=self._case.face.read_bytes(), audio=np.zeros(3200, np.float32))
        start.parameters["sequence_id"].int64_param = secrets.randbelow(2**62) + 1
        start.parameters["sequence_start"].bool_param = True
        self._stream(start, responses=2)

    def cancelled_render(self) -> None:
        """Start a render, and cancel it after its first response."""
        self._stream(self._render(), responses=1)

    def unread_render(self) -> None:
        """Start a render, and read none of its responses for a while."""
        self._stream(self._render(), responses=0)

    def invalid_model_inputs(self) -> None:
        """Call the small models with shapes that make no sense."""
        image, box = np.zeros((1, 0, 0, 3), np.uint8), np.array([[0, 0, 1, 1]], np.int32)
        with stub(self.stack.grpc_address) as server:
            for call in (
                make_request("face_paste", frames=image, boxes=box, mouths=np.zeros((1, 96, 96, 3), np.uint8)),
                make_request("s3fd", image=np.zeros((1, 1, 1, 3), np.uint8)),
                make_request("mel_spectrogram", audio=np.full(8, np.nan, np.float32)),
            ):
                with suppress(grpc.RpcError):
                    server.ModelInfer(call, timeout=CONNECT_SECONDS)

    def _stream(self, first: pb.ModelInferRequest, responses: int) -> None:
        with stub(self.stack.grpc_address) as server:
            stream = server.ModelStreamInfer(self._hold_open(first), timeout=20.0)
            for _ in range(responses):
                next(stream, None)
            time.sleep(self.random.uniform(0, 1))
            stream.cancel()

    def _hold_open(self, first: pb.ModelInferRequest) -> Iterator[pb.ModelInferRequest]:
        yield first
        time.sleep(HOLD_SECONDS)

    def _render(self) -> pb.ModelInferRequest:
        face, speech = self._case.face.read_bytes(), self._case.speech.read_bytes()
        return make_request("avatar", face_file=face, audio_file=speech)

    def _connection(self) -> closing[socket.socket]:
        address = urlsplit(self.stack.url)
        assert address.hostname
        assert address.port
        return closing(socket.create_connection((address.hostname, address.port), CONNECT_SECONDS))

    def _form(self) -> bytes:
        boundary = "soak"
        parts = [
            ("avatarFileType", "", b"png"),
            ("background", "", b"White"),
            ("face_file", "face.png", self._case.face.read_bytes()),
        ]
        parts.append(("audio_file", "speech.wav", self._case.speech.read_bytes()))
        body = b""
        for name, file, data in parts:
            shown = f'; filename="{file}"' if file else ""
            head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{shown}\r\n\r\n'
            body += head.encode() + data + b"\r\n"
        body += f"--{boundary}--\r\n".encode()
        head = f"POST / HTTP/1.1\r\nHost: soak\r\nContent-Type: multipart/form-data; boundary={boundary}\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
