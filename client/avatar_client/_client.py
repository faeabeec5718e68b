"""The client: one object a server."""

from __future__ import annotations

import sys
import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import grpc
from tritonclient.grpc import service_pb2 as pb

from . import _messages, _models, _options
from ._connection import READY_SECONDS, Connection
from ._errors import Cancelled, Failed, of_call
from ._infer import Calls
from ._live import LiveSession
from ._messages import Message, Sent
from ._models import Boxes, Floats, Pictures
from ._options import File, LiveOptions, RenderOptions
from ._render import Rendering
from ._schema import AVATAR, BACKGROUND_FILE, FACE_FILE, LIPSYNC, SPEECH_FILE
from ._shared_memory import Memory

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Net = Literal["wav2lip", "wav2lip_gan"]


class AvatarClient:
    """Calls one server's models over gRPC. Any thread may use it; nothing is connected before the first call.

    All calls raise AvatarClientError: `Refused` (the input), `Unavailable` (not reached, not ready, busy, silent),
    `Failed` (the server), `Cancelled`. A call that could not be delivered is repeated, a video only as long as nothing
    of it has come, a live session never.
    """

    def __init__(self, address: str, *, timeout: float = 120.0, retries: int = 2, shared_memory: bool = True) -> None:
        """Made for `with`, or `close` at the end.

        Args:
            address: host:port of Triton's gRPC.
            timeout: seconds for a call, its repetitions included; of a stream, for the first answer, and then between
                two of them.
            retries: how many times a call may be repeated.
            shared_memory: False sends everything by gRPC; True, large arrays through memory that both see, where the
                server is on this machine.

        Raises:
            ValueError: a value that makes no sense.
        """
        if address.startswith(("http://", "https://")) or not address:
            raise ValueError(f"host:port of Triton's gRPC expected, got {address!r}")
        if not timeout > 0 or retries < 0:
            raise ValueError(f"a positive timeout and no negative retries expected, got {timeout} and {retries}")
        self._connection = Connection.to(address, timeout, retries)
        memory = Memory(self._connection.stub) if shared_memory and sys.platform == "linux" else None
        self._infer = Calls(self._connection, memory).infer
        self._streams: weakref.WeakSet[Rendering | LiveSession] = weakref.WeakSet()
        # also where nobody closes it: what the server maps for us would stay
        self._let_go = weakref.finalize(self, _let_go, self._connection, memory)

    def close(self) -> None:
        """Cancel what is under way and let go of the connection and the shared memory."""
        for stream in list(self._streams):
            stream.cancel()
        self._let_go()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_ready(self, *models: str) -> bool:
        """Whether the server, and each of the named models, says within two seconds that it is ready."""
        stub = self._connection.stub
        try:
            if not stub.ServerReady(pb.ServerReadyRequest(), timeout=READY_SECONDS).ready:
                return False
            asked = [pb.ModelReadyRequest(name=name) for name in models]
            return all(stub.ModelReady(each, timeout=READY_SECONDS).ready for each in asked)
        except (grpc.RpcError, ValueError):  # ValueError: closed
            return False

    def api_version(self) -> str:
        """The version of the server's tensors, such as `1.0`; this client was written from `protocol.API_VERSION`.

        Where the first number differs, something that callers rely on is another one.

        Raises:
            AvatarClientError: the server cannot be asked, or says none.
        """
        asked = pb.ModelConfigRequest(name=AVATAR.name)
        try:
            config = self._connection.stub.ModelConfig(asked, timeout=READY_SECONDS).config
        except grpc.RpcError as error:
            raise of_call(error, self._connection.address) from error
        except ValueError:
            raise Cancelled("the client was closed") from None
        if "api_version" not in config.parameters:
            raise Failed(f"{self._connection.address} serves models without a version")
        return str(config.parameters["api_version"].string_value)

    def render(self, face: File, audio: File, /, **chosen: Unpack[RenderOptions]) -> Rendering:
        """A video of the face speaking: progress and the video's bytes, as they are made.

        Both files are given by position: `face=` is the option, whose lips move.

        Args:
            face: a picture or a video, its bytes or its path.
            audio: a recording, its bytes or its path.
            chosen: the form's options, such as `background="White"`, `pads=(0, 20, 0, 0)`, `smooth=False`, and
                `background_file`, bytes or a path.

        Raises:
            TypeError: there is no such option, or its value is of no type that stands for text.
        """
        texts = _options.with_type(_options.texts(chosen, _options.RENDER_NAMES), face)
        backdrop = chosen.get("background_file")

        def request() -> Message:
            files = [
                _messages.of_file(FACE_FILE, _options.read(face)),
                _messages.of_file(SPEECH_FILE, _options.read(audio)),
            ]
            return _messages.request(AVATAR.name, [*files, *_looks(texts, backdrop)])

        rendering = Rendering(self._connection, request)
        self._streams.add(rendering)
        return rendering

    def live(self, face: File, /, **chosen: Unpack[LiveOptions]) -> LiveSession:
        """Begin a live session, and wait until the server has.

        It is over when nothing is sent for ten seconds: in a pause, send silence.

        Args:
            face: a picture or a short video, its bytes or its path.
            chosen: the form's options but those of the encoder and of a video's background, and `format`: what frames
                come as, `bgr`, `jpeg` or `mouth`.

        Raises:
            TypeError: as `render`.
            OSError: a file cannot be read.
            AvatarClientError: it was not begun: `Refused`, or `Unavailable` where the server has as many as it bears.
        """
        texts = _options.with_type(_options.texts(chosen, _options.LIVE_NAMES), face)
        looks = _looks(texts, chosen.get("background_file"))
        session = LiveSession(self._connection, [_messages.of_file(FACE_FILE, _options.read(face)), *looks])
        self._streams.add(session)
        return session

    def detect_faces(self, frames: Pictures) -> tuple[Floats, Floats]:
        """Faces of pictures, in calls of four.

        Args:
            frames: UINT8 [n,H,W,3] BGR.

        Returns:
            boxes FP32 [n,16,4], x1 y1 x2 y2 in pixels, best first; scores FP32 [n,16], over 0.5 to 1, 0 where there
            is no face.

        Raises:
            AvatarClientError: as the class says; `Refused` also for an array of another shape or type.
        """
        return _models.detect_faces(self._infer, frames)

    def mel(self, audio: Floats, fps: float = 25.0) -> Floats:
        """Speech as mel windows, one a frame.

        Args:
            audio: FP32 [n], 16 kHz mono, full scale ±1; NaN and infinities count as 0.
            fps: frames a second.

        Returns:
            FP32 [frames,80,16].

        Raises:
            AvatarClientError: as `detect_faces`.
        """
        return _models.mel(self._infer, audio, fps)

    def lipsync(self, frames: Pictures, boxes: Boxes, mel: Floats, model: Net = "wav2lip") -> Pictures:
        """Mouths that say what the windows sound like, in calls of 32.

        Args:
            frames: UINT8 [n,H,W,3] BGR, or one that serves all windows.
            boxes: INT32 [n,4], x1 y1 x2 y2 in pixels, x2 and y2 exclusive, inside the frames; or one for all.
            mel: FP32 [n,80,16].
            model: the generator.

        Returns:
            UINT8 [n,96,96,3] BGR, each to be brought to its box's size; `paste` does that.

        Raises:
            AvatarClientError: as `detect_faces`; `Refused` also for a box that is empty or outside.
            ValueError: there is no such generator.
        """
        if model not in LIPSYNC:
            raise ValueError(f"model: one of {', '.join(LIPSYNC)} expected, got {model!r}")
        return _models.lipsync(self._infer, LIPSYNC[model], frames, boxes, mel)

    def paste(self, frames: Pictures, boxes: Boxes, mouths: Pictures) -> Pictures:
        """Mouths put back over their boxes.

        Args:
            frames, boxes: as `lipsync`.
            mouths: UINT8 [n,96,96,3] BGR.

        Returns:
            UINT8 [n,H,W,3] BGR, new ones.

        Raises:
            AvatarClientError: as `lipsync`.
        """
        return _models.paste(self._infer, frames, boxes, mouths)


def _looks(texts: dict[str, str], backdrop: File | None) -> list[Sent]:
    """The inputs beside face and speech. Raises OSError."""
    files = [] if backdrop is None else [_messages.of_file(BACKGROUND_FILE, _options.read(backdrop))]
    return [*files, *(_messages.of_text_input(*each) for each in texts.items())]


def _let_go(connection: Connection, memory: Memory | None) -> None:
    if memory:
        memory.close()
    connection.channel.close()
