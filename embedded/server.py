"""NVIDIA's Triton server from its PyPI wheel, as a context manager.

with Triton(Path("build/repository")) as triton:
    client = InferenceServerClient(triton.grpc_address)
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from lipsync.triton.cpu import usable_cores

from . import access, backend_directory, command_line, installation, ports
from .errors import BadRepository, EmbeddedError, ServerDied, StartFailed
from .last_words import describe_end, describe_status
from .model_guard import ModelGuard
from .process import ServerProcess
from .ready_check import is_ready
from .startup_log import StartupLog

# The models load in a few seconds, but a cold disk can be slow. A network that is compiled takes minutes.
START_SECONDS = 300.0
# The server waits this long for requests in flight and for its models. 2.51 then hangs in its exit if a stream is open.
STOP_SECONDS = command_line.EXIT_SECONDS + 2.0
_POLL_SECONDS = 0.05
_PROGRESS_SECONDS = 3.0


class Triton:
    """A Triton server on 127.0.0.1 for one model repository; it is ready when every model is ready.

    Args:
        repository: the model repository.
        http_port: by default HTTP is off.
        grpc_port, metrics_port: ports of 127.0.0.1; 0 chooses a free one, as for `http_port`.
        log: file for the server's log; that of the run before gets the suffix `.1`. By default a file in the temporary
            folder, removed when the server stops.
        threads: threads per model; by default the number of cores that this process may use.
        poll: seconds between checks of the repository for changes, which the server then loads; by default there are
            no checks.
        canaries: whether tiny calls are made to notice a model that hangs. A model whose process died or is stopped is
            noticed in any case. The server is killed then, and `wait` raises the reason.
        token: what the endpoints for operators require (`access.RESTRICTED`); by default a random one for each start.
        on_progress: takes a line of progress every few seconds while models load.
        start_timeout, stop_timeout: seconds, after which the server is killed.
        env: environment variables for the server and its Python models, added to those of this process.
    """

    def __init__(
        self,
        repository: Path,
        http_port: int | None = None,
        grpc_port: int = 0,
        metrics_port: int = 0,
        log: Path | None = None,
        threads: int | None = None,
        *,
        poll: int | None = None,
        canaries: bool = False,
        token: str | None = None,
        on_progress: Callable[[str], None] | None = None,
        start_timeout: float = START_SECONDS,
        stop_timeout: float = STOP_SECONDS,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._repository = repository
        self._requested: dict[str, int | None] = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._log = log
        self._poll = poll
        self._canaries = canaries
        self._threads = threads or usable_cores()
        self._on_progress = on_progress or (lambda line: None)
        self._start_timeout = start_timeout
        self._stop_timeout = stop_timeout
        self._env = dict(env or {})
        self._given_token = None if token is None else access.check_token(token)
        self._token = self._given_token or access.make_token()
        self._process: ServerProcess | None = None
        self._guard: ModelGuard | None = None
        self._ports = ports.Ports(http_port, grpc_port, metrics_port)

    @property
    def http_address(self) -> str:
        """Return `127.0.0.1:PORT` of HTTP. Raises EmbeddedError where HTTP is off."""
        if self._ports.http is None:
            raise EmbeddedError("HTTP is off; give `http_port` to have it")
        return f"{ports.HOST}:{self._ports.http}"

    @property
    def grpc_address(self) -> str:
        """Return `127.0.0.1:PORT` of gRPC."""
        return f"{ports.HOST}:{self._ports.grpc}"

    @property
    def metrics_address(self) -> str:
        """Return `127.0.0.1:PORT` of the Prometheus metrics."""
        return f"{ports.HOST}:{self._ports.metrics}"

    @property
    def token(self) -> str:
        """Return the token of the endpoints for operators; without `token`, each start makes another one."""
        return self._token

    @property
    def admin_headers(self) -> dict[str, str]:
        """Return the gRPC metadata of a call to the endpoints for operators."""
        return {access.HEADER: self._token}

    @property
    def log_path(self) -> Path:
        """Return the path of the server's log; a default log is removed when the server stops."""
        return self._log_path

    @property
    def pid(self) -> int:
        """Return the process id of the running server."""
        if self._process is None:
            raise EmbeddedError("the server is not running")
        return self._process.pid

    def start(self) -> None:
        """Start the server and return when every model is ready.

        Raises:
            MissingDependency, BadRepository, PortBusy: raised before anything is started.
            StartFailed: a model did not load, the server ended, or the start timed out; the server is then stopped.
        """
        if self._process is not None:
            raise EmbeddedError("the server is running already")
        found = installation.find_installation()
        models = find_models(self._repository)
        self._ports = ports.choose(self._requested)
        self._token = self._given_token or access.make_token()
        process = ServerProcess()
        try:
            self._log_path = self._log or process.folder / "triton.log"
            backends = backend_directory.build_backends(process.folder, found)
            environ = os.environ | self._env
            argv = command_line.arguments(
                found, self._repository, backends, self._ports, process.shm_prefix, self._token, self._poll, environ
            )
            env = command_line.environment(found, self._threads, environ)
            self._log_path.parent.mkdir(parents=True, exist_ok=True)
            if self._log_path.exists():  # what the run before wrote at its end may explain it
                self._log_path.replace(f"{self._log_path}.1")
            with self._log_path.open("wb") as log:
                process.start(argv, env, log)
            self._wait_until_ready(process, models)
        except BaseException:  # Ctrl-C too, so that nothing is left running
            process.stop(self._stop_timeout)
            raise
        self._process = process
        self._serving_from = self._log_path.stat().st_size
        self._guard = ModelGuard(
            process.pid,
            models,
            self.grpc_address if self._canaries else None,
            self.metrics_address,
            reloads=self._poll is not None,
        )
        self._guard.start()

    def wait(self, timeout: float | None = None) -> None:
        """Wait until the server ends, or return after `timeout` seconds.

        Raises:
            ServerDied: the server ended by itself; the message has its exit status and its last error.
            ModelDied, ModelHung: a model was lost, and the server was killed.
        """
        if self._process is None or self._guard is None:
            raise EmbeddedError("the server is not running")
        deadline = None if timeout is None else time.monotonic() + timeout
        while deadline is None or time.monotonic() < deadline:
            status = self._process.exit_status(timeout=min(1.0, timeout or 1.0))
            if status is not None and self._guard.fault:
                self._guard.wait()  # Triton ends before the processes of its models
                raise self._guard.fault
            if status is not None:
                raise ServerDied(f"Triton ended by itself: {describe_end(status, self._log_path, self._serving_from)}")

    def stop(self) -> None:
        """Stop the server and remove its files and shared memory. Has no effect if it is not running."""
        process, self._process = self._process, None
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.stop()
        if process is not None:
            process.stop(self._stop_timeout)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_until_ready(self, process: ServerProcess, models: list[str]) -> None:
        state = StartupLog()
        begin = reported = time.monotonic()
        hidden = False
        with self._log_path.open(errors="replace") as log:
            while True:
                status = process.exit_status(timeout=_POLL_SECONDS)
                state.read(log)
                if not hidden and (state.loading or state.loaded or state.failed):  # it has read its arguments
                    hidden = self._hide_token(process)
                if status is not None:  # also if a model failed, after the server has tried the others
                    ended = f"Triton ended before it was ready ({describe_status(status)}){_error_of(state)}"
                    raise StartFailed(_describe_failures(state) or ended)
                if is_ready(self._ports):
                    return
                now = time.monotonic()
                if now - begin > self._start_timeout:
                    why = _describe_failures(state) or _describe_loading(state, models)
                    raise StartFailed(f"not ready after {self._start_timeout:g} s; {why}")
                if now - reported > _PROGRESS_SECONDS:
                    self._on_progress(f"{_describe_loading(state, models)} ({now - begin:.0f} s)")
                    reported = now

    def _hide_token(self, process: ServerProcess) -> bool:
        if not access.hide_argument(process.pid, self._token):
            self._on_progress("the token stays visible in the list of processes: the kernel does not let us hide it")
        return True


def find_models(repository: Path) -> list[str]:
    """Return the names of the models in a repository.

    Raises:
        BadRepository: the folder does not exist or has no models.
    """
    if not repository.is_dir():
        raise BadRepository(f"{repository}: no such folder; build a model repository with `python -m export models`")
    models = sorted(config.parent.name for config in repository.glob("*/config.pbtxt"))
    if not models:
        raise BadRepository(f"{repository}: no models here; build a model repository with `python -m export models`")
    return models


def _describe_failures(state: StartupLog) -> str:
    return "; ".join(f"model {model} does not load: {reason}" for model, reason in state.failed.items())


def _describe_loading(state: StartupLog, models: list[str]) -> str:
    waiting = [model for model in models if model not in state.loaded and model not in state.failed]
    line = f"{len(state.loaded)} of {len(models)} models loaded, waiting for {', '.join(waiting) or 'the server'}"
    return f"{line}; failed: {', '.join(state.failed)}" if state.failed else line


def _error_of(state: StartupLog) -> str:
    return f": {state.last_error}" if state.last_error else ""
