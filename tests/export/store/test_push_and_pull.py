"""Repositories are pushed and pulled: through a folder, and through a real S3 server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from export.cli import main
from export.errors import ExportError
from export.store import swap
from export.store.blobs import Blobs
from export.store.download import TRIES, Download
from export.store.errors import Interrupted, StoreError
from export.store.layout import blob_key, manifest_key, tag_key
from export.store.manifest import Manifest, StoredFile, digest_of
from export.store.pull import PullOptions, pull
from export.store.push import push
from tests.support import stored_repository
from tests.support.seaweedfs import SeaweedFS
from tests.support.stored_repository import content

ROOT = Path(__file__).parents[3]
HEAVY = ("torch", "tensorflow", "onnx", "onnxruntime", "openvino", "nncf", "librosa", "tritonclient", "google.protobuf")


def use(monkeypatch: pytest.MonkeyPatch, server: SeaweedFS, **changes: str) -> None:
    for name, value in {**server.environment(), **changes}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    return stored_repository.write(tmp_path / "built" / "repository")


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The location of an empty store."""
    if request.param == "folder":
        return str(tmp_path / "store")
    server: SeaweedFS = request.getfixturevalue("s3_server")
    use(monkeypatch, server)
    return server.url(f"models-{tmp_path.name}")


