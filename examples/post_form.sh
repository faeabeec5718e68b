#!/bin/sh
# Post a form with curl, and save the video.
#
#     sh post_form.sh face.png speech.wav out.mp4 background=White quality=draft
#
# The service is at AVATAR_URL, and AVATAR_API_KEY is its key if it needs one. Exit status: 0 the video is saved,
# otherwise that of curl (22: the service says no, and the reason is printed).
set -eu
if [ $# -lt 3 ]; then
    echo "usage: sh post_form.sh FACE SPEECH OUT [FIELD=VALUE ...]" >&2
    exit 2
fi
url=${AVATAR_URL:-http://127.0.0.1:16000} face=$1 speech=$2 out=$3
shift 3
for option; do # each as a field of the form; --form-string takes @ and < as they are
    set -- "$@" --form-string "$option"
    shift
done
if [ -n "${AVATAR_API_KEY:-}" ]; then
    set -- "$@" --header "Authorization: Bearer $AVATAR_API_KEY"
fi

status=0
curl --fail-with-body --silent --show-error --max-time 600 --output "$out.part" \
    --form "face_file=@$face" --form "audio_file=@$speech" --form-string "avatarFileType=${face##*.}" "$@" "$url" || status=$?
if [ "$status" -ne 0 ]; then
    # the answer of the service is a JSON object with one sentence
    if [ -f "$out.part" ]; then cat "$out.part" >&2; echo >&2; rm -f "$out.part"; fi
    exit "$status"
fi
mv "$out.part" "$out"
echo "$out"
