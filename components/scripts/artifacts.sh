# Keeps the host's artifacts: takes files whose sums are right, fetches those with a URL, says what must be sent.
# Values: HOST FILES (a line a file: name, sha256, path here, source, between tabs; an https source is fetched here).
# apply prints a line for each file that must be sent: its path and the bytes of it that are here already.
folder=$home/artifacts
has_sum() { [ -f "$1" ] && [ "$(sum_of "$1")" = "$2" ]; } # FILE SHA256
size_of() { if [ -e "$1" ]; then stat -c %s "$1"; else echo 0; fi; }

tell_progress() { # NAME FILE
    while sleep 5 >/dev/null 2>&1; do say "$1: $(($(size_of "$2") / 1048576)) MiB are here"; done
}

download() { # NAME URL FILE: goes on where FILE ends; prints the HTTP status
    tell_progress "$1" "$3" &
    code=0
    curl -fsSL --connect-timeout 15 --speed-limit 1 --speed-time 60 -C - -o "$3" -w '%{http_code}' "$2" || code=$?
    kill "$!" 2>/dev/null || true
    return "$code"
}

fetch() { # NAME SHA256 PATH URL
    command -v curl >/dev/null || fail "command curl not found: install it, artifact $1 comes from a URL"
    while :; do
        had=$(size_of "$3.part") code=0
        say "fetching $1 from $4, $((had / 1048576)) MiB are here"
        status=$(download "$1" "$4" "$3.part") || code=$?
        case $code:$status in
        0:*) if has_sum "$3.part" "$2"; then return; fi ;;
        33:* | 36:* | *:416) ;; # the mirror cannot go on at that byte
        *) fail "artifact $1 could not be fetched from $4: check the mirror in the artifact manifest; up again goes on" ;;
        esac
        found=$(if [ -f "$3.part" ]; then sum_of "$3.part"; fi)
        rm -f "$3.part"
        [ "$had" -gt 0 ] || fail "artifact $1 refused: sha256 found $found, wanted $2: mend the file at $4, then run up again"
    done
}

# The processor that an ELF program is for, as in its header (elf.h: e_machine); nothing for other files.
program_for() { od -An -tx1 -N20 "$1" | tr -d ' \n' | sed -n 's/^7f454c46.\{28\}\(....\)$/\1/p'; }

must_run_here() { # NAME FILE
    case $(program_for "$2"):$(uname -m) in
    :* | 3e00:x86_64 | b700:aarch64) ;;
    *) fail "artifact $1 refused: it is a program for another processor than this host's, $(uname -m): mend the" \
        "artifact manifest, or hosts[].architecture of $HOST" ;;
    esac
}

take_files() {
    while IFS=$tab read -r name sum path source; do
        if has_sum "$path" "$sum"; then continue; fi
        rm -f "$path"
        # One whose engine was killed may still be writing.
        pkill -f "$path.part" || true
        if ! has_sum "$path.part" "$sum"; then
            case $source in
            https://*) fetch "$name" "$sum" "$path" "$source" ;;
            *)
                printf '%s\t%s\n' "$path" "$(size_of "$path.part")"
                complete=no
                continue
                ;;
            esac
        fi
        must_run_here "$name" "$path.part"
        mv -f "$path.part" "$path"
        say "artifact $name verified"
    done <<LIST
$FILES
LIST
}

drop_others() {
    for file in "$folder"/*; do
        if ! printf '%s\n' "$FILES" | cut -f 3 | grep -qxF "${file%.part}"; then rm -f "$file"; fi
    done
}

case $action in
apply)
    mkdir -p "$folder"
    chmod 0755 "$home"
    chmod 0700 "$folder"
    complete=yes
    take_files
    # Until then an earlier version is what steps work with.
    if [ "$complete" = yes ]; then
        drop_others
        # As `record` does, with the sums that were just compared.
        printf '%s\n' "$FILES" | while IFS=$tab read -r _ sum path _; do
            printf 'file\t%s\t%s %s\n' "$path" "$(stat -c '%a %U:%G' "$path")" "$sum"
        done | keep
    fi
    ;;
drop_parts) rm -f "$folder"/*.part ;;
esac
