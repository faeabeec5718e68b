# NVIDIA's Triton with what the Python models need. The model repository is a volume, filled by export.Dockerfile's image.
FROM python:3.11.13-slim-bookworm AS wheel
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
COPY requirements.lock ./
# hadolint ignore=DL3013
RUN python -m pip install --constraint requirements.lock setuptools
COPY . .
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .

# At least 26.06: older releases have open vulnerabilities (docs/security.md). Ubuntu 24.04, Python 3.12.
FROM nvcr.io/nvidia/tritonserver:26.11-py3
# the Python backend runs models in the image's own Python
WORKDIR /opt/avatar
COPY pyproject.toml requirements.lock docker/install.sh docker/trim.sh docker/smoke.py ./
# more extras of pyproject.toml: `--build-arg EXTRAS=c2pa` signs videos (docs/guide/marking.md)
ARG EXTRAS=
# PIP_IGNORE_INSTALLED: pip cannot uninstall packages that came with Ubuntu's own, and would fail where it wants to
RUN PIP="python3 -m pip --no-cache-dir --disable-pip-version-check" \
    PIP_BREAK_SYSTEM_PACKAGES=1 PIP_IGNORE_INSTALLED=1 bash install.sh triton \
    && bash trim.sh "$(python3 -c 'import numpy, pathlib; print(pathlib.Path(numpy.__file__).parents[1])')"
# The project's wheel, which changes with every commit, comes after them. NVIDIA's openvino backend fills every batch up to
# the largest, and computes FP32 in bf16 where a CPU has that. Ours, on the Python backend, does neither: docs/adr/0010.
COPY --from=wheel /wheels /opt/avatar/wheels
# TensorRT plans are built where they run: `python3 -m export plans` needs no more than what is installed here
COPY export export
RUN PIP_BREAK_SYSTEM_PACKAGES=1 python3 -m pip install --no-cache-dir --no-deps /opt/avatar/wheels/*.whl \
    && rm -rf /opt/avatar/wheels /opt/tritonserver/backends/openvino \
    && cp -r "$(python3 -c 'import embedded; print(embedded.__path__[0])')/backends/openvino" /opt/tritonserver/backends/ \
    && chmod -R a+rX /opt/avatar /opt/tritonserver/backends/openvino \
    && install -d -o 1000 -g 1000 /models /var/cache/talking-avatar/tensorrt /var/lib/avatar/work /var/lib/avatar/cache
ARG AVATAR_VERSION=0.1.0
ARG AVATAR_REVISION=
LABEL org.opencontainers.image.title="talking-avatar triton" \
      org.opencontainers.image.description="NVIDIA Triton with the Python models of talking-avatar" \
      org.opencontainers.image.licenses="Apache-2.0 AND LicenseRef-NVIDIA-Deep-Learning-Container" \
      org.opencontainers.image.version="$AVATAR_VERSION" \
      org.opencontainers.image.revision="$AVATAR_REVISION" \
      org.opencontainers.image.base.name="nvcr.io/nvidia/tritonserver:26.11-py3"
# CUDA and PyTorch cache compiled code: in the cache volume, so that a restart does not compile it again
ENV HOME=/tmp \
    CUDA_CACHE_PATH=/var/lib/avatar/cache/cuda \
    XDG_CACHE_HOME=/var/lib/avatar/cache \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AVATAR_WORK_DIR=/var/lib/avatar/work \
    AVATAR_CACHE_DIR=/var/lib/avatar/cache
# triton-server, made by NVIDIA's image
USER 1000:1000
RUN python3 /opt/avatar/smoke.py && python3 -c "import export.cli, export.plans.builder, export.store.pull"
# gRPC, metrics. HTTP listens inside the container only, for the health check.
EXPOSE 8001 8002
# a tiny call of every kind of model
HEALTHCHECK --interval=10s --timeout=15s --start-period=15m --retries=3 \
    CMD ["python3", "-m", "embedded.guard", "--check", "--http", "127.0.0.1:8000"]
CMD ["python3", "-m", "embedded.container"]
