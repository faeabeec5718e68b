# The form over HTTP: the wheel of this project with its `gateway` extra, the wheel of its client (which shares its
# handling of shared memory), and ffmpeg. No torch, no TensorFlow.
FROM python:3.11.13-slim-bookworm AS build
WORKDIR /src
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/venv
COPY pyproject.toml requirements.lock docker/install.sh ./
# hadolint ignore=DL3013
RUN PIP="/opt/venv/bin/python -m pip" bash install.sh gateway \
    && python -m pip install --constraint requirements.lock setuptools
# the source changes with every commit, so it is copied last
COPY . .
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . ./client \
    && /opt/venv/bin/python -m pip install --no-deps /wheels/*.whl

FROM python:3.11.13-slim-bookworm
# Debian's security updates of ffmpeg are wanted, so its version is not pinned.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ffmpeg \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 1000 -g 1000 /var/lib/avatar/work /var/lib/avatar/cache
COPY --from=build /opt/venv /opt/venv
# numba caches compiled code next to its source, which is read-only here; without another folder it raises an error
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    AVATAR_CACHE_DIR=/var/lib/avatar/cache \
    AVATAR_WORK_DIR=/var/lib/avatar/work
USER 1000:1000
WORKDIR /var/lib/avatar
EXPOSE 16000
# the gateway stops gracefully: running jobs get AVATAR_SHUTDOWN_GRACE seconds
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 16000, timeout=4); c.request('GET', '/health/ready'); raise SystemExit(c.getresponse().status != 200)"]
CMD ["python", "-m", "gateway"]
