"""Each image installs the packages that its code needs, and no more: its code runs in an environment of only these.

The environments link to packages of this one, so that no package index is needed. The gateway has the packages that the
metadata of its wheel names, the exporter and Triton those of their extras. Whether an environment has what the install
script requires is read from the metadata of its packages; `make test-long` runs the script with pip.
"""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
import soundfile
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from embedded.server import Triton
from gateway.settings import Settings
from lipsync.tensors import MODELS
from scripts.requirements_closure import closure
from tests.support import virtualenvs
from tests.support.dockerfiles import DOCKER, DOCKERFILES, ROOT, context, last_stage, step
from tests.support.gateway_process import Gateway, gateway_process

INSTALLED_WITHOUT_DEPENDENCIES = {"pixellib", "imantics"}
TRITON_PYTHON = {"python_version": "3.12", "python_full_version": "3.12.3"}  # of NVIDIA's image
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check")
# the gRPC client and its shared memory, and what runs PyTorch: they are in the image, but nothing there imports them
NOT_IN_TRITON = {
    *(
        ROOT / "avatar" / "inference" / f"{name}.py"
        for name in (
            "grpc_client",
            "live_failures",
            "live_stream",
            "server_pool",
            "shared_memory",
            "triton_rpc",
            "triton_server",
        )
    ),
    *(ROOT / "lipsync" / "triton" / "pytorch").glob("*.py"),
}
LOCK = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
# takes the place of pip: prints its arguments, and the requirements that it would read
RECORDER = """#!/bin/sh
echo "pip $*"
cat
"""
with_the_wheels = pytest.mark.xdist_group("live")  # with the test that needs a Triton, so that they are built once


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    """Run a command without a package index and without this checkout on its path; return its output."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=cwd,
        env=environment | {"PATH": path, "PIP_NO_INDEX": "1"} | variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The build context."""
    folder = tmp_path_factory.mktemp("source")
    for path in context():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
    return folder


