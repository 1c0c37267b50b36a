"""Checks of the CIS Kubernetes Benchmark, as they apply to K3s: each looks at what runs, not at settings."""

from __future__ import annotations

import json
import re
import socket
import ssl
from dataclasses import dataclass

from tests.integration.local_site import LocalSite

KUBECTL = "k3s kubectl --cache-dir /run/kubectl"
_END = "-- end of a check --"
_DATA = "/var/lib/rancher/k3s/server"
_PRIVILEGED = json.dumps(
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "privileged", "namespace": "default"},
        "spec": {"containers": [{"name": "x", "image": "x", "securityContext": {"privileged": True}}]},
    }
)


@dataclass(frozen=True)
class Check:
    """One look at a host.

    Args:
        number: of the recommendation in the CIS Kubernetes Benchmark 1.9; K3s: a rule of its guide alone.
        what: it is about.
        shell: the command on the host.
        wanted: a regular expression that fits all that the command prints.
        everywhere: agents are looked at, too.
    """

    number: str
    what: str
    shell: str
    wanted: str
    everywhere: bool = False


def _argument(part: str, name: str, wanted: str, number: str) -> Check:
    """What K3s, as it started last, gave to a component that is part of its own process."""
    ran = f"journalctl -u k3s -o cat | grep 'Running {part} ' | tail -n 1"
    return Check(number, f"{part} --{name}", f"{ran} | grep -o -e '--{name}=[^ \"]*' | cut -d= -f2-", wanted)


def _open(number: str, what: str, find: str, everywhere: bool = False) -> Check:
    """Files that others than root may read."""
    return Check(number, what, f"find {find} -perm /077 2>/dev/null", "", everywhere)


def _sysctl(name: str, value: int) -> Check:
    return Check(
        "4.2.6", f"sysctl {name} at boot", f"cat /etc/sysctl.d/* | grep '^{name}='", f"{name}={value}", True
    )


CHECKS = [
    _open("1.1.7", "K3s' configuration", "/etc/rancher/k3s -type f", True),
    Check("1.1.11", "etcd's folder", f"stat -c %a {_DATA}/db/etcd", "700"),
    _open("1.1.13", "kubeconfigs", f"{_DATA}/cred -type f"),
    Check("1.1.19", "owner of keys and certificates", f"find {_DATA}/tls ! -user root", ""),
    _open("1.1.20", "certificates", f"{_DATA}/tls -name '*.crt'"),
    _open("1.1.21", "keys", rf"{_DATA}/tls \( -name '*.key' -o -name dynamic-cert.json \)"),
    Check(
        "1.2.1",
        "a request of nobody",
        "curl -sk -o /dev/null -w '%{http_code}' https://127.0.0.1:6443/api/v1/nodes",
        "401",
    ),
    _argument("kube-apiserver", "anonymous-auth", "false", "1.2.1"),
    _argument("kube-apiserver", "authorization-mode", "Node,RBAC", "1.2.7"),
    _argument("kube-apiserver", "enable-admission-plugins", "NodeRestriction,EventRateLimit", "1.2.9"),
    _argument("kube-apiserver", "profiling", "false", "1.2.15"),
    _argument("kube-apiserver", "audit-log-path", f"{_DATA}/logs/audit.log", "1.2.16"),
    _argument("kube-apiserver", "audit-log-maxage", "30", "1.2.17"),
    _argument("kube-apiserver", "audit-log-maxbackup", "10", "1.2.18"),
    _argument("kube-apiserver", "audit-log-maxsize", "100", "1.2.19"),
    _argument("kube-apiserver", "request-timeout", "60s", "1.2.20"),
    _argument("kube-apiserver", "service-account-lookup", "true", "1.2.21"),
    _argument(
        "kube-apiserver", "encryption-provider-config", f"{_DATA}/cred/encryption-config.json", "1.2.27"
    ),
    Check(
        "1.2.28",
        "what writes secrets",
        f'grep -o \'"providers":.{{"[a-z]*"\' {_DATA}/cred/encryption-config.json',
        r'"providers":\[{"aescbc"',
    ),
    _argument("kube-controller-manager", "terminated-pod-gc-threshold", "100", "1.3.1"),
    _argument("kube-controller-manager", "profiling", "false", "1.3.2"),
    _argument("kube-controller-manager", "use-service-account-credentials", "true", "1.3.3"),
    _argument("kube-controller-manager", "bind-address", "127.0.0.1", "1.3.7"),
    _argument("kube-scheduler", "profiling", "false", "1.4.1"),
    _argument("kube-scheduler", "bind-address", "127.0.0.1", "1.4.2"),
    Check(
        "2.1",
        "etcd asks both sides for certificates",
        f"grep -c 'client-cert-auth: true' {_DATA}/db/etcd/config",
        "2",
    ),
    Check(
        "3.2.1",
        "audit policy",
        'grep -o \'"kind": "Policy"\' /etc/rancher/k3s/audit-policy.json',
        '"kind": "Policy"',
    ),
    _open("3.2.1", "audit log", f"{_DATA}/logs"),
    _open(
        "4.1.5", "kubelet's kubeconfig", "/var/lib/rancher/k3s/agent -maxdepth 1 -name '*.kubeconfig'", True
    ),
    _open("4.1.7", "kubelet's certificates", "/var/lib/rancher/k3s/agent -maxdepth 1 -name '*.crt'", True),
    _sysctl("kernel.panic", 10),
    _sysctl("kernel.panic_on_oops", 1),
    _sysctl("vm.overcommit_memory", 1),
    _sysctl("vm.panic_on_oom", 0),
    Check(
        "5.1.5",
        "default service accounts that hand out tokens",
        f"for n in default kube-node-lease kube-public kube-system; do {KUBECTL} -n $n get sa default "
        "-o jsonpath='{.automountServiceAccountToken} '; done",
        "false false false false",
    ),
    Check(
        "5.2.2",
        "a privileged pod",
        f"echo '{_PRIVILEGED}' | {KUBECTL} create --dry-run=server -f - 2>&1 "
        "| grep -o 'violates PodSecurity [^ :]*'",
        'violates PodSecurity "restricted',
    ),
    Check(
        "5.3.2",
        "namespaces without a network policy",
        f"for n in $({KUBECTL} get ns -o name | cut -d/ -f2); do "
        f'[ -n "$({KUBECTL} -n $n get networkpolicy -o name)" ] || echo $n; done',
        "",
    ),
]
"""Not here: what K3s has no file for (1.1.1 to 1.1.10, 4.1.1, 4.1.9), and AlwaysPullImages (1.2.11), which a
site without internet can't have."""

