#!/usr/bin/env bash
# Installs what one extra of pyproject.toml needs, in the exact versions of requirements.lock, and not the project
# itself: docker/install.sh EXTRA. Run where those two files are; PIP names another pip than the one on PATH.
set -euo pipefail
extra=$1
read -ra pip <<< "${PIP:-python -m pip}"

python - "$extra" <<'PY' | "${pip[@]}" install --constraint requirements.lock --requirement /dev/stdin
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
print(*project["dependencies"], *project["optional-dependencies"][sys.argv[1]], sep="\n")
PY
if [ "$extra" = gateway ]; then
    # what these two declare serves their training modules; see pyproject.toml
    grep -E '^(pixellib|imantics)==' requirements.lock | "${pip[@]}" install --no-deps --requirement /dev/stdin
fi
