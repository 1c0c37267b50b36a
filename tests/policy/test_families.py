"""Rules of workloads, security, availability and hosts: what each refuses, lets through, cannot know."""

import copy
import json
from dataclasses import replace
from typing import Any

import pytest
from pulumi_policy.deserialize import (
    SPECIAL_SECRET_SIG,
    SPECIAL_SIG_KEY,
    deserialize_properties,
    serialize_properties,
)
from pulumi_policy.proxy import UNKNOWN_STRING_VALUE

from policies import availability, config, hosts, limits, security, workloads
from policies.catalog import RULES
from policies.pods import TEMPLATES
from policies.rules import AnyRule, Finding, Resource, Rule, StackRule
from policies.values import Edit, Unknown, edited

DIGEST = "sha256:" + "a" * 64
DEPLOYMENT = "kubernetes:apps/v1:Deployment"
POD: dict[str, Any] = {
    "automountServiceAccountToken": False,
    "securityContext": {"runAsNonRoot": True},
    "containers": [
        {
            "name": "c",
            "image": f"edge.local/app@{DIGEST}",
            "ports": [{"containerPort": 8080}],
            "livenessProbe": {"httpGet": {"path": "/", "port": 8080}},
            "readinessProbe": {"httpGet": {"path": "/", "port": 8080}},
            "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1", "memory": "1Gi"}},
        }
    ],
}
FAMILIES: tuple[Rule[Any], ...] = (*workloads.RULES, *security.RULES, limits.RULE)


def changed(path: str, value: Any) -> dict[str, Any]:
    """POD with one field set; `containers.0.` leads into its container; None takes the field away."""
    result = copy.deepcopy(POD)
    *way, last = path.split(".")
    place: Any = result
    for step in way:
        place = place[int(step)] if step.isdigit() else place.setdefault(step, {})
    if value is None:
        place.pop(last, None)
    else:
        place[last] = value
    return result


def deployment(pod: Any, **metadata: Any) -> Resource:
    """A Deployment of a pod."""
    inputs = {"metadata": {"name": "d"}, "spec": {"template": {"metadata": metadata, "spec": pod}}}
    return Resource(DEPLOYMENT, inputs, "d")


def found(rule: AnyRule, *resources: Resource, **settings: Any) -> list[Finding]:
    """What a rule finds."""
    own = rule.settings(**settings)
    if isinstance(rule, StackRule):
        return [finding for _, finding in rule.check(resources, own)]
    asked = [resource for resource in resources if rule.applies(resource.type)]
    return [finding for resource in asked for finding in rule.check(resource, own)]


def test_a_pod_in_order_passes_every_rule() -> None:
    for rule in FAMILIES:
        assert not found(rule, deployment(POD)), rule.id


WASM = {"images": ("edge.local/models/*", "*.wasm")}


@pytest.mark.parametrize(
    ("image", "given", "text"),
    [
        ("edge.local/models/digits:v1", None, "runtimeClassName is missing, but edge.local/models/digits:v1"),
        ("r.example/llama.wasm:v1", "runc", "runtimeClassName is runc, but"),
        ("nginx", "wasm", "is wasm, but nginx is no wasm image"),
        ("edge.local/models/digits", "wasm", ""),
        ("nginx", None, ""),
    ],
)
def test_runtime_class(image: str, given: str | None, text: str) -> None:
    pod = changed("containers.0.image", image)
    if given:
        pod["runtimeClassName"] = given
    texts = [finding.text() for finding in found(workloads.WASM, deployment(pod), **WASM)]
    assert bool(texts) == bool(text)
    assert all(text in each for each in texts)