KUBELET: list[tuple[str, str, object]] = [
    ("4.2.1", "authentication.anonymous.enabled", False),
    ("4.2.2", "authorization.mode", "Webhook"),
    ("4.2.4", "readOnlyPort", None),
    ("4.2.5", "streamingConnectionIdleTimeout", "5m0s"),
    ("4.2.6", "protectKernelDefaults", True),
    ("4.2.7", "makeIPTablesUtilChains", True),
    ("4.2.8", "eventRecordQPS", 50),
    ("4.2.12", "tlsMinVersion", "VersionTLS12"),
    ("4.2.13", "podPidsLimit", 4096),
]
"""What a kubelet says of itself (/configz): number, key, value; None: it is not there."""


def failures(site: LocalSite, server: str, host: str) -> list[str]:
    """What a host fails, one line each: number, what, what was found."""
    checks = [check for check in CHECKS if host == server or check.everywhere]
    # One login for all of them.
    script = "".join(f"( {check.shell}\n) 2>/dev/null; echo {_END}\n" for check in checks)
    seen = [text.strip() for text in site.on_host(host, script).stdout.split(f"{_END}\n")]
    found = [
        f"{check.number} {check.what}: {text or 'nothing'}"
        for check, text in zip(checks, seen[:-1], strict=True)
        if not re.fullmatch(check.wanted, text, re.DOTALL)
    ]
    configz = site.ssh(server, f"{KUBECTL} get --raw /api/v1/nodes/{host}/proxy/configz")
    for number, path, wanted in KUBELET:
        value = json.loads(configz)["kubeletconfig"]
        for key in path.split("."):
            value = value.get(key)
        if value != wanted:
            found.append(f"{number} kubelet's {path}: {value}")
    ports = {"4.2.12": 10250} | ({"1.2.30": 6443} if host == server else {})
    for number, port in ports.items():
        if speaks_weakly(site.address(host), port):
            found.append(f"{number} TCP port {port}: takes a cipher without AEAD")
    return found


def speaks_weakly(address: str, port: int) -> bool:
    """Whether a server takes a cipher suite that CIS' list does not have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
    with socket.create_connection((address, port), timeout=10) as connection:
        try:
            context.wrap_socket(connection).close()
        except (ssl.SSLError, ConnectionError):
            return False
    return True


SYSCTLS = {
    "kernel.keys.root_maxbytes": "20000",
    "kernel.keys.root_maxkeys": "200",
    "kernel.panic": "0",
    "kernel.panic_on_oops": "0",
    "vm.overcommit_memory": "0",
    "vm.panic_on_oom": "0",
}
"""Of a host that no kubelet has changed yet."""


def own_sysctls(site: LocalSite, name: str) -> None:
    """Gives a host these sysctls for itself, as a real machine has them: local hosts share one kernel."""
    for key, value in SYSCTLS.items():
        path = f"/proc/sys/{key.replace('.', '/')}"
        site.ssh(name, f"echo {value} >/run/{key}; mount --bind /run/{key} {path}")


def sysctls(site: LocalSite, name: str) -> dict[str, str]:
    """Those of a host, as they are."""
    lines = site.ssh(name, f"sysctl {' '.join(SYSCTLS)}").splitlines()
    return dict(line.split(" = ") for line in lines)
