#!/usr/bin/env bash
# Usage: docker/install.sh EXTRA. Installs the dependencies of the project and of one extra of pyproject.toml in the
# versions of requirements.lock, but not the project itself. Run it in the folder of those two files. PIP, if set,
# replaces the command `python3 -m pip`. EXTRAS, if set, are more extras, such as c2pa.
set -euo pipefail
extra=$1
read -ra pip <<< "${PIP:-python3 -m pip}"

read -ra more <<< "${EXTRAS:-}"

python3 - "$extra" ${more[@]+"${more[@]}"} <<'PY' | "${pip[@]}" install --constraint requirements.lock --requirement /dev/stdin
import sys, tomllib
with open("pyproject.toml", "rb") as file:
    project = tomllib.load(file)["project"]
extras = project["optional-dependencies"]
print(*project["dependencies"], *(line for extra in sys.argv[1:] for line in extras[extra]), sep="\n")
PY
if [ "$extra" != export ]; then
    # without their dependencies, which only their training modules need; see pyproject.toml
    grep -E '^(pixellib|imantics)==' requirements.lock | "${pip[@]}" install --no-deps --requirement /dev/stdin
fi