@pytest.mark.parametrize(
    ("rule", "path", "value", "text"),
    [
        (workloads.PROBES, "containers.0.livenessProbe", None, "containers[0].livenessProbe is missing"),
        (workloads.PROBES, "containers.0.readinessProbe", 3, "readinessProbe is 3"),
        (workloads.TOKEN, "automountServiceAccountToken", None, "automountServiceAccountToken is missing"),
        (
            workloads.TOKEN,
            "automountServiceAccountToken",
            True,
            "is true for the namespace's default account",
        ),
        (workloads.TOKEN, "automountServiceAccountToken", "false", "is 'false'"),
        (security.POD, "hostNetwork", True, "spec.template.spec.hostNetwork is true"),
        (security.POD, "hostPID", True, "hostPID is true"),
        (security.POD, "hostIPC", "yes", "hostIPC is yes"),
        (security.POD, "volumes", [{"hostPath": {"path": "/etc"}}], "volumes[0].hostPath.path is /etc"),
        (security.POD, "volumes", [{"hostPath": {"path": "/data/../etc"}}], "hostPath.path is /data/../etc"),
        (security.POD, "containers.0.securityContext", {"privileged": True}, "privileged is true"),
        (
            security.POD,
            "containers.0.securityContext",
            {"capabilities": {"add": ["SYS_ADMIN"]}},
            "capabilities.add holds SYS_ADMIN",
        ),
        (security.POD, "containers.0.securityContext", {"runAsUser": 0}, "runAsUser is 0, which is root"),
        (security.POD, "containers.0.securityContext", {"runAsNonRoot": False}, "runAsNonRoot is false"),
        (security.POD, "securityContext", None, "runAsNonRoot is missing, so it may run as root"),
        (
            security.POD,
            "initContainers",
            [{"name": "i", "securityContext": {"runAsUser": 0}}],
            'container "i"',
        ),
    ],
)
def test_refused(rule: Rule[Any], path: str, value: Any, text: str) -> None:
    settings = {"hostPaths": ("/data",)} if rule is security.POD else {}
    texts = [finding.text() for finding in found(rule, deployment(changed(path, value)), **settings)]
    assert len(texts) == 1, texts
    assert text in texts[0]


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        (workloads.PROBES, "initContainers", [{"name": "i"}]),
        (workloads.PROBES, "restartPolicy", "Never"),
        (security.POD, "hostNetwork", False),
        (security.POD, "volumes", [{"hostPath": {"path": "/data/models"}}, {"emptyDir": {}}]),
        (security.POD, "containers.0.securityContext", {"capabilities": {"add": ["NET_BIND_SERVICE"]}}),
        (security.POD, "securityContext", {"runAsUser": 65532}),
    ],
)
def test_let_through(rule: Rule[Any], path: str, value: Any) -> None:
    settings: dict[str, Any] = {}
    if rule is security.POD:
        settings = {"hostPaths": ("/data",), "capabilities": ("NET_BIND_SERVICE",)}
    assert not found(rule, deployment(changed(path, value)), **settings)


def test_a_token_is_asked_for_by_an_account_of_ones_own() -> None:
    pod = changed("automountServiceAccountToken", True) | {"serviceAccountName": "operator"}
    assert not found(workloads.TOKEN, deployment(pod))


@pytest.mark.parametrize(
    ("rule", "path"),
    [
        (workloads.WASM, "runtimeClassName"),
        (workloads.WASM, "containers.0.image"),
        (workloads.PROBES, "containers.0.livenessProbe"),
        (workloads.TOKEN, "automountServiceAccountToken"),
        (security.POD, "hostNetwork"),
        (security.POD, "volumes"),
        (security.POD, "securityContext"),
        (security.POD, "containers.0.securityContext"),
        *((rule, "containers") for rule in (workloads.WASM, workloads.PROBES, security.POD)),
    ],
)
def test_not_yet_known(rule: Rule[Any], path: str) -> None:
    """What preview cannot know is said to be unknown, never taken for good or bad."""
    findings = found(rule, deployment(changed(path, Unknown())))
    assert findings
    assert not any(finding.known for finding in findings)


@pytest.mark.parametrize("kind", sorted(TEMPLATES))
def test_pods_are_found_in_every_kind(kind: str) -> None:
    value: Any = {"spec": changed("hostPID", True)}
    for step in reversed(TEMPLATES[kind]):
        value = {step: value}
    group = {"Pod": "core/v1", "PodTemplate": "core/v1", "CronJob": "batch/v1"}.get(kind, "apps/v1")
    assert found(security.POD, Resource(f"kubernetes:{group}:{kind}", value))


