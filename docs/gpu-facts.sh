#!/bin/sh
# The GPU checks without a stack: docs/gpu-facts.sh [SSH-DESTINATION]; left out: this machine. Changes nothing.
# MINIMUM_DRIVER and MINIMUM_TOOLKIT are compared as the settings are; left out: any version will do.
set -eu
scripts=$(dirname "$0")/../components/scripts

check() {
    printf "HOST='%s'\nMINIMUM_DRIVER='%s'\nDRIVER_FOR=MINIMUM_DRIVER\nMINIMUM_TOOLKIT='%s'\nMEMORY_MIB=0\nPACKAGES=\n" \
        "${1:-$(hostname)}" "${MINIMUM_DRIVER:-0}" "${MINIMUM_TOOLKIT:-0}"
    cat "$scripts/lib.sh" "$scripts/gpu.sh"
}

if [ $# -gt 0 ]; then
    check "$1" | ssh "$1" "sh -c 'eval \"\$(cat)\"' gpu.sh apply"
else
    check | sh -c 'eval "$(cat)"' gpu.sh apply
fi