@pytest.fixture(scope="module")
def wheels(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheels of the project and of its client, built by the same backend as in the image."""
    folder = tmp_path_factory.mktemp("wheels")
    project, client = (virtualenvs.build_wheel(each, folder / each.name) for each in (source, source / "client"))
    return project, client


def install(python: Path, *wheels: Path) -> None:
    """Install wheels of pure Python without their requirements."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(virtualenvs.site_of(python))


@pytest.fixture(scope="module")
def gateway_requirements(wheels: tuple[Path, Path]) -> list[str]:
    """The requirements in the metadata of the wheel with its `gateway` extra."""
    return virtualenvs.needed_by(wheels[0], "gateway")


@pytest.fixture(scope="module")
def python(
    wheels: tuple[Path, Path], gateway_requirements: list[str], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The Python of the gateway's image."""
    packages = closure(gateway_requirements) | INSTALLED_WITHOUT_DEPENDENCIES
    interpreter = virtualenvs.make(tmp_path_factory.mktemp("gateway-python") / "venv", packages)
    install(interpreter, *wheels)
    return interpreter


@pytest.fixture(scope="module")
def clean_gateway(python: Path, triton: Triton, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with gateway_process(tmp_path_factory.mktemp("clean-gateway"), triton.grpc_address, python=str(python)) as running:
        yield running


@with_the_wheels
def test_the_gateway_image_has_no_torch_and_no_tensorflow(python: Path, tmp_path: Path) -> None:
    heavy = ("torch", "tensorflow", "onnx", "onnxruntime", "openvino", "nncf", "pytriton", "pytest", "keras")
    code = f"from importlib.util import find_spec; print([name for name in {heavy} if find_spec(name)])"
    assert run(python, "-c", code, cwd=tmp_path).strip() == "[]"


@with_the_wheels
def test_the_gateway_image_runs_the_installed_wheel(python: Path, tmp_path: Path) -> None:
    output = run(python, "-c", "import gateway, avatar, avatar_client, lipsync; print(gateway.__file__)", cwd=tmp_path)
    assert Path(output.strip()).is_relative_to(python.parents[1])


def test_a_form_that_is_posted_to_it_becomes_a_video(clean_gateway: Gateway, samples: Path, tmp_path: Path) -> None:
    speech, rate = soundfile.read(samples / "speech.wav", stop=8000)
    soundfile.write(tmp_path / "speech.wav", speech, rate)
    files = {
        "face_file": (samples / "face.png").read_bytes(),
        "audio_file": (tmp_path / "speech.wav").read_bytes(),
    }
    # a colored background, so that PixelLib runs
    texts = {"avatarFileType": "png", "background": "Green"}
    answer = httpx.post(f"{clean_gateway.url}/", files=files, data=texts, timeout=300)
    assert answer.status_code == 200, answer.text
    assert answer.content[4:8] == b"ftyp"
    counted = httpx.get(f"{clean_gateway.url}/metrics").text
    assert f"avatar_frames_total {answer.headers['x-avatar-frames']}.0" in counted


def test_the_health_check_of_the_image_passes_only_with_a_gateway(clean_gateway: Gateway, python: Path) -> None:
    name, *arguments = step(DOCKERFILES["gateway"], "HEALTHCHECK").words()
    assert name == "python"
    port = str(Settings.model_fields["port"].default)
    for gateway_port, status in ((clean_gateway.url.rpartition(":")[2], 0), ("1", 1)):
        command = [str(python), *(argument.replace(port, gateway_port) for argument in arguments)]
        assert subprocess.run(command, stderr=subprocess.DEVNULL).returncode == status


def pip_calls(extra: str, source: Path, folder: Path) -> list[tuple[list[str], list[str]]]:
    """Return the calls of pip by the install script: the arguments, and the requirements on its standard input."""
    recorder = folder / "pip"
    recorder.write_text(RECORDER)
    recorder.chmod(0o755)
    output = run("bash", "docker/install.sh", extra, cwd=source, PIP=str(recorder))
    calls = [call.splitlines() for call in output.split("pip ")[1:]]
    return [(arguments.split(), requirements) for arguments, *requirements in calls]


@with_the_wheels
@pytest.mark.parametrize("extra", ["gateway", "export", "triton"])
def test_an_image_installs_what_its_environment_has_in_the_versions_of_the_lock(
    extra: str, python: Path, source: Path, tmp_path: Path
) -> None:
    (arguments, requirements), *rest = pip_calls(extra, source, tmp_path)
    assert arguments == ["install", "--constraint", "requirements.lock", "--requirement", "/dev/stdin"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert requirements == [*project["dependencies"], *project["optional-dependencies"][extra]]
    # this environment has every package of the lock
    environment = python if extra == "gateway" else Path(sys.executable)
    assert virtualenvs.unsatisfied(requirements, environment, LOCK) == []
    for plain, pinned in rest:
        assert plain == ["install", "--no-deps", "--requirement", "/dev/stdin"]
        assert {Requirement(line).name for line in pinned} == INSTALLED_WITHOUT_DEPENDENCIES
        assert set(pinned) <= set(LOCK)
    assert len(rest) == (extra != "export")


@with_the_wheels
def test_the_gateway_image_has_what_the_metadata_of_the_wheel_requires(
    python: Path, gateway_requirements: list[str]
) -> None:
    assert len(gateway_requirements) > 10
    assert virtualenvs.unsatisfied(gateway_requirements, python, LOCK) == []
    # an environment without one of them is not taken for complete
    assert virtualenvs.unsatisfied(["torch"], python, LOCK) == ["torch"]
    assert virtualenvs.unsatisfied(["numpy<1"], python, LOCK) == ["numpy<1"]


@pytest.mark.slow
@pytest.mark.parametrize("extra", ["gateway", "export", "triton"])
def test_pip_finds_every_requirement_of_an_image_in_the_version_of_the_lock(extra: str, source: Path) -> None:
    # this environment has every package, so nothing is downloaded
    run("bash", "docker/install.sh", extra, cwd=source, PIP=" ".join(PIP))


@pytest.mark.slow
def test_pip_builds_and_installs_the_wheels_of_the_gateway_image(python: Path, source: Path, tmp_path: Path) -> None:
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), ".", "./client", cwd=source)
    pip = (*PIP, "--python", str(python))
    run(*pip, "install", "--no-deps", "--force-reinstall", *sorted(tmp_path.glob("*.whl")), cwd=source)
    (project,) = set(tmp_path.glob("*.whl")) - set(tmp_path.glob("talking_avatar_client-*.whl"))
    run(*pip, "install", f"{project}[gateway]", cwd=source)  # the requirements of its metadata are installed too


@pytest.fixture(scope="module")
def exporter(source: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The Python of the export image, and the folder in which it starts."""
    folder = tmp_path_factory.mktemp("exporter")
    (folder / "image").mkdir()
    for each in last_stage(DOCKERFILES["export"]):
        if each.name == "COPY" and "--from" not in each.rest:
            name, target = each.words()
            copied = shutil.copytree if (source / name).is_dir() else shutil.copy
            copied(source / name, folder / "image" / target)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    packages = closure([*project["dependencies"], *project["optional-dependencies"]["export"]])
    return virtualenvs.make(folder / "venv", packages), folder / "image"


@pytest.mark.xdist_group("exports")  # with the next test, so that the environment is made once
def test_the_export_image_has_every_package_that_its_code_imports(exporter: tuple[Path, Path]) -> None:
    python, image = exporter
    imported = set()
    for file in (*image.glob("export/**/*.py"), *image.glob("lipsync/*.py")):
        for node in ast.walk(ast.parse(file.read_text())):  # imports inside functions too
            if isinstance(node, ast.Import):
                imported |= {each.name.partition(".")[0] for each in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
                imported.add(node.module.partition(".")[0])
    assert {"torch", "nncf", "openvino", "tf2onnx", "lipsync"} <= imported
    code = f"from importlib.util import find_spec; print([name for name in {sorted(imported)} if not find_spec(name)])"
    assert run(python, "-c", code, cwd=image).strip() == "[]"


def test_the_export_image_accepts_the_exports_of_this_checkout_as_up_to_date(
    exporter: tuple[Path, Path], stand_in_weights: Path, repository: Path, tmp_path: Path
) -> None:
    # so it has the same code, samples and Python models; it writes the Python models again in any case
    python, image = exporter
    (tmp_path / "weights").mkdir()
    folders = {"WEIGHTS": tmp_path / "weights", "CHECKPOINTS": stand_in_weights.parent, "REPOSITORY": repository}
    variables = {
        "PATH": os.pathsep.join([str(python.parent), os.environ["PATH"]]),
        "EXPORT_FORMAT": "onnx",
        "EXPORT_PRECISION": "fp32",
        **{name: str(folder) for name, folder in folders.items()},
    }
    output = run("bash", "export.sh", cwd=image, **variables)
    assert output.startswith("export: building the model repository")
    assert "!! No weights in weights/" in output
    assert "using STAND-INS" in output
    assert output.splitlines()[-1].endswith(f"complete, {len(MODELS)} models")
    assert ": exporting " not in output
    run(python, "-c", "from export.validation.sample_media import Media; Media.shipped().hashes()", cwd=image)


def test_every_requirement_of_triton_is_in_the_lock_and_supports_its_python() -> None:
    locked = {canonicalize_name(Requirement(line).name) for line in LOCK}
    packages = triton_packages()
    assert packages <= locked
    for name in packages:
        supported = distribution(name).metadata["Requires-Python"]
        assert not supported or TRITON_PYTHON["python_version"] in SpecifierSet(supported), name


@with_the_wheels
def test_the_code_of_the_triton_image_needs_only_its_requirements(wheels: tuple[Path, Path], tmp_path: Path) -> None:
    python = virtualenvs.make(tmp_path / "venv", triton_packages())
    install(python, wheels[0])
    for folder in ("work", "path"):
        (tmp_path / folder).mkdir()
    # there is no ffmpeg on its PATH
    variables = {
        "PATH": str(tmp_path / "path"),
        "AVATAR_WORK_DIR": str(tmp_path / "work"),
    }
    output = run(python, DOCKER / "smoke.py", cwd=tmp_path, **variables)
    assert output.split(maxsplit=2)[2].strip() == "(22, 80, 16) (22, 96, 96, 3) (22, 120, 160, 3) (1, 16, 4) ftyp 25"
    assert not list((tmp_path / "work").iterdir())
    shutil.copytree(ROOT / "export", tmp_path / "image" / "export", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(python, "-c", "import export.cli, export.plans.builder", cwd=tmp_path / "image") == ""


def test_the_guard_of_the_triton_image_needs_only_the_standard_library(tmp_path: Path) -> None:
    code = "import sys; import embedded.container, embedded.guard; print(sorted({'numpy', 'grpc'} & set(sys.modules)))"
    assert run(sys.executable, "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT)).strip() == "[]"


def triton_packages() -> set[str]:
    """Return the packages that the image of Triton installs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["triton"]]
    return closure(needed, TRITON_PYTHON) | INSTALLED_WITHOUT_DEPENDENCIES


def test_the_models_import_only_modules_that_the_build_of_the_image_imports() -> None:
    imported_by_build = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts)
        for package in ("avatar", "lipsync")
        for file in (ROOT / package).rglob("*.py")
        if file not in NOT_IN_TRITON
    }
    for model in (ROOT / "model_repository").glob("*/1/model.py"):
        for node in ast.walk(ast.parse(model.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.module in imported_by_build, model
