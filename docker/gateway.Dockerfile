# The form over HTTP: the wheel of this project with its `gateway` extra, and the wheel of its client (which shares its
# handling of shared memory). No torch, no TensorFlow, no librosa. ffmpeg is the static one of imageio-ffmpeg, the same
# as in Triton's image, so both interfaces encode with the same version.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv --without-pip /opt/venv
COPY pyproject.toml requirements.lock docker/install.sh docker/trim.sh ./
# more extras of pyproject.toml: `--build-arg EXTRAS=c2pa` signs videos (docs/guide/marking.md)
ARG EXTRAS=
# hadolint ignore=DL3013
RUN PIP="python -m pip --python /opt/venv/bin/python" bash install.sh gateway \
    && bash trim.sh /opt/venv/lib/python3.11/site-packages \
    && rm -f /opt/venv/bin/perf_* \
    && python -m pip install --constraint requirements.lock setuptools
# the source changes with every commit, so it is copied last
COPY . .
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . ./client \
    && python -m pip --python /opt/venv/bin/python install --no-deps /wheels/*.whl

FROM python:3.11.13-slim-bookworm
# The image has no byte code of the standard library, and at run time none can be written: the health check would compile
# it each time.
RUN rm -rf /usr/local/lib/python3.11/site-packages/* /usr/local/lib/python3.11/ensurepip /usr/local/bin/pip* \
    && python -m compileall -q -x "/tests?/" /usr/local/lib/python3.11 \
    && install -d -o 1000 -g 1000 /var/lib/avatar/work /var/lib/avatar/cache /var/lib/avatar/store /var/lib/avatar/keys
COPY --from=build /opt/venv /opt/venv
ARG AVATAR_VERSION=0.1.0
ARG AVATAR_REVISION=
LABEL org.opencontainers.image.title="talking-avatar gateway" \
      org.opencontainers.image.description="The talking-avatar form over HTTP" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$AVATAR_VERSION" \
      org.opencontainers.image.revision="$AVATAR_REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.13-slim-bookworm"
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    AVATAR_CACHE_DIR=/var/lib/avatar/cache \
    AVATAR_STORE=/var/lib/avatar/store \
    AVATAR_WORK_DIR=/var/lib/avatar/work
USER 1000:1000
RUN python -c "import gateway.app, jobs.database, jobs.store; from avatar.media.ffmpeg import executable; print(executable())"
WORKDIR /var/lib/avatar
EXPOSE 16000
# the gateway stops gracefully: running jobs get AVATAR_SHUTDOWN_GRACE seconds
STOPSIGNAL SIGTERM
# readiness calls every kind of model and remembers the result for some seconds
HEALTHCHECK --interval=10s --timeout=8s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-S", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 16000, timeout=7); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["python", "-m", "gateway"]
