# Brings artifacts to a host. It runs beside the engine, in an SSH agent of its own; artifacts.sh is its other half.
# Values: FILES (as artifacts.sh has them), and client.sh's with artifacts.sh for ON_HOST. Prints nothing.
tab=$(printf '\t')

# The host's end of a transfer: $0 is what is sent, $1 the file, $2 the bytes it has in the end.
# shellcheck disable=SC2016
receive='free=$(($(stat -f -c "%a * %S" "${1%/*}"))); more=$(($2 - $(stat -c %s "$1" 2>/dev/null || echo 0)))
if [ "$free" -lt "$more" ]; then echo "$0: $((free >> 20)) MiB free in ${1%/*}, $((more >> 20)) MiB to come: free some" >&2; exit 1; fi
while sleep 5 >/dev/null 2>&1; do echo "$0: $(($(stat -c %s "$1") >> 20)) of $(($2 >> 20)) MiB" >&2; done & tee -a "$1" >/dev/null; code=$?; kill $!; exit $code'

send() { # PATH BYTES_THERE
    entry=$(printf '%s\n' "$FILES" | grep -F "$tab$1$tab")
    name=${entry%%"$tab"*} source=${entry##*"$tab"}
    [ -r "$source" ] || fail "artifact $name: no file $source on this machine: build or fetch it again"
    size=$(($(wc -c <"$source"))) from=$2 first=
    if [ "$from" -ge "$size" ]; then from=0; fi
    if [ "$from" -eq 0 ]; then first=": >$1.part; "; fi
    say "sending $name, $((size - from)) of $size bytes"
    tail -c "+$((from + 1))" "$source" |
        to_host host "$ROOT_SHELL -c '$first$receive' $name $1.part $size" ||
        fail "artifact $name: the transfer ended early, see the line above; up again goes on where it ended"
}

# What was there in part and then has another sum is sent once more, as a whole.
stage() {
    for round in first again last; do
        lacking=$(on_host "artifacts.sh apply") || fail "its artifacts are not complete: see above"
        if [ -z "$lacking" ]; then return; fi
        if [ "$round" = last ]; then break; fi
        while IFS=$tab read -r path there; do send "$path" "$there"; done <<LIST
$lacking
LIST
    done
    for path in $(printf '%s\n' "$lacking" | cut -f 1); do
        printf '%s\n' "$FILES" | grep -F "$tab$path$tab" | while IFS=$tab read -r name sum _ source; do
            say "artifact $name refused: what arrives has not the sha256 $sum: mend the file at $source"
        done
    done
    on_host "artifacts.sh drop_parts"
    fail "artifacts refused: see above"
}

connect
stage
