# What a step leaves on its host is written down there, for the next refresh to compare (see components/drift.py).
# Value: STEP. A record has a line a thing: its kind, its name and what it was, between tabs.
records=$home/drift
tab=$(printf '\t')

describe() { # KIND NAME WAS: what it is now
    case $1 in
    file) if [ -f "$2" ]; then echo "$(stat -c '%a %U:%G' "$2") $(sum_of "$2")"; else echo missing; fi ;;
    link) readlink "$2" || echo missing ;;
    unit) echo "$(systemctl is-active "$2" 2>/dev/null) $(systemctl is-enabled "$2" 2>/dev/null)" ;;
    *) on_node "$@" ;;
    esac
}

keep() {
    mkdir -p "$records"
    put "$records/$STEP" 600 || true
}

record() { # THING...: paths, of those that are there, and units, which run and are enabled
    for thing; do
        if [ -L "$thing" ]; then
            printf 'link\t%s\t%s\n' "$thing" "$(describe link "$thing")"
        elif [ -f "$thing" ]; then
            printf 'file\t%s\t%s\n' "$thing" "$(describe file "$thing")"
        else
            case $thing in /*) ;; *) printf 'unit\t%s\tactive enabled\n' "$thing" ;; esac
        fi
    done | keep
}

forget() {
    rm -f "$records/$STEP"
    rmdir "$records" "$home" 2>/dev/null || true # the step may have been the only one here
}

# A line for each thing that is not as the step left it.
differences() {
    if [ ! -f "$records/$STEP" ]; then return 0; fi
    while IFS=$tab read -r kind thing was; do
        now=$(describe "$kind" "$thing" "$was")
        if [ "$now" = "$was" ]; then continue; fi
        case $kind:$now in
        label:* | taint:*) echo "node $thing: $kind $was is $now" ;;
        *:missing) echo "$thing is missing" ;;
        file:"${was% *}"*) echo "$thing has other content" ;;
        file:*"${was##* }") echo "$thing has mode and owner ${now% *}, not ${was% *}" ;;
        file:*) echo "$thing has other content, and mode and owner ${now% *}, not ${was% *}" ;;
        link:*) echo "$thing leads to $now" ;;
        unit:*) echo "unit $thing is ${now% *}, ${now#* }" ;;
        esac
    done <"$records/$STEP"
}