@pytest.fixture
def folder_store(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "node" / "repository"


def quiet(_: str) -> None:
    pass


def keys(tmp_path: Path, name: str) -> tuple[Path, Path]:
    """Make a private and a public key."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_a_pulled_repository_is_the_one_that_was_pushed(repository: Path, store: str, target: Path) -> None:
    digest = push(repository, store, quiet)
    assert pull(store, target, quiet) == digest
    assert content(target) == content(repository)
    assert (target / "detect_faces" / "1").is_dir()
    assert [path.name for path in target.parent.iterdir()] == ["repository"]


def test_a_version_folder_with_nothing_but_a_hidden_file_is_there_after_a_pull(
    repository: Path, folder_store: Path, target: Path
) -> None:
    (repository / "detect_faces" / "1" / ".gitkeep").touch()  # as in the committed repository; Triton wants the folder
    push(repository, str(folder_store), quiet)
    pull(str(folder_store), target, quiet)
    assert (target / "detect_faces" / "1").is_dir()
    assert not any((target / "detect_faces" / "1").iterdir())


def test_what_the_store_has_is_not_sent_again(repository: Path, store: str) -> None:
    first = push(repository, store, quiet)
    lines: list[str] = []
    assert push(repository, store, lines.append) == first
    assert lines[0].startswith("0 of ")
    assert lines[-1].endswith("latest already named it")
    (repository / "wav2lip" / "config.pbtxt").write_text('name: "wav2lip"\nmax_batch_size: 4\n')
    assert push(repository, store, lines.append) != first
    assert lines[2].startswith("1 of ")


def test_a_tag_and_a_hash_lead_to_the_repository_of_their_time(repository: Path, store: str, target: Path) -> None:
    old, before = push(repository, store, quiet, tag="stable"), content(repository)
    (repository / "wav2lip" / "1" / "model.onnx").write_bytes(b"other weights")
    push(repository, store, quiet)
    pull(store, target, quiet)
    assert content(target) == content(repository)
    for name in ("stable", f"sha256:{old}"):
        pull(f"{store}@{name}", target, quiet)
        assert content(target) == before


def test_the_manifest_has_the_facts_and_the_report_of_every_export(repository: Path, folder_store: Path) -> None:
    digest = push(repository, str(folder_store), quiet)
    manifest = json.loads((folder_store / manifest_key(digest)).read_text())
    version = manifest["networks"]["wav2lip"]["1"]
    assert version["format"] == "onnx"
    assert version["weights"] == "stand-in"
    assert version["report"] == {"results": [{"score": 61.0}]}
    assert manifest["profile"] == "cpu"


def test_unchanged_files_stay_the_same_files(repository: Path, folder_store: Path, target: Path) -> None:
    push(repository, str(folder_store), quiet)
    pull(str(folder_store), target, quiet)
    model = target / "wav2lip" / "1" / "model.onnx"
    before = model.stat().st_ino
    (repository / "wav2lip" / "config.pbtxt").write_text("changed")
    push(repository, str(folder_store), quiet)
    lines: list[str] = []
    pull(str(folder_store), target, lines.append)
    assert lines[0].startswith("1 of ")
    assert model.stat().st_ino == before


def test_a_repository_that_is_up_to_date_is_not_touched(repository: Path, folder_store: Path, target: Path) -> None:
    push(repository, str(folder_store), quiet)
    pull(str(folder_store), target, quiet)
    inode = target.stat().st_ino
    lines: list[str] = []
    pull(str(folder_store), target, lines.append)
    assert "up to date" in lines[0]
    assert target.stat().st_ino == inode


def test_files_that_were_changed_or_added_on_the_node_are_put_right(
    repository: Path, folder_store: Path, target: Path
) -> None:
    push(repository, str(folder_store), quiet)
    pull(str(folder_store), target, quiet)
    (target / "avatar" / "1" / "model.py").write_text("import os")
    (target / "avatar" / "1" / "other.py").write_text("import os")
    pull(str(folder_store), target, quiet)
    assert content(target) == content(repository)


def test_a_plan_is_not_pushed_and_its_network_is_served_from_its_onnx_file(
    repository: Path, folder_store: Path, target: Path
) -> None:
    model = repository / "wav2lip"
    (model / "configs").mkdir()
    (model / "configs" / "onnx.pbtxt").write_text("for onnx")
    (model / "configs" / "tensorrt.pbtxt").write_text("for the plan")
    (model / "config.pbtxt").write_text("for the plan")
    (model / "1" / "model.plan").write_bytes(b"of one GPU")
    push(repository, str(folder_store), quiet)
    pull(str(folder_store), target, quiet)
    assert (target / "wav2lip" / "config.pbtxt").read_text() == "for onnx"
    assert not (target / "wav2lip" / "1" / "model.plan").exists()


@pytest.mark.parametrize("damaged", [b"WEIGHTS", b"weight", b"weights and more"])
def test_a_content_that_does_not_have_its_hash_changes_nothing(
    repository: Path, folder_store: Path, target: Path, damaged: bytes
) -> None:
    push(repository, str(folder_store), quiet)
    pull(str(folder_store), target, quiet)
    before = content(target)
    (repository / "wav2lip" / "1" / "model.onnx").write_bytes(b"new weights, which differ")
    digest = push(repository, str(folder_store), quiet)
    manifest = json.loads((folder_store / manifest_key(digest)).read_text())
    (changed,) = [file["sha256"] for file in manifest["files"] if file["path"] == "wav2lip/1/model.onnx"]
    (folder_store / blob_key(changed)).write_bytes(damaged)
    with pytest.raises(StoreError, match=r"wav2lip/1/model\.onnx"):
        pull(str(folder_store), target, quiet)
    assert content(target) == before


def test_a_manifest_that_does_not_have_its_hash_is_rejected(repository: Path, folder_store: Path, target: Path) -> None:
    digest = push(repository, str(folder_store), quiet)
    (folder_store / manifest_key(digest)).write_bytes(b"{}")
    with pytest.raises(StoreError, match="does not have the hash"):
        pull(f"{folder_store}@sha256:{digest}", target, quiet)
    assert not target.exists()


def test_a_hostile_manifest_writes_nothing_outside(folder_store: Path, target: Path, tmp_path: Path) -> None:
    hostile = Manifest("0.1.0", "cpu", (StoredFile("../../outside", digest_of(b"x"), 1),)).to_bytes()
    store = Blobs.open(str(folder_store), create=True)
    store.put(blob_key(digest_of(b"x")), b"x")
    store.put(manifest_key(digest_of(hostile)), hostile)
    store.put(tag_key("latest"), digest_of(hostile).encode())
    with pytest.raises(StoreError, match="no path of a model repository"):
        pull(str(folder_store), target, quiet)
    assert not (tmp_path / "outside").exists()
    assert not target.exists()


def test_only_a_manifest_that_was_signed_with_the_key_is_pulled(
    repository: Path, store: str, target: Path, tmp_path: Path
) -> None:
    private, public = keys(tmp_path, "ours")
    _, other = keys(tmp_path, "other")
    push(repository, store, quiet)
    with pytest.raises(StoreError, match="not signed"):
        pull(store, target, quiet, PullOptions(verify_key=public))
    push(repository, store, quiet, sign_key=private)
    with pytest.raises(StoreError, match=r"was not made with the key of .*other\.pub"):
        pull(store, target, quiet, PullOptions(verify_key=other))
    assert not target.exists()
    pull(store, target, quiet, PullOptions(verify_key=public))
    assert content(target) == content(repository)


class Unsteady(Blobs):
    """A store that ends each answer after some bytes, as a connection that breaks."""

    def __init__(self, base: Blobs, limit: int, failures: int) -> None:
        super().__init__(base.location, base._store)
        self._limit, self.failures = limit, failures
        self.starts: list[int] = []

    def chunks(self, key: str, start: int = 0) -> Iterator[bytes]:
        self.starts.append(start)
        content = b"".join(super().chunks(key, start))
        if not self.failures:
            yield content
            return
        self.failures -= 1
        yield content[: self._limit]
        raise Interrupted("the connection broke")


def one_file(folder_store: Path) -> tuple[Blobs, Manifest]:
    store = Blobs.open(str(folder_store), create=True)
    data = bytes(range(100))
    store.put(blob_key(digest_of(data)), data)
    return store, Manifest("0.1.0", "cpu", (StoredFile("wav2lip/1/model.onnx", digest_of(data), 100),))


def test_a_broken_connection_is_resumed_where_it_broke(folder_store: Path, tmp_path: Path) -> None:
    base, manifest = one_file(folder_store)
    store = Unsteady(base, 30, failures=2)
    Download(store, tmp_path / "node", quiet, 60.0, pause=0.0).fetch(manifest, ())
    assert store.starts == [0, 30, 60]
    assert (tmp_path / "node" / manifest.files[0].sha256).read_bytes() == bytes(range(100))


def test_a_pull_that_was_killed_goes_on_where_it_ended(folder_store: Path, tmp_path: Path) -> None:
    base, manifest = one_file(folder_store)
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / f"{manifest.files[0].sha256}.part").write_bytes(bytes(range(70)))
    (tmp_path / "node" / "of-another-pull").write_bytes(b"x")
    store = Unsteady(base, 0, failures=0)
    Download(store, tmp_path / "node", quiet, 60.0).fetch(manifest, ())
    assert store.starts == [70]
    assert [path.name for path in (tmp_path / "node").iterdir()] == [manifest.files[0].sha256]


def test_a_wrong_part_of_an_earlier_pull_is_fetched_again(folder_store: Path, tmp_path: Path) -> None:
    base, manifest = one_file(folder_store)
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / f"{manifest.files[0].sha256}.part").write_bytes(b"?" * 70)
    store = Unsteady(base, 0, failures=0)
    Download(store, tmp_path / "node", quiet, 60.0).fetch(manifest, ())
    assert store.starts == [70, 0]


def test_tries_are_bounded_in_number_and_in_time(folder_store: Path, tmp_path: Path) -> None:
    base, manifest = one_file(folder_store)
    store = Unsteady(base, 0, failures=1000)
    with pytest.raises(StoreError, match="the connection broke"):
        Download(store, tmp_path / "a", quiet, 60.0, pause=0.0).fetch(manifest, ())
    assert len(store.starts) == TRIES
    with pytest.raises(StoreError, match=r"not complete after 0 s \(--timeout\)"):
        Download(store, tmp_path / "b", quiet, 0.0).fetch(manifest, ())


@pytest.mark.parametrize("exchange", [True, False])
def test_a_folder_takes_the_place_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: bool) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not exchange:
        monkeypatch.setattr(swap, "_exchange", unsupported)
    swap.put_in_place(tmp_path / "new", tmp_path / "old")
    assert [path.name for path in (tmp_path / "old").iterdir()] == ["new"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["old"]


def unsupported(first: Path, second: Path) -> None:
    raise OSError(22, "Invalid argument")


def test_a_folder_with_other_files_is_not_replaced(repository: Path, folder_store: Path, tmp_path: Path) -> None:
    push(repository, str(folder_store), quiet)
    (tmp_path / "home" / "documents").mkdir(parents=True)
    with pytest.raises(ExportError, match="documents is no model of this project"):
        pull(str(folder_store), tmp_path / "home", quiet)
    with pytest.raises(ExportError, match="holds the committed models"):
        pull(str(folder_store), ROOT / "model_repository", quiet)


@pytest.mark.parametrize(
    ("location", "changes", "message"),
    [
        ("s3://no-such-bucket/models", {}, "the bucket does not exist"),
        ("s3://avatar-test/models", {"AWS_SECRET_ACCESS_KEY": "wrong"}, "refuses access with these credentials"),
        ("s3://avatar-test/nothing", {}, "nothing was pushed here as 'latest'"),
    ],
)
def test_a_store_that_fails_is_named_in_one_sentence(
    location: str,
    changes: dict[str, str],
    message: str,
    s3_server: SeaweedFS,
    target: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    use(monkeypatch, s3_server, **changes)
    assert main(["pull", location, "--repository", str(target)]) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not target.exists()


def test_a_push_with_keys_that_may_only_read_fails_in_one_sentence(
    repository: Path, s3_server: SeaweedFS, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, s3_server, **s3_server.environment(read_only=True))
    assert main(["push", s3_server.url("read-only"), "--repository", str(repository)]) == 1
    assert "refuses access with these credentials" in capsys.readouterr().err


def test_a_server_that_cannot_be_reached_is_named_in_one_sentence(
    target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], s3_server: SeaweedFS
) -> None:
    monkeypatch.setattr("export.store.blobs._RETRIES", {"max_retries": 0})
    use(monkeypatch, s3_server, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    assert main(["pull", "s3://avatar-test/models", "--repository", str(target)]) == 1
    assert capsys.readouterr().err == "export: s3://avatar-test/models: the store cannot be reached\n"


def test_the_source_may_come_from_the_environment(repository: Path, folder_store: Path, target: Path) -> None:
    push(repository, str(folder_store), quiet)
    command = [sys.executable, "-m", "export", "pull", "--repository", str(target)]
    base = {name: value for name, value in os.environ.items() if not name.startswith("AVATAR_")}
    ended = subprocess.run(command, cwd=ROOT, env=base, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert "AVATAR_MODEL_STORE" in ended.stderr
    # the same process shows that a node needs none of the exporter's packages
    code = f"""
import sys
from export.cli import main
for name in {HEAVY!r}:
    sys.modules[name] = None
sys.exit(main({command[3:]!r}))
"""
    environment = {**base, "AVATAR_MODEL_STORE": str(folder_store)}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, timeout=120, check=True)
    assert content(target) == content(repository)