@pytest.mark.parametrize(
    "inputs",
    [
        {"spec": {"template": {"spec": changed("hostPID", True)}}},
        {"spec": {"predictor": changed("hostPID", True)}},
        {"spec": {"roles": [{"podTemplate": {"spec": changed("hostPID", True)}}]}},
    ],
)
def test_pods_are_found_in_custom_resources(inputs: dict[str, Any]) -> None:
    """Wherever it is in an object of a foreign kind; the same shape in a ConfigMap is data."""
    assert len(found(security.POD, Resource("kubernetes:serving.example.com/v1:Model", inputs))) == 1
    assert not found(security.POD, Resource("kubernetes:core/v1:ConfigMap", inputs))


def test_namespaces() -> None:
    label = "pod-security.kubernetes.io/enforce"

    def namespace(labels: Any) -> Resource:
        return Resource("kubernetes:core/v1:Namespace", {"metadata": {"name": "n", "labels": labels}})

    assert not found(security.NAMESPACE, namespace({label: "restricted"}))
    assert "is 'baseline'" in found(security.NAMESPACE, namespace({label: "baseline"}))[0].text()
    assert "is missing" in found(security.NAMESPACE, namespace(None))[0].text()
    assert not found(security.NAMESPACE, namespace(Unknown()))[0].known


def test_load_balancers() -> None:
    def service(namespace: Any) -> Resource:
        inputs = {"metadata": {"name": "s", "namespace": namespace}, "spec": {"type": "LoadBalancer"}}
        return Resource("kubernetes:core/v1:Service", inputs, "s")

    allowed = {"loadBalancers": ("inference/*",)}
    assert not found(security.EXPOSURE, service("inference"), **allowed)
    refused = found(security.EXPOSURE, service("inference2"), **allowed)
    assert "add inference2/s to load-balancer.loadBalancers" in refused[0].text()
    assert not found(security.EXPOSURE, service(Unknown()), **allowed)[0].known


def _stack(replicas: Any, *others: dict[str, Any], labels: Any = None) -> list[Resource]:
    template = {"metadata": {"labels": labels or {"app": "a"}}}
    metadata = {"name": "a", "namespace": "n"}
    stack = [Resource(DEPLOYMENT, {"metadata": metadata, "spec": {"template": template} | replicas}, "a")]
    for other in others:
        stack.append(Resource(other["type"], {"metadata": metadata, "spec": other["spec"]}, "a"))
    return stack


BUDGET = {
    "type": "kubernetes:policy/v1:PodDisruptionBudget",
    "spec": {"selector": {"matchLabels": {"app": "a"}}},
}
SCALER = {
    "type": "kubernetes:autoscaling/v2:HorizontalPodAutoscaler",
    "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "a"}, "minReplicas": 2},
}
PATCH = {"type": "kubernetes:apps/v1:DeploymentPatch", "spec": {"replicas": 2}}


@pytest.mark.parametrize(
    ("stack", "texts"),
    [
        (_stack({"replicas": 2}, BUDGET), []),
        (_stack({}, BUDGET, SCALER), []),
        (_stack({}, BUDGET, PATCH), []),
        (_stack({}, BUDGET), ["spec.replicas is 1"]),
        (_stack({"replicas": 1}), ["spec.replicas is 1", "are in no PodDisruptionBudget"]),
        (_stack({"replicas": 2}, BUDGET, labels={"app": "b"}), ["are in no PodDisruptionBudget"]),
        (_stack({"replicas": Unknown()}, BUDGET), ["spec.replicas is not yet known"]),
        (_stack({"replicas": 2}, {**BUDGET, "spec": {"selector": Unknown()}}), ["is not yet known"]),
    ],
)
def test_availability(stack: list[Resource], texts: list[str]) -> None:
    findings = [finding.text() for finding in found(availability.RULE, *stack)]
    assert len(findings) == len(texts)
    assert all(text in finding for text, finding in zip(texts, findings, strict=True))


