# Builds the model repository from checkpoints. Only this image has torch, TensorFlow and the quantizers.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
# The CPU build of torch is a tenth of the CUDA one, and exporting needs no GPU.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_EXTRA_INDEX_URL=$TORCH_INDEX
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml requirements.lock docker/install.sh docker/trim.sh ./
RUN PIP="python -m pip --python /opt/venv/bin/python" bash install.sh export \
    && bash trim.sh /opt/venv/lib/python3.11/site-packages

FROM python:3.11.13-slim-bookworm
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip /usr/local/bin/pip*
COPY --from=build /opt/venv /opt/venv
WORKDIR /opt/avatar
COPY lipsync lipsync
COPY export export
COPY model_repository model_repository
COPY samples samples
COPY docker/export.sh ./
RUN chmod -R a+rX /opt/avatar \
    && install -d -o 1000 -g 1000 /models /weights /var/lib/avatar/checkpoints
ARG AVATAR_VERSION=0.1.0
ARG AVATAR_REVISION=
LABEL org.opencontainers.image.title="talking-avatar export" \
      org.opencontainers.image.description="Builds the model repository of talking-avatar from checkpoints" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$AVATAR_VERSION" \
      org.opencontainers.image.revision="$AVATAR_REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.13-slim-bookworm"
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
USER 1000:1000
# what was removed from the packages is not missed
RUN python -c "import nncf, onnxruntime, openvino, tensorflow, tf2onnx, torch, export.cli, export.store.push"
ENTRYPOINT ["bash", "export.sh"]
