"""Honest callers: they check that each response is right, or a failure that the documentation allows."""

from __future__ import annotations

import random
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import httpx
import numpy as np
import soundfile

from avatar_client import AvatarClient, AvatarClientError, Frame, InvalidRequest
from avatar_client import Chunk as VideoChunk
from avatar_client import Summary as VideoSummary
from tests.soak.forms import SAMPLES, FormCase, Video
from tests.soak.outcomes import Outcomes
from tests.soak.stack import SoakStack

MAX_SILENCE = 10.0  # seconds that a stream may give nothing after a process was killed, before it fails
# A direct caller of Triton may see Triton's own error until the server with the dead process is replaced.
FAULT_SECONDS = 30.0
CLIENT_SECONDS = 30.0
MAX_RETRY_AFTER = 2.0  # a patient caller waits longer; here more calls are worth more


class Gate:
    """Lets all callers pause between two calls, so that resources can be compared at rest."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self._open.set()
        self._busy = 0
        self._changed = threading.Condition()
        self.stopped = threading.Event()

    def __enter__(self) -> None:
        """Wait until calls are allowed, and count one more call in flight."""
        while True:
            self._open.wait()
            with self._changed:
                if self._open.is_set():
                    self._busy += 1
                    return

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def pause(self, seconds: float = 180.0) -> None:
        """Let no new call start, and wait until none is in flight. Raises TimeoutError."""
        self._open.clear()
        with self._changed:
            if not self._changed.wait_for(lambda: self._busy == 0, seconds):
                raise TimeoutError(f"{self._busy} calls are still in flight after {seconds:.0f} s")

    def resume(self) -> None:
        """Allow calls again."""
        self._open.set()

    def stop(self) -> None:
        """End all callers after their current call."""
        self.stopped.set()
        self._open.set()


class Caller(ABC, threading.Thread):
    """A thread that makes one call after another until the gate is stopped."""

    kind = "caller"

    def __init__(self, stack: SoakStack, outcomes: Outcomes, gate: Gate, seed: int) -> None:
        super().__init__(name=self.kind, daemon=True)
        self.pace = 0.0  # seconds between two calls
        self.stack, self.outcomes, self.gate = stack, outcomes, gate
        self.random = random.Random(seed)

    def run(self) -> None:
        """Make calls; an unexpected exception is a failure of the run, and the caller goes on."""
        while not self.gate.stopped.is_set():
            with self.gate:
                if self.gate.stopped.is_set():
                    return
                try:
                    pause = self.call()
                except Exception as error:
                    self.outcomes.fail(self.kind, f"{type(error).__name__}: {error}")
                    pause = 1.0
            self.gate.stopped.wait(pause + self.pace)

    @abstractmethod
    def call(self) -> float:
        """Make one call and record its outcome; return the seconds to wait before the next one."""


class FormCaller(Caller):
    """Posts forms: a right video, the right error, or 503 with Retry-After."""

    kind = "form"

    def __init__(
        self,
        stack: SoakStack,
        outcomes: Outcomes,
        gate: Gate,
        seed: int,
        cases: Sequence[FormCase],
        expected: Mapping[str, Video],
    ) -> None:
        super().__init__(stack, outcomes, gate, seed)
        self._cases, self._expected = cases, expected

    def call(self) -> float:
        """Post one form."""
        case = self.random.choice(self._cases)
        try:
            response = case.post(self.stack.url)
        except httpx.HTTPError as error:
            self.outcomes.fail(self.kind, f"{case.name}: unanswered, {type(error).__name__}: {error}")
            return 1.0
        if response.status_code == 503:
            return self._busy(case, response)
        if case.error:
            detail = str(response.json().get("detail", ""))
            right = response.status_code == 400 and detail.startswith(case.error)
            self._record(case, "400" if right else "", f"{response.status_code} {detail}")
        elif response.status_code == 200:
            difference = Video.decode(response.content).difference(self._expected[case.name])
            self._record(case, "200" if not difference else "", difference)
        else:
            self._record(case, "", f"{response.status_code} {response.text[:200]}")
        return 0.0

    def _busy(self, case: FormCase, response: httpx.Response) -> float:
        seconds = response.headers.get("retry-after", "")
        self._record(case, "503" if seconds.isdecimal() else "", "503 without Retry-After")
        return min(float(seconds or 1), MAX_RETRY_AFTER)

    def _record(self, case: FormCase, outcome: str, reason: str) -> None:
        if outcome:
            self.outcomes.count(self.kind, outcome)
        else:
            self.outcomes.fail(self.kind, f"{case.name}: {reason}")


class StreamCaller(Caller):
    """A caller of Triton's streaming models through the Python client."""

    def call(self) -> float:
        """Make one call with a client of its own."""
        self._last_response = time.monotonic()
        with AvatarClient(self.stack.grpc_address, timeout=CLIENT_SECONDS, retries=0) as client:
            try:
                reason = self.stream(client)
            except AvatarClientError as error:
                return self._failed(error)
        if reason:
            self.outcomes.fail(self.kind, reason)
        else:
            self.outcomes.count(self.kind, "right")
        return 0.5

    @abstractmethod
    def stream(self, client: AvatarClient) -> str:
        """Make one call; return what is wrong with its responses, or an empty string."""

    def responded(self) -> None:
        """Note that a response came."""
        self._last_response = time.monotonic()

    def _failed(self, error: AvatarClientError) -> float:
        waited = time.monotonic() - max(self._last_response, time.monotonic() - self.outcomes.since_fault())
        after_fault = self.outcomes.since_fault() < FAULT_SECONDS
        if waited > MAX_SILENCE:
            self.outcomes.fail(self.kind, f"{waited:.1f} s of silence, then {error.code} {error}")
        elif error.code == 503 or (after_fault and not isinstance(error, InvalidRequest)):
            self.outcomes.count(self.kind, f"{error.code} in time")
        else:
            self.outcomes.fail(self.kind, f"{error.code} {error}")
        return MAX_RETRY_AFTER