def test_each_cluster_has_budgets_of_its_own() -> None:
    """Two clusters in one stack, with objects of the same names: one's budget does not cover the other."""
    north = [replace(each, provider="north") for each in _stack({"replicas": 2}, BUDGET)]
    south = [replace(each, provider="south", name="b") for each in _stack({"replicas": 2})]
    findings = list(availability.RULE.check([*north, *south], availability.AvailabilitySettings()))
    assert [resource.name for resource, _ in findings] == ["b"]
    assert "are in no PodDisruptionBudget" in findings[0][1].text()


HOST_KEY, SECRET, ARTIFACT, K3S = hosts.RULES
PINNED = {"host": "192.0.2.1", "hostKey": "ssh-ed25519 AAAA"}
REMOTE, LOCAL, STAGED = "command:remote:Command", "command:local:Command", "edge:artifact:Artifact"
SUM = "a" * 64


@pytest.mark.parametrize(
    ("rule", "kind", "inputs", "text"),
    [
        (HOST_KEY, REMOTE, {"connection": {"host": "192.0.2.1"}}, "connection.hostKey is missing"),
        (HOST_KEY, "command:remote:CopyToRemote", {"connection": {"hostKey": ""}}, "hostKey is missing"),
        (HOST_KEY, REMOTE, {"connection": PINNED | {"proxy": {"host": "b"}}}, "connection.proxy.hostKey"),
        (HOST_KEY, REMOTE, {"connection": {"hostKey": Unknown()}}, "is not yet known"),
        (
            HOST_KEY,
            LOCAL,
            {"create": "ssh -o StrictHostKeyChecking=no host"},
            "says StrictHostKeyChecking=no",
        ),
        (HOST_KEY, REMOTE, {"connection": PINNED}, ""),
        (SECRET, LOCAL, {"create": "k3s agent --token abcdef123"}, "a secret's value in an option"),
        (SECRET, LOCAL, {"create": "K3S_TOKEN=abcdef k3s agent"}, "a secret's value in a variable"),
        (
            SECRET,
            LOCAL,
            {"update": "echo '-----BEGIN OPENSSH PRIVATE KEY-----'"},
            "update holds a private key",
        ),
        (
            SECRET,
            LOCAL,
            {"create": "x hunter2-long", "environment": {"DB_PASSWORD": "hunter2-long"}},
            "DB_PASSW",
        ),
        (
            SECRET,
            REMOTE,
            {"create": "x s3cret-pass", "connection": {"password": "s3cret-pass"}},
            "the value of",
        ),
        (SECRET, LOCAL, {"create": "k3s agent --token-file /etc/token"}, ""),
        (SECRET, LOCAL, {"create": 'K3S_TOKEN="$(cat /etc/token)" k3s agent --token $K3S_TOKEN'}, ""),
        (ARTIFACT, STAGED, {"sha256": SUM}, ""),
        (ARTIFACT, STAGED, {"sha256": ""}, "sha256 is missing"),
        (ARTIFACT, STAGED, {"sha256": "abc"}, "not 64 hexadecimal digits"),
        (ARTIFACT, REMOTE, {"create": "curl -sfL https://get.k3s.io | sh -"}, "runs what it fetches"),
        (ARTIFACT, REMOTE, {"create": "wget https://x.example/f"}, "fetches without comparing a sum"),
        (ARTIFACT, REMOTE, {"create": f"curl -O https://x.example/f && echo '{SUM}  f' | sha256sum -c"}, ""),
        (K3S, STAGED, {"artifact": "k3s", "version": "v1.30.0+k3s1"}, ""),
        (K3S, STAGED, {"artifact": "k3s", "version": "v1.31.0+k3s1"}, "outside >=1.30,<1.31"),
        (K3S, STAGED, {"artifact": "k3s"}, "version is missing"),
        (K3S, STAGED, {"artifact": "wasmedge-runtime"}, ""),
        (K3S, REMOTE, {"create": "INSTALL_K3S_VERSION=v1.29.3+k3s1 ./install.sh"}, "is v1.29.3+k3s1"),
    ],
)
def test_hosts(rule: Rule[Any], kind: str, inputs: dict[str, Any], text: str) -> None:
    texts = [finding.text() for finding in found(rule, Resource(kind, inputs, "r"))]
    assert bool(texts) == bool(text), texts
    assert all(text in each for each in texts)


