"""The Dockerfiles and docker/export.sh agree with the repository and with the programs that they call."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import lipsync
from avatar.settings import JobSettings, variable_of
from embedded import container
from export.cli import main as export
from gateway.settings import SETTINGS, Settings
from tests.support.dockerfiles import DOCKER, DOCKERFILES, ROOT, context, ignored, last_stage, step, steps

OFFICIAL = ("wav2lip.pth", "wav2lip_gan.pth", "s3fd.pth", "xception_pascalvoc.pb")


@pytest.fixture(params=DOCKERFILES)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return DOCKERFILES[request.param]


def test_hadolint_reports_nothing(dockerfile: Path) -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", dockerfile], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_base_images_are_pinned(dockerfile: Path) -> None:
    for image in base_images(dockerfile):
        assert re.fullmatch(r"(python:3\.11\.\d+-slim-bookworm|nvcr\.io/nvidia/tritonserver:\d\d\.\d\d-py3)", image)


def test_triton_is_not_older_than_the_release_that_fixed_its_published_vulnerabilities() -> None:
    (year, month) = re.findall(r"tritonserver:(\d\d)\.(\d\d)-py3", DOCKERFILES["triton"].read_text())[0]
    assert container.FLOOR == (26, 6)
    assert (int(year), int(month)) >= container.FLOOR


def test_every_image_has_labels_that_name_its_version_and_its_base(dockerfile: Path) -> None:
    (label,) = (each for each in last_stage(dockerfile) if each.name == "LABEL")
    labels = dict(word.split("=", 1) for word in label.words())
    prefix = "org.opencontainers.image."
    assert labels[f"{prefix}base.name"].endswith(base_images(dockerfile)[-1])
    assert labels[f"{prefix}version"] == "$AVATAR_VERSION"
    assert {f"{prefix}{name}" for name in ("title", "description", "licenses", "revision")} <= set(labels)
    versions = [each.rest for each in last_stage(dockerfile) if each.name == "ARG" and "VERSION" in each.rest]
    assert versions == [f"AVATAR_VERSION={lipsync.__version__}"]


def test_nothing_runs_as_root(dockerfile: Path) -> None:
    names = [each.name for each in steps(dockerfile)]
    assert step(dockerfile, "USER").rest == "1000:1000"
    after = names[len(names) - names[::-1].index("USER") :]
    assert not set(after) & {"COPY", "FROM", "USER"}  # a RUN there runs as that user


def base_images(dockerfile: Path) -> list[str]:
    return [each.rest.split()[0] for each in steps(dockerfile) if each.name == "FROM"]


def test_every_copied_path_is_in_the_build_context(dockerfile: Path) -> None:
    copies = [each for each in steps(dockerfile) if each.name == "COPY" and "--from" not in each.rest]
    assert copies
    for copy in copies:
        for source in copy.words()[:-1]:
            matching = [path for path in context() if source in (".", str(path), *map(str, path.parents))]
            assert matching, source


def test_the_context_holds_every_package_of_the_wheel_and_nothing_heavy() -> None:
    assert {"pyproject.toml", "requirements.lock", "README.md", "LICENSE"} <= set(map(str, context()))
    match = re.search(r"^packages.find.include = \[(.+)\]", (ROOT / "pyproject.toml").read_text(), re.M)
    assert match
    for package in re.findall(r'"(\w+)\*"', match[1]):
        for module in (ROOT / package).rglob("*.py"):
            assert module.relative_to(ROOT) in context()
    for path in ("weights/wav2lip.pth", ".venv/bin/python", "build/x", ".git/config", ".env", "tests/conftest.py"):
        assert ignored(Path(path)), path
    for path in (
        "docker/secret.key",
        "gateway/.env",
        "client/.env.local",
        "samples/tls.pem",
        "export/a.pth",
        "avatar/.netrc",
    ):
        assert ignored(Path(path)), path
    assert ignored(Path("lipsync/__pycache__/mel.pyc"))
    assert ignored(Path("model_repository/wav2lip/1/model.onnx"))
    assert sum((ROOT / path).stat().st_size for path in context()) < 10_000_000


def test_the_gateway_image_runs_the_gateway_on_its_default_port() -> None:
    gateway = DOCKERFILES["gateway"]
    assert step(gateway, "CMD").words() == ["python", "-m", "gateway"]
    port = str(Settings.model_fields["port"].default)
    assert step(gateway, "EXPOSE").words() == [port]
    assert port in step(gateway, "HEALTHCHECK").rest
    environment = " ".join(each.rest for each in steps(gateway) if each.name == "ENV")
    assert set(re.findall(r"AVATAR_\w+", environment)) <= {setting.variable for setting in SETTINGS}


def test_the_variables_of_triton_are_settings_of_the_job() -> None:
    environment = " ".join(each.rest for each in steps(DOCKERFILES["triton"]) if each.name == "ENV")
    named = set(re.findall(r"AVATAR_\w+", environment))
    assert {"AVATAR_WORK_DIR", "AVATAR_CACHE_DIR"} <= named <= set(map(variable_of, JobSettings.model_fields))


@pytest.mark.parametrize(
    "loading",
    [
        "import gateway.app, avatar.serving.live_model, lipsync.mel",
        "import export.cli; from export.validation import samples; "  # which loads the resampler with the first speech
        "samples._mel_windows(samples.Path('samples/speech.wav'))",
    ],
    ids=["service", "exporter"],
)
def test_no_numba_is_loaded_which_compiles_for_a_quarter_of_a_minute(loading: str) -> None:
    code = f"{loading}; import sys; print(sorted({{'numba', 'librosa', 'scipy', 'sklearn'}} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "[]"


def test_the_copied_files_can_be_read_by_the_user_of_the_image_whatever_the_umask_of_the_checkout() -> None:
    """`COPY` keeps modes; pip gives the files of a wheel its own."""
    for dockerfile in DOCKERFILES.values():
        stage = last_stage(dockerfile)
        copied = [each for each in stage if each.name == "COPY" and "--from" not in each.rest]
        opened = [each for each in stage if each.name == "RUN" and "chmod -R a+rX /opt/avatar" in each.rest]
        assert not copied or stage.index(opened[-1]) > stage.index(copied[-1]), dockerfile


class Script:
    """docker/export.sh with temporary folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.weights = folder / "weights"
        self.weights.mkdir()
        self.prefix: tuple[str, ...] = ()  # a command that runs the script

    def run(self, path: str | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        bash = shutil.which("bash")
        assert bash
        environment = {
            "PATH": os.pathsep.join([path or str(Path(sys.executable).parent), os.environ["PATH"]]),
            "WEIGHTS": str(self.weights),
            "CHECKPOINTS": str(self.folder / "kept"),
            "REPOSITORY": str(self.folder / "models" / "repository"),
        }
        return subprocess.run(
            [*self.prefix, bash, str(DOCKER / "export.sh")],
            cwd=ROOT,
            env=environment | variables,
            capture_output=True,
            text=True,
            timeout=300,
        )

    def run_fake(self, status: int = 0, /, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run the script with a Python that prints its arguments and ends with this status."""
        fake_python = self.folder / "bin" / "python"
        fake_python.parent.mkdir(exist_ok=True)
        fake_python.write_text(f'#!/bin/sh\necho "called $*"\nexit {status}\n')
        fake_python.chmod(0o755)
        return self.run(str(fake_python.parent), **variables)

    def calls(self, **variables: str) -> list[list[str]]:
        """Return the arguments of each call of Python."""
        done = self.run_fake(0, **variables)
        assert done.returncode == 0, done.stderr
        return _calls(done.stdout)


def _calls(output: str) -> list[list[str]]:
    return [line.split()[1:] for line in output.splitlines() if line.startswith("called ")]


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Script]:
    yield Script(tmp_path)


# tests/docker/test_clean_environments.py runs the script with the exporter
def test_a_failure_of_the_exporter_is_one_of_the_script_and_no_stand_ins_take_over(script: Script) -> None:
    (script.weights / "s3fd.pth").write_bytes(b"weights")
    done = script.run_fake(1)
    assert done.returncode == 1
    assert [call[2:5] for call in _calls(done.stdout)] == [["models", "--weights", str(script.weights)]]
    assert "STAND-INS" not in done.stdout


@pytest.mark.slow
def test_an_incomplete_set_of_weights_is_an_error_that_names_the_missing_files(script: Script) -> None:
    (script.weights / "s3fd.pth").write_bytes(b"weights")
    done = script.run()
    assert done.returncode == 1
    assert "wav2lip.pth" in done.stderr
    assert "STAND-INS" not in done.stdout


@pytest.mark.parametrize("file", OFFICIAL)
def test_weights_in_the_folder_are_used(script: Script, file: str) -> None:
    (script.weights / file).write_bytes(b"weights")
    (call,) = script.calls(AVATAR_ACCEPT_LICENSE="yes")
    assert call[:5] == ["-m", "export", "models", "--weights", str(script.weights)]


def test_the_published_weights_are_downloaded_only_if_the_license_is_accepted(script: Script) -> None:
    published = str(script.folder / "kept" / "published")
    fetch, make = script.calls(AVATAR_ACCEPT_LICENSE="yes")
    assert fetch == ["-m", "export", "weights", "--dir", published, "--accept-license"]
    assert make[:5] == ["-m", "export", "models", "--weights", published]
    stand_ins, _ = script.calls(AVATAR_ACCEPT_LICENSE="")
    assert stand_ins[2] == "stand-ins"
    assert script.run(AVATAR_ACCEPT_LICENSE="no").returncode == 2


def test_the_old_name_of_the_license_variable_is_accepted_with_a_warning(script: Script) -> None:
    fetch, _ = script.calls(AVATAR_ACCEPT_LICENCE="yes")
    assert fetch[2] == "weights"
    rejected = script.run(AVATAR_ACCEPT_LICENCE="yes", AVATAR_ACCEPT_LICENSE="no")  # the new name has priority
    assert rejected.returncode == 2
    assert "old name" not in rejected.stderr
    assert "old name" in script.run_fake(0, AVATAR_ACCEPT_LICENCE="yes").stderr


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600], ids=oct)
def test_weights_that_cannot_be_read_are_an_error_and_not_taken_for_none(script: Script, mode: int) -> None:
    (script.weights / "s3fd.pth").write_bytes(b"weights")
    script.weights.chmod(mode)
    # without root's privilege to read everything
    script.prefix = ("setpriv", "--bounding-set=-all", "--inh-caps=-all") if os.geteuid() == 0 else ()
    done = script.run()
    script.weights.chmod(0o700)
    assert done.returncode == 2
    assert "cannot be read by user" in done.stderr
    assert "chmod a+rX weights" in done.stderr
    assert "STAND-INS" not in done.stdout


def test_options_are_passed_on_only_if_they_are_set(script: Script) -> None:
    _, plain = script.calls(EXPORT_FORMAT="")
    assert plain[3::2] == ["--weights", "--repository"]
    _, full = script.calls(EXPORT_PROFILE="gpu", EXPORT_FORMAT="torchscript", EXPORT_PRECISION="fp16")
    assert full[7:] == ["--profile", "gpu", "--format", "torchscript", "--precision", "fp16"]


@pytest.mark.parametrize("command", ["weights", "models", "stand-ins"])
def test_the_exporter_accepts_every_flag_of_the_script(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        export([command, "--help"])
    output = capsys.readouterr().out
    flags = {
        "weights": ["--dir", "--accept-license"],
        "models": ["--weights", "--repository", "--profile", "--format", "--precision"],
        "stand-ins": ["--weights"],
    }
    for flag in flags[command]:
        assert flag in output
