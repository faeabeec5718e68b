"""Try Triton's protocols that are not for callers, without its token: side_doors.py HOST:PORT."""

import sys
from collections.abc import Callable

from tritonclient.grpc import InferenceServerClient
from tritonclient.utils import InferenceServerException

client = InferenceServerClient(sys.argv[1])
DOORS: dict[str, Callable[[], object]] = {
    "shared memory": lambda: client.get_system_shared_memory_status(),
    "registering": lambda: client.register_system_shared_memory("x", "/x", 16),
    "repository": lambda: client.get_model_repository_index(),
    "log": lambda: client.update_log_settings({"log_info": False}),
    "trace": lambda: client.get_trace_settings(),
}
for name, call in DOORS.items():
    try:
        call()
        print(name, "is open")
    except InferenceServerException as error:
        print(name, "shut" if "restricted" in str(error) else f"is open: {error}")
