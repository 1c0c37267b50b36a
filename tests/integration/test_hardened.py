"""The profile hardened on bare hosts: CIS' checks pass on what runs, the model serves, and all goes again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.cis import KUBECTL, SYSCTLS, failures, own_sysctls, sysctls
from tests.integration.local_site import LocalSite

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

DATA = "/var/lib/rancher/k3s/server"
WORD = "open-sesame-4711"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    """A server with etcd and an agent, bare."""
    made = LocalSite(tmp_path_factory.mktemp("cis"), "cis", "10.216.21")
    try:
        made.create()
        for name in made.names:
            own_sysctls(made, name)
        yield made
    finally:
        made.localhosts("delete")


@pytest.fixture(scope="module")
def before(site: LocalSite) -> dict[str, list[str]]:
    """What is on the hosts before the first `up`."""
    return {name: site.traces(name) for name in site.names}


@pytest.fixture(scope="module")
def up(site: LocalSite, before: dict[str, list[str]]) -> str:
    configure(site)
    done = site.pulumi("up", "--yes", "--skip-preview")
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def configure(site: LocalSite, **cluster: Any) -> None:
    site.configure(cluster={"profile": "hardened", "datastore": "etcd", **cluster})


def test_flags_that_undo_the_profile_are_refused_before_any_host_is_spoken_to(site: LocalSite) -> None:
    configure(
        site,
        flags={"protect-kernel-defaults": False, "kubelet-arg": ["max-pods=60", "read-only-port=10255"]},
        serverFlags={"kube-apiserver-arg": ["anonymous-auth=true", "audit-log-maxage=60"]},
    )
    refused = site.pulumi("preview")
    assert refused.returncode != 0
    remedy = "take it out, or set cluster.profile: standard"
    for line in (
        "cluster.flags.protect-kernel-defaults: found False, and profile hardened sets True",
        "cluster.flags.kubelet-arg: found read-only-port=10255, and profile hardened sets read-only-port=0",
        "cluster.serverFlags.kube-apiserver-arg: found anonymous-auth=true, and profile hardened sets "
        "anonymous-auth=false",
    ):
        assert f"edge-inference:{line}: {remedy}" in refused.stdout
    assert "max-pods" not in refused.stdout
    assert "maxage" not in refused.stdout


def test_every_check_passes(site: LocalSite, up: str) -> None:
    server = site.names[0]
    for name in site.names:
        assert failures(site, server, name) == []


def test_kernel_parameters_are_the_kubelets_own(site: LocalSite, up: str) -> None:
    for name in site.names:
        found = sysctls(site, name)
        assert (found["vm.overcommit_memory"], found["kernel.panic"]) == ("1", "10")


def test_the_model_answers_from_outside(site: LocalSite, up: str) -> None:
    asked = site.run("python", "-m", "workloads", "query", site.output("endpoints")["ai-inference"])
    assert asked.returncode == 0, asked.stdout + asked.stderr


def test_a_secret_is_encrypted_and_its_content_is_not_in_the_audit_log(site: LocalSite, up: str) -> None:
    server = site.names[0]
    site.ssh(server, f"{KUBECTL} create secret generic probe --from-literal=word={WORD}")
    site.ssh(server, f"{KUBECTL} create configmap probe --from-literal=word=plain-{WORD}")
    held = site.ssh(server, f"grep -rlaF plain-{WORD} {DATA}/db")
    assert held, "what is not a secret is in the datastore as it is"
    assert site.ssh(server, f"grep -rlaF k8s:enc:aescbc:v1:aescbckey {DATA}/db")
    site.ssh(server, f"{KUBECTL} delete configmap probe")
    raw = site.ssh(server, f"grep -rhaoE '.{{6}}{WORD}' {DATA}/db")
    assert {line[:6] for line in raw.splitlines()} == {"plain-"}, "the secret's word stands without plain-"

    log = [json.loads(line) for line in site.ssh(server, f"cat {DATA}/logs/audit.log").splitlines()]
    created = [
        event
        for event in log
        if event["verb"] == "create" and event.get("objectRef", {}).get("resource") == "secrets"
        if event["user"]["username"] == "system:admin"
    ]
    assert [(event["level"], event["responseStatus"]["code"]) for event in created] == [("Metadata", 201)]
    assert WORD not in json.dumps(log)
    assert {event["level"] for event in log} == {"Metadata"}


def test_policies_let_dns_through_and_nothing_else_of_coredns(site: LocalSite, up: str) -> None:
    server = site.names[0]
    where = f"{KUBECTL} -n kube-system get pod -l k8s-app=kube-dns -o"
    node, address = site.ssh(
        server, f"{where} jsonpath='{{.items[0].spec.nodeName}} {{.items[0].status.podIP}}'"
    ).split()
    other = next(name for name in site.names if name != node)
    for port, answers in ((53, True), (9153, False)):
        asked = site.on_host(other, f"timeout 5 bash -c '</dev/tcp/{address}/{port}'")
        assert (asked.returncode == 0) == answers, f"{port}: {asked.stderr}"


def test_second_up_changes_nothing(site: LocalSite, up: str) -> None:
    again = site.pulumi("up", "--yes", "--skip-preview")
    assert "unchanged" in again.stdout
    assert "updated" not in again.stdout
    assert "created" not in again.stdout


def test_the_profile_is_not_taken_back_while_secrets_are_encrypted(site: LocalSite, up: str) -> None:
    configure(site, profile="standard")
    refused = site.pulumi("up", "--yes", "--skip-preview")
    assert refused.returncode != 0
    assert "set cluster.serverFlags: {secrets-encryption: true}" in refused.stdout
    for name in site.names:
        assert failures(site, site.names[0], name) == []


def test_destroy_leaves_the_hosts_as_they_were(
    site: LocalSite, up: str, before: dict[str, list[str]]
) -> None:
    configure(site)
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    for name in site.names:
        assert sorted(set(site.traces(name)) ^ set(before[name])) == []
        assert sysctls(site, name) == SYSCTLS
