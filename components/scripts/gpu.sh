# Reads which NVIDIA GPUs the host has and whether pods could use them; changes nothing.
# Values: HOST MINIMUM_GPUS MINIMUM_DRIVER DRIVER_FOR MINIMUM_TOOLKIT MEMORY_MIB (0: any) PACKAGES (empty:
# the host brings its software; before, after: packages are still to be installed, or are), INSTALLED (what they are,
# so that others are checked again). Prints the facts as JSON; every fault is one line on stderr.
unchanged="nothing was changed on the host"
if [ "$PACKAGES" = after ]; then unchanged="K3s is not installed here before this is mended"; fi
faults=0
fault() {
    printf 'error: host %s: %s\n' "$HOST" "$*" >&2
    faults=$((faults + 1))
}
at_least() { printf '%s\n%s\n' "$2" "$1" | sort -V -C; } # FOUND WANTED
one_line() { tr -s '\n' ' ' | sed 's/ $//'; }

# GPUs as the PCI bus has them, driver or not: lines of "address vendor:device".
pci_gpus() {
    for device in /sys/bus/pci/devices/*; do
        [ "$(cat "$device/vendor" 2>/dev/null)" = 0x10de ] || continue
        case $(cat "$device/class") in
        0x0300* | 0x0302*) printf '%s 10de:%s\n' "${device##*/}" "$(sed 's/^0x//' "$device/device")" ;;
        esac
    done
}

# The driver in the kernel; both files are there only while the module is loaded.
loaded_driver() {
    if [ -r /proc/driver/nvidia/version ]; then
        grep '^NVRM' /proc/driver/nvidia/version | grep -Eo '[0-9]{3,}\.[0-9]+(\.[0-9]+)?' | head -n 1
    else
        cat /sys/module/nvidia/version 2>/dev/null || true
    fi
}

minor_of() { # ADDRESS NUMBER: the N of /dev/nvidiaN, which the driver states; else in the bus's order.
    awk -F ':[ \t]*' '/^Device Minor/ { print $2; f = 1 } END { exit !f }' \
        "/proc/driver/nvidia/gpus/$1/information" 2>/dev/null || echo "$2"
}

check_driver() {
    if [ -n "$loaded" ]; then
        driver=$loaded
    elif [ -n "$installed" ] || command -v nvidia-smi >/dev/null; then
        driver=$installed
        found="no module of it for kernel $(uname -r)"
        [ -z "$installed" ] || found="driver $installed on disk"
        fault "$named: kernel module nvidia not loaded, found $found, want it loaded: run 'modprobe nvidia' and read dmesg (Secure Boot refuses an unsigned module, a new kernel needs its module built), then run up again"
    else
        fault "$named: no NVIDIA driver found, want $MINIMUM_DRIVER or newer ($DRIVER_FOR): install the driver and restart the host, then run up again"
        return
    fi
    if [ -n "$driver" ] && ! at_least "$driver" "$MINIMUM_DRIVER"; then
        fault "$named: driver $driver found, want $MINIMUM_DRIVER or newer ($DRIVER_FOR): install a newer driver and restart the host, or ask for less by that setting"
    fi
}

check_holders() { # A GPU that another driver holds, or none though the module is loaded.
    echo "$gpus" | while read -r address id; do
        holder=$(basename "$(readlink "/sys/bus/pci/devices/$address/driver" 2>/dev/null || true)")
        case $holder in
        nvidia) ;;
        "") [ -z "$loaded" ] || echo "GPU $address ($id): not claimed by driver $loaded, want it claimed: read dmesg (the driver may be too old or too new for this GPU) and install one that supports it" ;;
        *) echo "GPU $address ($id): held by driver $holder, want nvidia: blacklist $holder (/etc/modprobe.d), rebuild the initramfs and restart the host" ;;
        esac
    done
}

check_nodes() {
    number=0
    for node in nvidiactl nvidia-uvm; do [ -c "/dev/$node" ] || echo "/dev/$node"; done
    echo "$gpus" | while read -r address id; do
        node=/dev/nvidia$(minor_of "$address" "$number")
        [ -c "$node" ] || echo "$node"
        number=$((number + 1))
    done
}

# What nvidia-smi says of each GPU: "address, name, memory in MiB, driver".
check_libraries() {
    if ! command -v nvidia-smi >/dev/null; then
        fault "$named: nvidia-smi not found, want it beside driver $loaded: install the driver's utilities package of the same version"
        return
    fi
    if ! listed=$(nvidia-smi --query-gpu=pci.bus_id,name,memory.total,driver_version --format=csv,noheader,nounits 2>&1); then
        said=$(echo "$listed" | one_line)
        listed=
        case $said in
        *"version mismatch"*) fault "$named: kernel module nvidia is $loaded, nvidia-smi says '$said', want one version of both: restart the host, or unload the old module and load the new one" ;;
        *) fault "$named: nvidia-smi fails with '$said', want the list of GPUs: read dmesg, install driver and utilities anew" ;;
        esac
        return
    fi
    libraries=$(echo "$listed" | awk -F ', *' 'NR == 1 { print $4 }')
    if [ "$libraries" != "$loaded" ]; then
        fault "$named: kernel module nvidia is $loaded, nvidia-smi is $libraries, want one version of both: restart the host, or unload the old module and load the new one"
    fi
}

