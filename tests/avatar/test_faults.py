"""Which errors show a fault of the machine."""

import errno
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from avatar.context import JobContext, RequestLogger
from avatar.errors import FfmpegFault, InvalidField, MachineFault, ResourceFault, StorageFault, Unavailable
from avatar.faults import check_writable, machine_fault
from avatar.media.image import load_image
from avatar.testing import FakeInference
from tests.support.media import write_still

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ENOSPC, "x"), StorageFault),
        (OSError(errno.EROFS, "x"), StorageFault),
        (OSError(errno.EMFILE, "x"), ResourceFault),
        (OSError(errno.ENOMEM, "x"), ResourceFault),
        (RuntimeError("can't start new thread"), ResourceFault),
    ],
)
def test_errors_of_the_machine_are_faults_with_their_cause(error: Exception, kind: type[MachineFault]) -> None:
    fault = machine_fault(error)
    assert type(fault) is kind
    assert fault.__cause__ is error
    assert isinstance(fault, Unavailable)
    assert fault.retry_after > 0


@pytest.mark.parametrize(
    "error",
    [
        OSError("a truncated image"),
        OSError(errno.EPIPE, "x"),
        ConnectionResetError(errno.ECONNRESET, "x"),
        TimeoutError(),
        RuntimeError("a bug"),
        ValueError("a bug"),
        InvalidField("face_file", "not an image"),
    ],
)
def test_other_errors_are_not(error: Exception) -> None:
    assert machine_fault(error) is None


def test_a_fault_stays_the_same() -> None:
    fault = FfmpegFault("ffmpeg was killed")
    assert machine_fault(fault) is fault


def test_a_missing_file_is_a_fault_only_if_its_folder_is_gone(tmp_path: Path) -> None:
    for path, is_fault in ((tmp_path / "file", False), (tmp_path / "folder" / "file", True)):
        with pytest.raises(FileNotFoundError) as error:
            path.read_bytes()
        assert (machine_fault(error.value) is not None) is is_fault


def test_too_little_memory_is_a_fault_only_if_an_ordinary_allocation_fails() -> None:
    assert machine_fault(MemoryError()) is None  # a damaged file can ask for any amount
    code = (
        "import resource; from avatar.faults import machine_fault\n"
        "resource.setrlimit(resource.RLIMIT_AS, (200 << 20, resource.RLIM_INFINITY))\n"
        "print(machine_fault(MemoryError()).reason)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "not enough memory\n", done.stderr


def test_a_folder_that_is_gone_cannot_be_written(tmp_path: Path) -> None:
    check_writable(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StorageFault):
        check_writable(tmp_path / "gone")


def test_an_image_is_not_blamed_for_missing_descriptors(tmp_path: Path) -> None:
    face = write_still(tmp_path / "face.png")
    load_image(face)  # loads the decoders
    lowest_free = os.open("/dev/null", os.O_RDONLY)
    os.close(lowest_free)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest_free, before[1]))
    try:
        with pytest.raises((ResourceFault, OSError)) as error:
            load_image(face)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert isinstance(machine_fault(error.value), ResourceFault)


def test_an_error_of_the_machine_leaves_a_job_as_a_fault(caplog: pytest.LogCaptureFixture) -> None:
    job = JobContext(FakeInference(lambda _: None), RequestLogger("an-id"))
    with pytest.raises(StorageFault) as fault, job.failure_logged():
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/a/path")
    assert "/a/path" not in str(fault.value)
    assert any("/a/path" in record.getMessage() for record in caplog.records)
