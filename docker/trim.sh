#!/usr/bin/env bash
# Usage: docker/trim.sh FOLDER. Removes what no program of an image reads from a site-packages folder: tests, C++ headers,
# and command-line tools of wheels.
set -euo pipefail
cd "$1"
find . -type d -name tests -prune -exec rm -rf {} +
rm -rf torch/{test,include,bin,share} tensorflow/include onnx/backend/test openvino/include
