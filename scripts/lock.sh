#!/usr/bin/env bash
# Writes requirements.lock from what is installed: exact versions, without local version labels such as +cpu.
set -euo pipefail
{
    echo '# Every package of the development environment, exact. Installed with --no-deps by `make setup`;'
    echo '# made by `make lock`. torch: see docs/quickstart.md, "CPU or CUDA".'
    "$1" -m pip freeze --all --exclude-editable | grep -vE '^pip==' | sed 's/+[a-z0-9.]*$//'
} > requirements.lock.tmp
mv requirements.lock.tmp requirements.lock
