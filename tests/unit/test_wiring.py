"""Wiring of components, with Pulumi's mocks: what each declares, in which form, and what stays secret."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pulumi
import pytest
from pulumi.runtime import MockCallArgs, MockResourceArgs, Mocks, set_mocks

REMOTE = "command:remote:Command"


class Recorder(Mocks):
    def __init__(self) -> None:
        self.made: dict[str, MockResourceArgs] = {}

    def new_resource(self, args: MockResourceArgs) -> tuple[str, dict[str, Any]]:
        self.made[f"{args.typ}::{args.name}"] = args
        outputs = dict(args.inputs)
        if args.typ == "pulumi:index:Stash":
            outputs["output"] = args.inputs["input"]
        if args.name == "drifted-1-hosts":
            outputs["repairs"] = {"drifted-1": {"drifted-1-rollout": 2.0}}
        if "Command" in args.typ:
            outputs["stdout"] = f"out-of-{args.name}"
        return f"{args.name}-id", outputs

    def call(self, args: MockCallArgs) -> tuple[dict[str, Any], list[tuple[str, str]]]:
        return {}, []


recorder = Recorder()
set_mocks(recorder, preview=False)

import components as edge  # noqa: E402  (mocks go first)
from components.inference import Autoscaling  # noqa: E402
from components.model import digest_reference  # noqa: E402
from components.step import script_text  # noqa: E402


def _host(name: str, **changes: Any) -> edge.EdgeHost:
    values: dict[str, Any] = {"address": "192.0.2.1", "host_key": "ssh-ed25519 AAAA", "role": "server"}
    return edge.EdgeHost(name, edge.EdgeHostArgs(**(values | changes)))


def _artifact(name: str, file: str) -> edge.Artifact:
    return edge.Artifact(name, edge.ArtifactArgs(file, f"/a/{file}.tar.zst", "ab" * 32))


def _stdin(name: str) -> str:
    """What a step reads; the mocks wrap a secret input."""
    text = recorder.made[f"{REMOTE}::{name}"].inputs["stdin"]
    return str(text["value"] if isinstance(text, dict) else text)


def _cluster(name: str, roles: Sequence[str] = ("server", "agent"), **args: Any) -> edge.K3sCluster:
    nodes = []
    files = [_artifact(f"{name}-{file}", file) for file in ("k3s", "installer", "images")]
    for index, role in enumerate(roles):
        host = _host(f"{name}-{index}", role=role)
        edge.prepare(host.name, {host: files})
        nodes.append(
            edge.NodeArgs(
                host, role, files[0], files[1], files[2], node_ip=f"192.0.2.{index}", labels={"x": "y"}
            )
        )
    return edge.K3sCluster(name, edge.K3sClusterArgs(nodes, **args))


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_the_join_token_and_the_kubeconfig_are_secrets() -> Any:
    cluster = _cluster("secret")

    async def check() -> None:
        assert await cluster.token.is_secret()
        assert await cluster.kubeconfig.is_secret()

    return pulumi.Output.from_input(check())


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_each_node_gets_the_configuration_of_its_role() -> Any:
    cluster = _cluster("roles")

    def check(_: object) -> None:
        server = recorder.made[f"{REMOTE}::roles-0-k3s"].inputs
        agent = recorder.made[f"{REMOTE}::roles-1-k3s"].inputs
        # The mocks wrap a secret input; its text is what the host reads.
        server_text, agent_text = (str(inputs["stdin"]) for inputs in (server, agent))
        assert '"tls-san"' in server_text
        assert '"server": "https://192.0.2.0:6443"' in agent_text
        assert "out-of-roles-token" in agent_text
        for inputs in (server, agent):
            assert "out-of-roles-token" not in inputs["create"]
            assert inputs["create"].endswith("k3s.sh apply")
            assert inputs["delete"].endswith("k3s.sh remove")

    return pulumi.Output.all(*cluster.versions.values()).apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_the_first_of_three_servers_begins_and_the_others_join_any() -> Any:
    cluster = _cluster("ha", ["server", "server", "server", "agent"], address="192.0.2.9")

    def check(_: object) -> None:
        made = {name: _stdin(f"ha-{name}") for name in ("0-k3s", "1-k3s", "2-k3s", "3-k3s", "0-kubeconfig")}
        for index, (begins, others) in enumerate([("yes", (1, 2)), ("no", (0, 2)), ("no", (0, 1))]):
            text = made[f"{index}-k3s"]
            assert f"BEGINS={begins}\n" in text
            assert f"JOIN='{' '.join(f'https://192.0.2.{other}:6443' for other in others)}'\n" in text
            assert '"192.0.2.9"' in text, "the API's certificate must name the address"
        assert '"server": "https://192.0.2.9:6443"' in made["3-k3s"]
        assert "ENDPOINT=https://192.0.2.9:6443\n" in made["0-kubeconfig"]

    return pulumi.Output.all(cluster.identity, *cluster.versions.values()).apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_one_server_changes_the_token_when_another_text_makes_one() -> Any:
    rotation = {"token_rotation": "2026", "certificate_rotation": "now"}
    cluster = _cluster("turn", ["server"] * 3, **rotation)

    def check(_: object) -> None:
        assert recorder.made["command:local:Command::turn-token"].inputs["triggers"] == ["2026"]
        texts = [_stdin(f"turn-{index}-k3s") for index in range(3)]
        assert ["ROTATES=yes\n" in text for text in texts] == [True, False, False]
        assert all("CERTIFICATES=now\n" in text for text in [*texts, _stdin("turn-0-kubeconfig")])

    return pulumi.Output.all(cluster.kubeconfig, *cluster.versions.values()).apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_a_new_host_key_comes_by_a_connection_that_the_old_one_checks() -> Any:
    old = "ssh-ed25519 AAAAold"
    host = _host("rekeyed", previous_host_key=old)

    def check(_: object) -> None:
        made = {key: recorder.made[f"{REMOTE}::rekeyed-{key}"].inputs for key in ("host-key", "preflight")}
        keys = {key: inputs["connection"]["value"]["hostKey"] for key, inputs in made.items()}
        assert keys == {"host-key": old, "preflight": "ssh-ed25519 AAAA"}
        assert "delete" not in made["host-key"]

    return host.facts.apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_a_hardened_cluster_turns_encryption_on_at_the_first_server_and_writes_secrets_at_the_last() -> Any:
    cluster = _cluster("hard", ["server", "server", "server", "agent"], profile="hardened")

    def check(_: object) -> None:
        steps = [_stdin(f"hard-{index}-secrets") for index in range(3)]
        assert ["TURNS_ON=yes\n" in text for text in steps] == [True, False, False]
        assert ["ENCRYPTS=yes\n" in text for text in steps] == [False, False, True]
        assert f"{REMOTE}::hard-3-secrets" not in recorder.made
        server, agent = _stdin("hard-0-k3s"), _stdin("hard-3-k3s")
        assert ("ENCRYPT=on\n" in server, "ENCRYPT=off\n" in agent) == (True, True)
        assert ("audit-policy-file" in server, "audit-policy-file=" in agent) == (True, False)

    return pulumi.Output.all(*cluster.versions.values()).apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_an_agent_is_installed_by_one_step_and_changed_by_another() -> Any:
    cluster = _cluster("agents", ["server", "agent", "agent"])

    def check(_: object) -> None:
        install = recorder.made[f"{REMOTE}::agents-1-k3s"].inputs
        rollout = recorder.made[f"{REMOTE}::agents-1-rollout"].inputs
        assert (install["update"], install["delete"][-13:]) == ("cat >/dev/null", "k3s.sh remove")
        assert rollout["update"].endswith("k3s.sh apply")
        assert "delete" not in rollout

    return pulumi.Output.all(*cluster.versions.values()).apply(check)


@pytest.mark.parametrize(
    ("roles", "args", "message"),
    [
        (["agent"], {}, "0 servers found, need an odd number"),
        (["server", "server"], {}, "2 servers found, need an odd number"),
        (["server"] * 3, {"datastore": "sqlite"}, "3 servers found, sqlite is for one"),
    ],
)
def test_servers_that_make_no_cluster(roles: list[str], args: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _cluster(f"none-{len(roles)}-{len(args)}", roles, **args)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_a_user_that_is_not_root_uses_sudo_and_the_key_is_pinned() -> Any:
    host = _host("sudoer", user="edge")

    def check(_: object) -> None:
        inputs = recorder.made[f"{REMOTE}::sudoer-preflight"].inputs
        assert "; sudo -n sh -c" in inputs["create"]
        assert "ssh-ed25519 AAAA" in str(inputs["connection"])
        assert inputs["delete"].endswith("preflight.sh remove")

    return host.facts.apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_only_a_server_with_etcd_is_asked_for_its_ports() -> Any:
    made = {
        "on": _host("etcd-server", etcd=True),
        "off": _host("etcd-agent", etcd=True, role="agent"),
    }

    def check(_: object) -> None:
        for wanted, host in made.items():
            text = recorder.made[f"{REMOTE}::{host.name}-preflight"].inputs["stdin"]
            assert f"ETCD={wanted}\n" in str(text)

    return pulumi.Output.all(*(host.facts for host in made.values())).apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_a_host_set_up_anew_is_another_input_of_each_step() -> Any:
    hosts = [_host("first-disk"), _host("second-disk", rebuilt="2026-11-25")]
    done = [host.facts for host in hosts]
    for host in hosts:
        edge.prepare(host.name, {host: [_artifact(f"{host.name}-k3s", "k3s")]})
        done.append(edge.Backup(f"{host.name}-backup", edge.BackupArgs(host, "installed")).stdout)
        done.append(host.staged.stdout)

    def check(_: object) -> None:
        for type_and_name in (
            (REMOTE, "preflight"),
            (REMOTE, "backup"),
            ("command:local:Command", "artifacts"),
        ):
            type_, name = type_and_name
            first, second = (
                str(recorder.made[f"{type_}::{host.name}-{name}"].inputs["stdin"]) for host in hosts
            )
            assert "REBUILT=" not in first
            assert "REBUILT=2026-11-25" in second

    return pulumi.Output.all(*done).apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_a_drifted_step_has_another_input_and_no_other_step_has() -> Any:
    cluster = _cluster("drifted")

    def check(_: object) -> None:
        texts = {
            name: _stdin(f"drifted-{name}") for name in ("0-k3s", "0-node", "1-k3s", "1-rollout", "1-node")
        }
        assert [name for name, text in texts.items() if "\nREPAIRS=2\n" in text] == ["1-rollout"]
        assert not any("REPAIRS=" in texts[name] for name in texts if name != "1-rollout")

    return pulumi.Output.all(*cluster.versions.values()).apply(check)


def test_an_image_is_named_as_containerd_names_it() -> None:
    digest = "sha256:" + "0" * 64
    assert digest_reference(f"host:5000/a/b:v1@{digest}") == f"host:5000/a/b@{digest}"
    assert digest_reference(f"a/b@{digest}") == f"a/b@{digest}"


@pytest.mark.parametrize("script", sorted(path.name for path in Path("components/scripts").glob("*.sh")))
def test_scripts_lose_their_comments_and_stay_valid(script: str) -> None:
    text = script_text(script)
    assert not any(line.lstrip().startswith("#") for line in text.splitlines())
    subprocess.run([shutil.which("sh") or "sh", "-n"], input=text, text=True, check=True)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_a_service_runs_under_the_wasm_class_and_is_restricted() -> Any:
    served = edge.InferenceService(
        "served",
        edge.InferenceServiceArgs(
            image="r/m@sha256:0",
            namespace="inference",
            deployment_name="served-edge",
            runtime_class="wasm",
            autoscaling=Autoscaling(2, 4),
        ),
    )

    def check(_: object) -> None:
        deployment = recorder.made["kubernetes:apps/v1:Deployment::served"].inputs
        pod = deployment["spec"]["template"]["spec"]
        container = pod["containers"][0]
        assert pod["runtimeClassName"] == "wasm"
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"] == {"cpu": "1", "memory": "1Gi"}
        assert container["readinessProbe"]["httpGet"]["path"] == "/v2/health/ready"
        assert "replicas" not in deployment["spec"], "the number is the autoscaler's, or a patch's"
        assert "kubernetes:policy/v1:PodDisruptionBudget::served" in recorder.made

    return served.url.apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_a_service_asks_for_its_gpus_as_request_and_limit() -> Any:
    served = edge.InferenceService(
        "on-gpu",
        edge.InferenceServiceArgs("r/m@sha256:0", "inference", "on-gpu-edge", "wasm", gpus=2),
    )

    def check(_: object) -> None:
        deployment = recorder.made["kubernetes:apps/v1:Deployment::on-gpu"].inputs
        pod = deployment["spec"]["template"]["spec"]
        container = pod["containers"][0]
        for kind in ("requests", "limits"):
            assert container["resources"][kind]["nvidia.com/gpu"] == "2"
        assert container["env"] == [{"name": "GPU_ENABLED", "value": "true"}]
        assert [taint["key"] for taint in pod["tolerations"]] == ["nvidia.com/gpu"]

    return served.url.apply(check)


@pulumi.runtime.test  # type: ignore[untyped-decorator]
def test_gpus_are_checked_before_any_host_is_changed() -> Any:
    host = edge.EdgeHost("with-gpu", edge.EdgeHostArgs("192.0.2.1", "ssh-ed25519 AAAA", "server"))
    gpu = edge.GpuHost("with-gpu-gpu", edge.GpuHostArgs(host, "550.54.14", "CUDA 12.4", "1.17.8", 1024))
    edge.prepare("with-gpu", {host: []}, [gpu.checked])

    def check(_: object) -> None:
        inputs = recorder.made[f"{REMOTE}::with-gpu-gpu-check"].inputs
        assert "delete" not in inputs
        assert "MINIMUM_DRIVER=550.54.14" in str(inputs["stdin"])
        assert "MEMORY_MIB=1024" in str(inputs["stdin"])

    return gpu.facts.apply(check)
