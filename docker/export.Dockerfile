# Builds the model repository from checkpoints. Only this image has torch, TensorFlow and the quantizers.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
# The CPU build of torch is a tenth of the CUDA one, and exporting needs no GPU.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_EXTRA_INDEX_URL=$TORCH_INDEX
RUN python -m venv /opt/venv
COPY pyproject.toml requirements.lock docker/install.sh ./
RUN PIP="/opt/venv/bin/python -m pip" bash install.sh export

FROM python:3.11.13-slim-bookworm
COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/avatar
COPY lipsync lipsync
COPY export export
COPY model_repository model_repository
COPY samples samples
COPY docker/export.sh ./
# numba caches compiled code next to its source, which is read-only here; without another folder it raises an error
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
RUN install -d -o 1000 -g 1000 /models /weights /var/lib/avatar/checkpoints
USER 1000:1000
ENTRYPOINT ["bash", "export.sh"]
