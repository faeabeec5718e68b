#!/usr/bin/env bash
# Usage: docker/trim.sh FOLDER. Removes what no program of an image reads from a site-packages folder: tests, C++ headers,
# and command-line tools of wheels.
set -euo pipefail
cd "$1"
find . -type d -name tests -prune -exec rm -rf {} +
rm -rf torch/{test,include,share} tensorflow/include onnx/backend/test openvino/include
find torch/bin -type f ! -name torch_shm_manager -delete 2> /dev/null || true
