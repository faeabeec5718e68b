#!/usr/bin/env bash
# The `export` service: build the model repository from checkpoints, then exit. It uses, in this order:
#   1. the files in WEIGHTS (on the host: weights/);
#   2. with AVATAR_ACCEPT_LICENSE=yes the published checkpoints, downloaded once into CHECKPOINTS. The Wav2Lip weights are
#      for research and personal use only, so the operator has to accept their license;
#   3. stand-ins, after a loud warning.
# EXPORT_PROFILE, EXPORT_FORMAT and EXPORT_PRECISION are passed on if they are set; otherwise the exporter's defaults apply.
set -euo pipefail
given=${WEIGHTS:-/weights}
kept=${CHECKPOINTS:-/var/lib/avatar/checkpoints}
repository=${REPOSITORY:-/models/repository}
accept=${AVATAR_ACCEPT_LICENSE:-}
if [ -z "$accept" ] && [ -n "${AVATAR_ACCEPT_LICENCE:-}" ]; then
    echo "export: AVATAR_ACCEPT_LICENCE is an old name, accepted until 0.2; use AVATAR_ACCEPT_LICENSE" >&2
    accept=$AVATAR_ACCEPT_LICENCE
fi

has_checkpoint() {
    local file
    for file in wav2lip.pth wav2lip_gan.pth s3fd.pth xception_pascalvoc.pb; do
        if [ -e "$1/$file" ]; then return 0; fi
    done
    return 1
}

case $accept in
    '' | yes) ;;
    *) echo "export: AVATAR_ACCEPT_LICENSE is '$accept'; use 'yes' to accept the license, or leave it empty" >&2; exit 2 ;;
esac

# a folder that this user cannot enter would look empty, and stand-ins would take the place of real weights
if [ -e "$given" ] && ! { [ -r "$given" ] && [ -x "$given" ]; }; then
    echo "export: $given cannot be read by user $(id -u); run: chmod a+rX weights" >&2
    exit 2
fi

echo "export: building the model repository; the first time this takes minutes (docker compose logs -f shows the progress)"
if has_checkpoint "$given"; then
    weights=$given
elif [ "$accept" = yes ]; then
    weights=$kept/published
    echo "export: downloading the published weights into $weights; without a network this fails after some retries"
    python -m export weights --dir "$weights" --accept-license
else
    echo "!! No weights in weights/, and AVATAR_ACCEPT_LICENSE is not 'yes': using STAND-INS. The service runs, but its"
    echo "!! results are made up: faces are found by their color, and the mouth only darkens with loudness."
    weights=$kept/stand-ins
    python -m export stand-ins --weights "$weights"
fi

options=()
for name in PROFILE FORMAT PRECISION; do
    variable=EXPORT_$name
    if [ -n "${!variable:-}" ]; then options+=("--${name,,}" "${!variable}"); fi
done
exec python -m export models --weights "$weights" --repository "$repository" "${options[@]}"
