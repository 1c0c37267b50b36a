# Verifies a staged file against its sha256 before anything may use it; fetches it first when it has a URL.
# Values: HOST NAME FILE SHA256 URL (empty: the file was copied here). Prints the file's path.
case $action in
apply)
    if [ -n "$URL" ] && { [ ! -f "$FILE" ] || [ "$(sum_of "$FILE")" != "$SHA256" ]; }; then
        command -v curl >/dev/null || fail "command curl not found: install it, artifact $NAME comes from a URL"
        say "fetching $NAME from $URL"
        curl -fsSL --retry 3 --connect-timeout 15 -C - -o "$FILE.part" "$URL" ||
            fail "artifact $NAME could not be fetched from $URL: check the mirror in the artifact manifest"
        mv -f "$FILE.part" "$FILE"
    fi
    [ -f "$FILE" ] || fail "artifact $NAME is not at $FILE: run up with --replace of its copy resource"
    found=$(sum_of "$FILE")
    if [ "$found" != "$SHA256" ]; then
        rm -f "$FILE" "$FILE.part"
        remedy="mend the file at ${URL:-its source}, then run up again"
        [ -n "$URL" ] || remedy="$remedy with --replace of its copy resource"
        fail "artifact $NAME refused: sha256 found $found, wanted $SHA256: $remedy"
    fi
    find "$home/artifacts" -type f -name "$NAME@*" ! -path "$FILE" -delete
    say "artifact $NAME verified"
    printf '%s\n' "$FILE"
    ;;
remove)
    rm -f "$home/artifacts/$NAME@"*
    ;;
esac
