"""Kill a server that has lost a model: its callers then get an error at once, and a supervisor can restart it."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from .canary import GrpcCaller
from .errors import ServerEnded
from .model_watch import ModelWatch
from .progress import Progress
from .watchdog import kill_group


class ModelGuard:
    """A thread that watches one running server; see `embedded.model_watch`.

    Attributes:
        fault: why the server was killed; None while it runs, and where it ended for another reason.
    """

    def __init__(
        self, server: int, models: Iterable[str], grpc_address: str | None, metrics_address: str, *, reloads: bool
    ) -> None:
        """Prepare the guard of the server with this process id; without a gRPC address it makes no tiny calls."""
        self.fault: ServerEnded | None = None
        self._server = server
        self._caller = GrpcCaller(grpc_address) if grpc_address else None
        finished = Progress(metrics_address).finished
        self._watch = ModelWatch(server, models, self._caller, finished, reloads=reloads)
        self._thread = threading.Thread(target=self._run, name="model-guard", daemon=True)

    def start(self) -> None:
        """Start to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching, before the server is stopped: from then on models end rightly."""
        self._watch.stop()
        if self._caller:
            self._caller.close()
        self._thread.join()

    def wait(self) -> None:
        """Return when every process of the server that was killed has ended, or after five seconds."""
        self._thread.join()

    def _run(self) -> None:
        self.fault = self._watch.run()
        if self.fault:
            # not stopped gently: that takes ten seconds after the death of a stub, in which streams get no answer
            kill_group(self._server)