class RenderCaller(StreamCaller):
    """Renders with the model `avatar`, and compares the video."""

    kind = "avatar"

    def __init__(
        self, stack: SoakStack, outcomes: Outcomes, gate: Gate, seed: int, case: FormCase, frames: int
    ) -> None:
        super().__init__(stack, outcomes, gate, seed)
        self._case, self._frames = case, frames

    def stream(self, client: AvatarClient) -> str:
        """Render one video."""
        video, frames = b"", 0
        with client.render(self._case.face, self._case.speech) as events:
            for event in events:
                self.responded()
                if isinstance(event, VideoChunk):
                    video += event.data
                elif isinstance(event, VideoSummary):
                    frames = event.frames
        shown = len(Video.decode(video).frames)
        return "" if frames == shown == self._frames else f"{frames} frames, {shown} shown, {self._frames} expected"


class LiveCaller(StreamCaller):
    """Speaks half a second into a session of `live` at the pace of speech, and counts the frames."""

    kind = "live"

    def __init__(self, stack: SoakStack, outcomes: Outcomes, gate: Gate, seed: int, case: FormCase) -> None:
        super().__init__(stack, outcomes, gate, seed)
        self._face = case.face
        self._speech, rate = soundfile.read(SAMPLES / "speech.wav", dtype="float32", frames=8000)
        assert rate == 16_000

    def stream(self, client: AvatarClient) -> str:
        """Run one session."""
        pieces = np.split(self._speech.astype(np.float32), 10)
        indexes: list[int] = []
        with client.live(self._face, format="jpeg") as session:
            self.responded()
            for piece in pieces[:-1]:
                session.send(piece)
                time.sleep(len(piece) / 16_000)
                indexes += self._take(session.frames(block=False))
            session.end(pieces[-1])
            indexes += self._take(session.frames())
            frames = session.summary.frames if session.summary else -1
        return "" if indexes == list(range(frames)) else f"frames {indexes} of {frames}"

    def _take(self, frames: Iterable[Frame]) -> list[int]:
        taken = []
        for frame in frames:
            self.responded()
            taken.append(frame.index)
        return taken
