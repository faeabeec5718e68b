#!/usr/bin/env bash
# The `export` service: checkpoints to the model repository, and the end. Which checkpoints, in this order:
#   1. the files that were put into WEIGHTS (on the host: weights/);
#   2. with AVATAR_ACCEPT_LICENCE=yes the published ones, downloaded into CHECKPOINTS once: the Wav2Lip weights are for
#      research and personal use only, and nobody but the person who runs this can accept that;
#   3. stand-ins, which it says loudly.
# EXPORT_PROFILE, EXPORT_FORMAT and EXPORT_PRECISION are handed on where they are set; the exporter has its defaults.
set -euo pipefail
given=${WEIGHTS:-/weights}
kept=${CHECKPOINTS:-/var/lib/avatar/checkpoints}
repository=${REPOSITORY:-/models/repository}

holds_one() {
    local file
    for file in wav2lip.pth wav2lip_gan.pth s3fd.pth xception_pascalvoc.pb; do
        if [ -e "$1/$file" ]; then return 0; fi
    done
    return 1
}

case ${AVATAR_ACCEPT_LICENCE:-} in
    '' | yes) ;;
    *) echo "export: AVATAR_ACCEPT_LICENCE is '$AVATAR_ACCEPT_LICENCE'; only 'yes' accepts the licence" >&2; exit 2 ;;
esac

if holds_one "$given"; then
    weights=$given
elif [ "${AVATAR_ACCEPT_LICENCE:-}" = yes ]; then
    weights=$kept/published
    python -m export weights --dir "$weights" --accept-licence
else
    echo "!! No weights in weights/ and AVATAR_ACCEPT_LICENCE is not 'yes': STAND-INS are used. The service runs, the"
    echo "!! nets are made up: the face is found by its colour, the mouth only darkens with loudness. README: Docker."
    weights=$kept/stand-ins
    python -m export stand-ins --weights "$weights"
fi

options=()
for name in PROFILE FORMAT PRECISION; do
    variable=EXPORT_$name
    if [ -n "${!variable:-}" ]; then options+=("--${name,,}" "${!variable}"); fi
done
exec python -m export models --weights "$weights" --repository "$repository" "${options[@]}"