smi_field() { # ADDRESS FIELD; nvidia-smi writes the domain with eight digits, the kernel with four.
    echo "$listed" | awk -F ', *' -v a="$1" -v f="$2" \
        '{ b = tolower($1); if (substr(b, length(b) - length(a) + 1) == a) print $f }'
}

check_listed() {
    echo "$gpus" | while read -r address id; do
        memory=$(smi_field "$address" 3)
        case $memory in
        "") echo "GPU $address ($id): on the PCI bus, nvidia-smi does not list it, want it listed: read dmesg (a fault of the GPU is an Xid line there), restart the host or mend the GPU" ;;
        *[!0-9]*) [ "$MEMORY_MIB" -eq 0 ] || echo "GPU $address ($id): memory '$memory' found, want $MEMORY_MIB MiB: leave out services.gpu.memory, this GPU does not state its own" ;;
        *) [ "$memory" -ge "$MEMORY_MIB" ] || echo "GPU $address ($id): $memory MiB memory found, want $MEMORY_MIB MiB: lower services.gpu.memory or nvidia.sharing.replicas, or set gpu: false on this host" ;;
        esac
    done
}

check_toolkit() {
    if ! command -v nvidia-ctk >/dev/null; then
        fault "$named: NVIDIA container toolkit (nvidia-ctk) not found, want $MINIMUM_TOOLKIT or newer: install nvidia-container-toolkit, which describes the GPUs to containerd"
        return
    fi
    toolkit=$(nvidia-ctk --version 2>/dev/null | grep -Eo '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1)
    if ! at_least "${toolkit:-0}" "$MINIMUM_TOOLKIT"; then
        fault "$named: NVIDIA container toolkit ${toolkit:-of unknown version} found, want $MINIMUM_TOOLKIT or newer: update nvidia-container-toolkit or lower nvidia.minimumToolkit"
    fi
}

# Each line on standard input is a fault; a function in a pipe could not count them itself.
each_fault() {
    while IFS= read -r text; do if [ -n "$text" ]; then fault "$text"; fi; done <<FAULTS
$1
FAULTS
}

check_software() {
    check_driver
    each_fault "$(check_holders)"
    if [ -n "$loaded" ]; then
        missing=$(check_nodes | one_line)
        if [ -n "$missing" ]; then
            fault "$named: $missing not found, want these device nodes: run 'nvidia-modprobe -c 0 -u' and enable nvidia-persistenced, so that they are there after each boot"
        else
            # Asked only now: where nodes are missing or no module is loaded, nvidia-smi would make and load them.
            check_libraries
            if [ -n "$listed" ]; then each_fault "$(check_listed)"; fi
        fi
    fi
    check_toolkit
}

facts() {
    echo "$gpus" | while read -r address id; do
        memory=$(smi_field "$address" 3)
        case $memory in "" | *[!0-9]*) memory=null ;; esac
        printf '{"address":"%s","id":"%s","name":"%s","memoryMiB":%s}\n' "$address" "$id" "$(smi_field "$address" 2)" "$memory"
    done | paste -s -d , - | sed "s/.*/{\"driver\":\"$driver\",\"toolkit\":\"$toolkit\",\"gpus\":[&]}/"
}

gpus=$(pci_gpus)
[ -n "$gpus" ] ||
    fail "no NVIDIA GPU found on the PCI bus (vendor 10de, class 0300 or 0302), want one, as its setting says gpu: true: seat or pass through the GPU, or set gpu: false; $unchanged"
named="GPU $(echo "$gpus" | sed 's/ \(.*\)/ (\1)/' | paste -s -d , - | sed 's/,/, /g')"
loaded=$(loaded_driver)
installed=$(modinfo -F version nvidia 2>/dev/null | head -n 1 || true)
driver='' toolkit='' listed=''
count=$(echo "$gpus" | wc -l)
[ "$count" -ge "$MINIMUM_GPUS" ] ||
    fault "$named: $count found on the PCI bus, want $MINIMUM_GPUS, as its setting says gpu: $MINIMUM_GPUS: seat or pass through what is missing (dmesg names a GPU that fell off the bus), or set gpu: $count"
if [ "$PACKAGES" != before ]; then check_software; fi
facts
[ "$faults" -eq 0 ] || fail "$faults fault(s) above; $unchanged"
