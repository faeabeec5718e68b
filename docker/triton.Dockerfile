# NVIDIA's Triton with what the Python models need. The model repository is a volume, filled by export.Dockerfile's image.
FROM nvcr.io/nvidia/tritonserver:24.10-py3

# The Python backend runs models in the image's own Python 3.10. It finds `lipsync` and `avatar` by a .pth file,
# which this Python reads in any environment.
COPY docker/triton-requirements.txt /opt/avatar/
RUN python3 -m pip install --no-cache-dir --no-deps --requirement /opt/avatar/triton-requirements.txt
COPY lipsync /opt/avatar/lipsync
COPY avatar /opt/avatar/avatar
COPY docker/smoke.py /opt/avatar/
# NVIDIA's openvino backend fills every batch up to the largest, and computes FP32 in bf16 where a CPU has that. Ours,
# on the Python backend, does neither: docs/adr/0010.
RUN rm -r /opt/tritonserver/backends/openvino
COPY embedded/backends/openvino /opt/tritonserver/backends/openvino
# numba caches compiled code next to its source, which is read-only here; without another folder it raises an error
ENV NUMBA_CACHE_DIR=/tmp/numba \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AVATAR_WORK_DIR=/var/lib/avatar/work \
    AVATAR_CACHE_DIR=/var/lib/avatar/cache
RUN echo /opt/avatar > "$(python3 -c 'import site; print(site.getsitepackages()[0])')/talking-avatar.pth" \
    && install -d -o 1000 -g 1000 /models /var/cache/talking-avatar/tensorrt /var/lib/avatar/work /var/lib/avatar/cache \
    && python3 /opt/avatar/smoke.py \
    && rm -r /tmp/numba

# triton-server, made by NVIDIA's image
USER 1000:1000
# HTTP, gRPC, metrics
EXPOSE 8000 8001 8002
HEALTHCHECK --interval=5s --timeout=5s --start-period=15m --retries=6 \
    CMD ["curl", "--fail", "--silent", "--noproxy", "*", "http://127.0.0.1:8000/v2/health/ready"]
# The configs are complete. Auto-completion would start every Python model twice.
CMD ["tritonserver", "--model-repository=/models/repository", "--disable-auto-complete-config", \
     "--exit-on-error=true", "--strict-readiness=true", "--exit-timeout-secs=30"]
