"""The client: one object per server."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Literal

import grpc
from tritonclient.grpc import service_pb2 as pb

from . import _messages, _models, _options
from ._async_jobs import AsyncAvatarJobs
from ._connection import READY_SECONDS
from ._errors import Cancelled, ServerError, from_rpc_error
from ._jobs import AvatarJobs
from ._kserve import InferRequest
from ._live import LiveSession
from ._live_inputs import LiveSettings
from ._live_start import start_session
from ._models import Boxes, Floats, Images
from ._options import File, LiveOptions, RenderOptions
from ._render import RenderStream
from ._rotation import Rotation, Server, addresses_of
from ._schema import AVATAR, FACE_FILE, LIPSYNC, SAMPLE_RATE, SPEECH_FILE
from .access import Token

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

Generator = Literal["wav2lip", "wav2lip_gan"]


class AvatarClient:
    """Calls the models of one server, or of several, over gRPC. Thread-safe; it connects at the first call.

    Every call raises AvatarClientError: `InvalidRequest` (the input), `Unavailable` (the server is not reachable, not
    ready, busy, or does not respond), `ServerError` (a defect of the server) or `Cancelled`. A call that could not be
    delivered is repeated, on another server where there is one: a video only until its first response. A live session
    stays with its server, and is started on another one only if it has not started.
    """

    def __init__(
        self,
        address: str | Sequence[str],
        *,
        timeout: float = 120.0,
        retries: int = 2,
        shared_memory: bool = True,
        token: str | None = None,
        http: str | None = None,
        key: str | None = None,
    ) -> None:
        """Make a client. Use it in a `with` block, or call `close` at the end.

        Args:
            address: host:port of Triton's gRPC; or several, as a sequence or separated by commas. `dns:///name:port` is
                all addresses of the name. Calls and streams use them in turn, and pass over those that fail.
            timeout: seconds for a call, including its repetitions; of a stream, until the first response and then
                between two responses.
            retries: how many times a call may be repeated.
            shared_memory: True sends large arrays through shared memory where the server is on the same machine;
                False sends everything by gRPC.
            token: the token that the server requires for shared memory; by default that of the environment,
                `AVATAR_TRITON_TOKEN` or the file `AVATAR_TRITON_TOKEN_FILE`. Without the right one, everything is sent
                by gRPC.
            http: the URL of the gateway, for `jobs` and `async_jobs`, such as `http://127.0.0.1:16000`.
            key: the API key that the gateway requires; by default that of the environment, `AVATAR_API_KEY`.

        Raises:
            ValueError: an invalid value.
        """
        addresses = addresses_of(address)
        if not timeout > 0 or retries < 0:
            raise ValueError(f"a positive timeout and no negative retries expected, got {timeout} and {retries}")
        self._gateway = (http, key, timeout, retries)
        if http is not None:
            AvatarJobs(http, key, timeout=timeout, retries=retries)  # raises ValueError
        use_memory = shared_memory and sys.platform == "linux"
        access = Token.from_environment() if token is None else Token(token)

        def connect(address: str) -> Server:
            return Server.connect(address, timeout, retries, access if use_memory else None)

        self._rotation = Rotation(addresses, connect)
        self._infer = self._rotation.infer
        self._streams: weakref.WeakSet[RenderStream | LiveSession] = weakref.WeakSet()
        # also where `close` is never called: the server would keep its mappings of our memory
        self._finalizer = weakref.finalize(self, self._rotation.close)

    @property
    def jobs(self) -> AvatarJobs:
        """Return the jobs of the gateway that was given as `http`. Raises ValueError without one."""
        url, key, timeout, retries = self._gateway
        return AvatarJobs(_needed(url), key, timeout=timeout, retries=retries)

    @property
    def async_jobs(self) -> AsyncAvatarJobs:
        """Return the same jobs for an event loop. Raises ValueError without `http`."""
        url, key, timeout, retries = self._gateway
        return AsyncAvatarJobs(_needed(url), key, timeout=timeout, retries=retries)

    def close(self) -> None:
        """Cancel the streams in flight, close the connection, and release the shared memory."""
        for stream in list(self._streams):
            stream.cancel()
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_ready(self, *models: str) -> bool:
        """Return whether a server, and each of the named models on it, says within two seconds that it is ready."""
        try:
            return any(self._is_ready(server, models) for server in self._rotation.each())
        except Cancelled:
            return False

    def wait_for_server(self, seconds: float) -> bool:
        """Wait until a server can be reached: whether one can be. Otherwise calls may find it up to 5 s later."""
        return self._rotation.wait_connected(seconds)

    def _is_ready(self, server: Server, models: Sequence[str]) -> bool:
        stub = server.connection.stub
        try:
            if not stub.ServerReady(pb.ServerReadyRequest(), timeout=READY_SECONDS).ready:
                return False
            asked = [pb.ModelReadyRequest(name=name) for name in models]
            return all(stub.ModelReady(each, timeout=READY_SECONDS).ready for each in asked)
        except (grpc.RpcError, ValueError):  # ValueError: closed
            return False

    def api_version(self) -> str:
        """Return the version of the server's tensors, such as `1.0`; this client was written for `_schema.API_VERSION`.

        Where the first number differs, the server has changed something that callers rely on.

        Raises:
            AvatarClientError: the server does not answer, or has no version.
        """
        asked, connection = pb.ModelConfigRequest(name=AVATAR.name), self._rotation.next().connection
        try:
            config = connection.stub.ModelConfig(asked, timeout=READY_SECONDS).config
        except grpc.RpcError as error:
            raise from_rpc_error(error, connection.address) from error
        except ValueError:
            raise Cancelled("the client was closed") from None
        if "api_version" not in config.parameters:
            raise ServerError(f"{connection.address} serves models without an API version")
        return str(config.parameters["api_version"].string_value)

    def render(self, face: File, audio: File, /, **chosen: Unpack[RenderOptions]) -> RenderStream:
        """Render a video of the face speaking: progress and the video's bytes come while they are made.

        Both files are given by position, because `face=` is the option that selects a face.

        Args:
            face: an image or a video, its bytes or its path.
            audio: an audio file, its bytes or its path.
            chosen: the form's options, such as `background="White"`, `pads=(0, 20, 0, 0)`, `smooth=False`, and
                `background_file`, bytes or a path.

        Raises:
            TypeError: an unknown option, or a value of a type that cannot become text.
        """
        texts = _options.with_type(_options.texts(chosen, _options.RENDER_NAMES), face)
        background_file = chosen.get("background_file")

        def request() -> InferRequest:
            files = [
                _messages.file_tensor(FACE_FILE, _options.read(face)),
                _messages.file_tensor(SPEECH_FILE, _options.read(audio)),
            ]
            return _messages.request(AVATAR.name, [*files, *_options.inputs(texts, background_file)])

        stream = RenderStream(self._rotation, request)
        self._streams.add(stream)
        return stream

    def live(
        self,
        face: File | None = None,
        /,
        *,
        sample_rate: int = SAMPLE_RATE,
        echo: bool = False,
        avatar: str | None = None,
        new_sequence: bool = False,
        **chosen: Unpack[LiveOptions],
    ) -> LiveSession:
        """Start a live session, and wait until the server has prepared it.

        The server ends a session that sends nothing for ten seconds: let it `rest` in a pause.

        Args:
            face: an image or a short video, its bytes or its path. With `avatar` it may be None; otherwise it is sent
                with the options if the server does not know the avatar any more.
            sample_rate: of the speech that will be sent, in Hz, 8000 to 48000.
            echo: whether each frame comes with the sound that belongs to it.
            avatar: the id of a prepared avatar, from the `info` of an earlier session; the options are those of that.
            new_sequence: whether the server chooses the id of the session, from its secret randomness.
            chosen: the form's options except `quality` and `background_video`, and `format`: the format of the frames,
                `bgr`, `jpeg` or `mouth`.

        Raises:
            TypeError: as `render`; or neither a face nor an avatar.
            OSError: a file cannot be read.
            AvatarClientError: the session did not start: `InvalidRequest`, with the code 404 for an unknown avatar, or
                `Unavailable` where the server's limit of sessions is reached.
        """
        settings = LiveSettings(sample_rate, echo, avatar, new_sequence)
        session = start_session(self._rotation, settings, face, chosen)
        self._streams.add(session)
        return session

    def detect_faces(self, frames: Images) -> tuple[Floats, Floats]:
        """Detect the faces of images, in calls of four.

        Args:
            frames: UINT8 [n,H,W,3] BGR.

        Returns:
            boxes FP32 [n,16,4], x1 y1 x2 y2 in pixels, best first; scores FP32 [n,16], over 0.5 to 1, 0 where there
            is no face.

        Raises:
            AvatarClientError: as the class says; `InvalidRequest` also for an array of another shape or type.
        """
        return _models.detect_faces(self._infer, frames)

    def mel(self, audio: Floats, fps: float = 25.0) -> Floats:
        """Return the mel windows of speech, one per frame.

        Args:
            audio: FP32 [n], 16 kHz mono, full scale ±1; NaN and infinities count as 0.
            fps: frames per second.

        Returns:
            FP32 [frames,80,16].

        Raises:
            AvatarClientError: as `detect_faces`.
        """
        return _models.mel(self._infer, audio, fps)

    def lipsync(self, frames: Images, boxes: Boxes, mel: Floats, model: Generator = "wav2lip") -> Images:
        """Generate the faces that speak what the windows contain, in calls of 32.

        Args:
            frames: UINT8 [n,H,W,3] BGR, or one that serves all windows.
            boxes: INT32 [n,4], x1 y1 x2 y2 in pixels, x2 and y2 exclusive, inside the frames; or one for all.
            mel: FP32 [n,80,16].
            model: the generator.

        Returns:
            UINT8 [n,96,96,3] BGR; `paste` scales each to its box.

        Raises:
            AvatarClientError: as `detect_faces`; `InvalidRequest` also for a box that is empty or outside its frame.
            ValueError: an unknown generator.
        """
        if model not in LIPSYNC:
            raise ValueError(f"model: one of {', '.join(LIPSYNC)} expected, got {model!r}")
        return _models.lipsync(self._infer, LIPSYNC[model], frames, boxes, mel)

    def paste(self, frames: Images, boxes: Boxes, mouths: Images) -> Images:
        """Paste generated faces over their boxes.

        Args:
            frames, boxes: as `lipsync`.
            mouths: UINT8 [n,96,96,3] BGR.

        Returns:
            UINT8 [n,H,W,3] BGR, in new memory.

        Raises:
            AvatarClientError: as `lipsync`.
        """
        return _models.paste(self._infer, frames, boxes, mouths)


def _needed(url: str | None) -> str:
    if url is None:
        raise ValueError("jobs are on the gateway: give its URL, as in AvatarClient(address, http='http://host:16000')")
    return url
