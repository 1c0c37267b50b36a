"""The profile `hardened`: what K3s' hardening guide (docs.k3s.io/security/hardening-guide) sets on nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

Config = dict[str, object]

_CIPHERS = (
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,"
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,"
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"
)
_ADMISSION_FILE = "/etc/rancher/k3s/admission.json"
_AUDIT_FILE = "/etc/rancher/k3s/audit-policy.json"

# What is K3s' own default stands here, too, where the benchmark asks for it: flags that undo it are refused.
_ARGUMENTS: dict[str, dict[str, str]] = {
    "kube-apiserver-arg": {
        "anonymous-auth": "false",
        "profiling": "false",
        "authorization-mode": "Node,RBAC",
        "service-account-lookup": "true",
        "service-account-extend-token-expiration": "false",
        "request-timeout": "60s",
        "tls-cipher-suites": _CIPHERS,
        "tls-min-version": "VersionTLS12",
        "enable-admission-plugins": "NodeRestriction,EventRateLimit",
        "admission-control-config-file": _ADMISSION_FILE,
        "audit-policy-file": _AUDIT_FILE,
        "audit-log-path": "/var/lib/rancher/k3s/server/logs/audit.log",
        # CIS asks for ten old files of 100 MB, an edge disk for less: they are compressed to a tenth or so.
        "audit-log-maxage": "30",
        "audit-log-maxbackup": "10",
        "audit-log-maxsize": "100",
        "audit-log-compress": "true",
    },
    "kube-controller-manager-arg": {"profiling": "false", "terminated-pod-gc-threshold": "100"},
    "kube-scheduler-arg": {"profiling": "false"},
    "kubelet-arg": {
        "anonymous-auth": "false",
        "authorization-mode": "Webhook",
        "read-only-port": "0",
        "streaming-connection-idle-timeout": "5m",
        "make-iptables-util-chains": "true",
        "event-qps": "50",
        "pod-max-pids": "4096",
        "tls-cipher-suites": _CIPHERS,
        "tls-min-version": "VersionTLS12",
    },
}
_AMOUNTS = {
    "request-timeout",
    "audit-log-maxage",
    "audit-log-maxbackup",
    "audit-log-maxsize",
    "audit-log-compress",
    "terminated-pod-gc-threshold",
    "streaming-connection-idle-timeout",
    "event-qps",
    "pod-max-pids",
}
"""Arguments that CIS wants to be set "as appropriate": the stack's own flags go before these."""

SYSCTLS = {
    "kernel.keys.root_maxbytes": 25000000,
    "kernel.keys.root_maxkeys": 1000000,
    "kernel.panic": 10,
    "kernel.panic_on_oops": 1,
    "vm.overcommit_memory": 1,
    "vm.panic_on_oom": 0,
}
"""What a kubelet with protect-kernel-defaults has to find (Kubernetes: setupKernelTunables)."""

_READ = ["get", "list", "watch"]
_PARTS = [
    "system:apiserver",
    "system:kube-controller-manager",
    "system:kube-proxy",
    "system:kube-scheduler",
    "system:k3s-controller",
    "system:k3s-supervisor",
    "k3s-cloud-controller-manager",
]
AUDIT_POLICY: dict[str, Any] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "nonResourceURLs": ["/healthz*", "/livez*", "/readyz*", "/version", "/openapi/*"]},
        {"level": "None", "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}]},
        {"level": "None", "resources": [{"group": "", "resources": ["events"]}, {"group": "events.k8s.io"}]},
        # The cluster's own parts read all the time; what they read of secrets is logged all the same.
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets"]}]},
        {"level": "None", "userGroups": ["system:nodes"], "verbs": _READ},
        {"level": "None", "userGroups": ["system:serviceaccounts:kube-system"], "verbs": _READ},
        {"level": "None", "users": _PARTS, "verbs": _READ},
        {"level": "Metadata"},
    ],
}
"""Who did what to which object and when. No level that writes bodies, so no secret gets into the log."""

ADMISSION = {
    "apiVersion": "apiserver.config.k8s.io/v1",
    "kind": "AdmissionConfiguration",
    "plugins": [
        {
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {
                    f"{mode}{suffix}": value
                    for mode in ("enforce", "audit", "warn")
                    for suffix, value in (("", "restricted"), ("-version", "latest"))
                },
                # CoreDNS, the service load balancer, NVIDIA's device plugin and exporter.
                "exemptions": {"namespaces": ["kube-system"]},
            },
        },
        {
            "name": "EventRateLimit",
            "configuration": {
                "apiVersion": "eventratelimit.admission.k8s.io/v1alpha1",
                "kind": "Configuration",
                "limits": [{"type": "Server", "qps": 5000, "burst": 20000}],
            },
        },
    ],
}
"""Pods are restricted in each namespace whose labels (pod-security.kubernetes.io/…) do not say else."""


def profile_config(role: str) -> Config:
    """The profile's keys of a node's config.yaml."""
    config: Config = {"protect-kernel-defaults": True}
    if role == "server":
        config["secrets-encryption"] = True
    for key, arguments in _ARGUMENTS.items():
        if role == "server" or key == "kubelet-arg":
            config[key] = [f"{name}={value}" for name, value in arguments.items()]
    return config


def hardened(own: Mapping[str, object], role: str) -> Config:
    """The profile's keys with the stack's own flags: arguments are joined, amounts are the stack's."""
    config = profile_config(role)
    for key, value in own.items():
        if key not in _ARGUMENTS:
            config[key] = value
            continue
        arguments = {**_ARGUMENTS[key], **_split(value)}
        config[key] = [f"{name}={text}" for name, text in arguments.items()]
    return config


def contradictions(own: Mapping[str, object]) -> list[tuple[str, str]]:
    """Keys of the stack's own flags that undo the profile, each with what is wrong."""
    plain = {"protect-kernel-defaults": True, "secrets-encryption": True}
    found = []
    for key, value in own.items():
        if key in plain and value is not plain[key]:
            found.append((key, f"{value}, and profile hardened sets {plain[key]}"))
        for name, text in _split(value).items() if key in _ARGUMENTS else ():
            wanted = _ARGUMENTS[key].get(name, text)
            if text != wanted and name not in _AMOUNTS and not _more_plugins(name, text, wanted):
                found.append((key, f"{name}={text}, and profile hardened sets {name}={wanted}"))
    return found


def _more_plugins(name: str, text: str, wanted: str) -> bool:
    return name == "enable-admission-plugins" and set(wanted.split(",")) <= set(text.split(","))


def _split(arguments: object) -> dict[str, str]:
    listed = arguments if isinstance(arguments, list) else [arguments]
    return {name: text for name, _, text in (str(argument).partition("=") for argument in listed)}


def host_values(profile: str, role: str) -> dict[str, str]:
    """What a node's install step has to know of the profile."""
    if profile == "standard":
        return {"PROFILE": profile}
    values = {"PROFILE": profile, "SYSCTLS": "\n".join(f"{key}={value}" for key, value in SYSCTLS.items())}
    if role == "server":
        values["ADMISSION"] = json.dumps(ADMISSION, indent=1)
        values["AUDIT_POLICY"] = json.dumps(AUDIT_POLICY, indent=1)
    return values
