"""The profile's keys of a node's config.yaml, and the stack's own flags among them."""

from typing import Any

import pytest

from components.hardening import AUDIT_POLICY, contradictions, hardened, host_values


def test_a_server_has_what_an_agent_has_and_its_own() -> None:
    server, agent = hardened({}, "server"), hardened({}, "agent")
    assert agent.items() <= server.items()
    assert sorted(agent) == ["kubelet-arg", "protect-kernel-defaults"]
    assert server["secrets-encryption"] is True


def test_arguments_of_the_stack_come_to_the_profiles_and_amounts_take_their_place() -> None:
    own = {"kubelet-arg": ["max-pods=60", "pod-max-pids=1024"], "write-kubeconfig-mode": "0640"}
    config = hardened(own, "agent")
    assert isinstance(config["kubelet-arg"], list)
    assert {"max-pods=60", "pod-max-pids=1024", "read-only-port=0"} <= set(config["kubelet-arg"])
    assert "pod-max-pids=4096" not in config["kubelet-arg"]
    assert config["write-kubeconfig-mode"] == "0640"


@pytest.mark.parametrize(
    ("own", "keys"),
    [
        ({}, []),
        ({"kubelet-arg": ["max-pods=60"], "node-label": ["a=b"]}, []),
        ({"kubelet-arg": "event-qps=5", "protect-kernel-defaults": True}, []),
        ({"kube-apiserver-arg": ["enable-admission-plugins=NodeRestriction,EventRateLimit,X"]}, []),
        ({"kube-apiserver-arg": ["enable-admission-plugins=NodeRestriction"]}, ["kube-apiserver-arg"]),
        ({"kubelet-arg": "anonymous-auth=true"}, ["kubelet-arg"]),
        ({"kubelet-arg": ["anonymous-auth"]}, ["kubelet-arg"]),
        ({"secrets-encryption": False}, ["secrets-encryption"]),
        ({"protect-kernel-defaults": "no"}, ["protect-kernel-defaults"]),
    ],
)
def test_flags_that_undo_the_profile(own: dict[str, Any], keys: list[str]) -> None:
    assert [key for key, _ in contradictions(own)] == keys


def test_agents_get_no_file_of_the_api_servers() -> None:
    assert "ADMISSION" in host_values("hardened", "server")
    assert sorted(host_values("hardened", "agent")) == ["PROFILE", "SYSCTLS"]
    assert host_values("standard", "server") == {"PROFILE": "standard"}


def test_the_audit_policy_logs_no_bodies() -> None:
    assert {rule["level"] for rule in AUDIT_POLICY["rules"]} == {"None", "Metadata"}