def _remedied(rule: Rule[Any], resource: Resource) -> Resource:
    assert rule.remediate
    edits: list[Edit] = list(rule.remediate(resource, rule.settings()))
    return Resource(resource.type, edited(resource.inputs, edits), resource.name)


@pytest.mark.parametrize(
    ("rule", "path", "value"),
    [
        (limits.RULE, "containers.0.resources", None),
        (limits.RULE, "containers.0.resources", {"limits": {"cpu": "2"}}),
        (limits.RULE, "initContainers", [{"name": "i", "resources": {"requests": {"memory": "1Gi"}}}]),
        (workloads.PROBES, "containers.0.livenessProbe", None),
        (workloads.TOKEN, "automountServiceAccountToken", None),
    ],
)
def test_remediation_leaves_nothing_to_refuse(rule: Rule[Any], path: str, value: Any) -> None:
    before = deployment(changed(path, value))
    assert found(rule, before)
    assert not found(rule, _remedied(rule, before))
    assert not list(rule.remediate(deployment(POD), rule.settings())) if rule.remediate else False


def test_remediation_changes_nothing_that_is_stated() -> None:
    """A wrong value is refused, not overwritten; an unknown one waits."""
    for value in ({"limits": {"memory": "1GB"}}, Unknown()):
        before = deployment(changed("containers.0.resources", value))
        after = _remedied(limits.RULE, before)
        resources = after.inputs["spec"]["template"]["spec"]["containers"][0]["resources"]
        assert resources == value or resources["limits"]["memory"] == "1GB"
    no_port = deployment(changed("containers.0.livenessProbe", None))
    del no_port.inputs["spec"]["template"]["spec"]["containers"][0]["ports"]
    assert _remedied(workloads.PROBES, no_port).inputs == no_port.inputs


def test_remediation_keeps_secrets_and_unknown_values() -> None:
    """The engine gets back what it gave, secrets marked as such."""
    sealed = {SPECIAL_SIG_KEY: SPECIAL_SECRET_SIG, "value": "s3cret"}
    given = {"spec": {"env": [{"value": sealed}, {"value": UNKNOWN_STRING_VALUE}], "args": ["a"]}}
    after = edited(deserialize_properties(given, True), [Edit(("spec", "new", "x"), 1)])
    assert serialize_properties(after) == {"spec": {**given["spec"], "new": {"x": 1}}}


@pytest.mark.parametrize(
    ("need", "text"),
    [
        ("1Gi", ""),
        ("2Gi", "more than any container's memory limit"),
        ("2GB", "is invalid"),
        (Unknown(), "known"),
    ],
)
def test_the_model_fits(need: Any, text: str) -> None:
    resource = deployment(POD, annotations={limits.MODEL_MEMORY: need})
    texts = [finding.text() for finding in found(limits.RULE, resource)]
    assert bool(texts) == bool(text)
    assert all(text in each for each in texts)


def test_a_bare_pod_requests_its_limits() -> None:
    """As the API server fills them in; a template has to state both."""
    pod = changed("containers.0.resources", {"limits": {"cpu": "1", "memory": "1Gi"}})
    assert not found(limits.RULE, Resource("kubernetes:core/v1:Pod", {"spec": pod}))
    assert len(found(limits.RULE, deployment(pod))) == 2


def test_rules_say_how_the_cluster_enforces_them() -> None:
    for rule in RULES:
        assert json.dumps(rule.settings.model_json_schema())
        if isinstance(rule, Rule) and rule.admission:
            assert rule.admission(config.load(rule.id, rule.settings, "")).validations
        else:
            assert len(rule.outside) > 20
