# Compares the host with what its steps wrote down when they were done; changes nothing.
# Values: HOST. Prints lines of a step and a difference, between tabs: one without a difference for each step, and
# one without a step for what could not be compared.
STEP=
nodes=
if grep -qs '^label' "$records"/*; then
    nodes=$(/usr/local/bin/k3s kubectl --request-timeout=10s get nodes -o \
        'jsonpath={range .items[*]}{.metadata.name}{"\t"}{.metadata.labels}{"\t"}{range .spec.taints[*]}{.key}={.value}:{.effect} {end}{"\n"}{end}' \
        2>/dev/null) || nodes=
    if [ -z "$nodes" ]; then printf '\tthe API does not answer: labels and taints of nodes were not compared\n'; fi
fi

on_node() { # KIND NODE KEY=VALUE
    if [ -z "$nodes" ]; then
        echo "$3"
        return
    fi
    case $1 in
    label) text="\"${3%%=*}\":\"${3#*=}\"" column=2 ;;
    taint) text=" $3 " column=3 ;;
    esac
    if printf '%s\n' "$nodes" | awk -F "$tab" -v n="$2" -v c="$column" '$1 == n { print " " $c }' | grep -qF "$text"; then
        echo "$3"
    else
        echo missing
    fi
}

for file in "$records"/*; do
    STEP=${file##*/}
    case $STEP in *.new | '*') continue ;; esac
    printf '%s\t\n' "$STEP"
    differences | while read -r line; do printf '%s\t%s\n' "$STEP" "$line"; done
done
