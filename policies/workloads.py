"""Rules about how a workload is run: its runtime, its probes, its token, its replicas."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from policies import cel
from policies.config import Settings
from policies.images import Image, ImageError, parse
from policies.pods import Container, NotSeen, Pod, pods
from policies.rules import (
    Admission,
    Finding,
    Resource,
    Rule,
    Validation,
    is_kubernetes,
    not_yet_known,
    unreadable,
)
from policies.values import Edit, Unknown

_PROBES = ("livenessProbe", "readinessProbe")


def _pods(resource: Resource) -> Iterator[Pod | NotSeen]:
    return pods(resource.type, resource.inputs)


class WasmSettings(Settings):
    """Which images are wasm, and what runs them."""

    runtimeClasses: tuple[str, ...] = Field(
        default=("wasm",),
        min_length=1,
        description="RuntimeClasses whose handler runs wasm, and nothing else.",
    )
    images: tuple[str, ...] = Field(
        default=("*.wasm",),
        description="Images that are wasm: registry/path without tag and digest, `*` is any text.",
    )

    def is_wasm(self, image: Image) -> bool:
        """Whether an image is wasm by its name."""
        return any(re.fullmatch(cel.glob(pattern), image.repository) for pattern in self.images)


def check_runtime_class(resource: Resource, settings: WasmSettings) -> Iterator[Finding]:
    """A wasm image runs under a RuntimeClass for wasm, and nothing else runs under one.

    Under another runtime a wasm image does not start ("exec format error"); under the wasm shim a container
    of another kind is outside what the runtime was chosen for. Images are told apart by name (`images`).

    Good:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: model, namespace: default}
        spec:
          runtimeClassName: wasm
          containers:
            - name: model
              image: edge.local/m.wasm@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: model, namespace: default}
        spec:
          containers:
            - name: model
              image: edge.local/m.wasm@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```
    """
    for pod in _pods(resource):
        if not isinstance(pod, Pod):
            yield unreadable(pod)
            continue
        given = pod.spec.get("runtimeClassName")
        if isinstance(given, Unknown):
            yield not_yet_known(pod.field("runtimeClassName"))
            continue
        for part in pod.containers():
            if not isinstance(part, Container):
                yield unreadable(part)
            elif isinstance(part.fields.get("image"), Unknown):
                yield not_yet_known(f"{part.path}.image", part.name)
            elif (is_wasm := _is_wasm(part, settings)) is not None:
                yield from _class_fits(pod, part, given, is_wasm, settings)


def _is_wasm(container: Container, settings: WasmSettings) -> bool | None:
    try:
        return settings.is_wasm(parse(str(container.fields.get("image") or "")))
    except ImageError:
        return None  # image-digest refuses it


def _class_fits(
    pod: Pod, container: Container, given: Any, is_wasm: bool, settings: WasmSettings
) -> Iterator[Finding]:
    path, image = pod.field("runtimeClassName"), container.fields.get("image")
    classes = " or ".join(settings.runtimeClasses)
    if is_wasm and given not in settings.runtimeClasses:
        found = "is missing" if given is None else f"is {given}"
        yield Finding(path, f"{found}, but {image} is wasm", f"set it to {classes}", container.name)
    elif not is_wasm and given in settings.runtimeClasses:
        fix = f"leave {path} out, or add the image to wasm-runtime-class.images if it is wasm"
        yield Finding(path, f"is {given}, but {image} is no wasm image", fix, container.name)


def _runtime_class_admission(settings: WasmSettings) -> Admission:
    wasm = "|".join(cel.glob(pattern) for pattern in settings.images) or r"\b\B"
    pattern = cel.text(rf"^({wasm})(:[^/@]+)?(@.*)?$")
    under = (
        f"{cel.has('variables.podSpec.runtimeClassName')}"
        f" && variables.podSpec.runtimeClassName in {cel.texts(settings.runtimeClasses)}"
    )
    return Admission(
        ("pods",),
        (
            Validation(
                f"({under}) || !variables.images.exists(i, i.matches({pattern}))",
                f"a wasm image runs under runtimeClassName {' or '.join(settings.runtimeClasses)}",
            ),
            Validation(
                f"!({under}) || variables.images.all(i, i.matches({pattern}))",
                f"only wasm images run under runtimeClassName {' or '.join(settings.runtimeClasses)}",
            ),
        ),
    )


class ProbeSettings(Settings):
    """What `remediate` writes."""

    periodSeconds: int = Field(
        default=10, ge=1, description="Seconds between two looks of a filled-in probe."
    )
    failureThreshold: int = Field(default=3, ge=1, description="Failures of a filled-in probe that count.")


def check_probes(resource: Resource, settings: ProbeSettings) -> Iterator[Finding]:
    """Every container that is to run for ever has a liveness and a readiness probe.

    Without them a hung server keeps its place, and one that still loads its model gets requests. Init
    containers, sidecars and pods that end (restartPolicy Never or OnFailure, Jobs) need none.

    Good:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
              livenessProbe: {httpGet: {path: /healthz, port: 8080}}
              readinessProbe: {httpGet: {path: /ready, port: 8080}}
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
              livenessProbe: {httpGet: {path: /healthz, port: 8080}}
        ```
    """
    for part in _long_running(resource):
        if not isinstance(part, Container):
            yield unreadable(part)
            continue
        for probe in _PROBES:
            value, path = part.fields.get(probe), f"{part.path}.{probe}"
            if isinstance(value, Unknown):
                yield not_yet_known(path, part.name)
            elif not isinstance(value, Mapping) or not value:
                found = "is missing" if not value else f"is {value!r}"
                yield Finding(path, found, f"set {path}, for example to {{httpGet: …}}", part.name)


def _long_running(resource: Resource) -> Iterator[Container | NotSeen]:
    for pod in _pods(resource):
        if not isinstance(pod, Pod):
            yield pod
            continue
        policy = pod.spec.get("restartPolicy")
        if pod.kind in ("Job", "CronJob") or policy in ("Never", "OnFailure"):
            continue
        if isinstance(policy, Unknown):
            yield pod.field("restartPolicy"), policy
            continue
        for part in pod.containers():
            if not isinstance(part, Container) or part.group == "containers":
                yield part


def remediate_probes(resource: Resource, settings: ProbeSettings) -> Iterator[Edit]:
    """Give a container that states a TCP port the missing probes: the port takes connections."""
    for part in _long_running(resource):
        if not isinstance(part, Container):
            continue
        ports = part.fields.get("ports")
        port = next((each for each in _tcp_ports(ports)), None)
        for probe in _PROBES:
            if part.fields.get(probe) is None and port is not None:
                value = {
                    "tcpSocket": {"port": port},
                    "periodSeconds": settings.periodSeconds,
                    "failureThreshold": settings.failureThreshold,
                }
                yield Edit((*part.at, probe), value)


def _tcp_ports(ports: Any) -> Iterator[Any]:
    for port in ports if isinstance(ports, list) else ():
        if isinstance(port, Mapping) and port.get("protocol") in (None, "TCP"):
            number = port.get("containerPort")
            if number is not None and not isinstance(number, Unknown):
                yield number


def _probes_admission(settings: ProbeSettings) -> Admission:
    ends = f"{cel.has('variables.podSpec.restartPolicy')} && variables.podSpec.restartPolicy != 'Always'"
    return Admission(
        ("pods",),
        [
            Validation(
                f"({ends}) || variables.podSpec.containers.all(c, has(c.{probe}))",
                f"every container that runs for ever needs a {probe}",
            )
            for probe in _PROBES
        ],
    )


def check_token(resource: Resource, settings: Settings) -> Iterator[Finding]:
    """A pod gets no token of the API server unless it asks for one by name.

    `automountServiceAccountToken: false` is in order; so is `true` together with a `serviceAccountName` of
    the pod's own, which is asking. Left out, every pod would hold a credential that it does not use.

    Good:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          automountServiceAccountToken: false
          containers:
            - name: app
              image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```
    """
    for pod in _pods(resource):
        if not isinstance(pod, Pod):
            yield unreadable(pod)
            continue
        given, account = (pod.spec.get(key) for key in ("automountServiceAccountToken", "serviceAccountName"))
        path = pod.field("automountServiceAccountToken")
        if isinstance(given, Unknown) or (given is True and isinstance(account, Unknown)):
            yield not_yet_known(path)
        elif given is True and account in (None, "", "default"):
            fix = "set it to false, or name a serviceAccountName of the pod's own"
            yield Finding(path, "is true for the namespace's default account", fix)
        elif not isinstance(given, bool):
            found = "is missing" if given is None else f"is {given!r}"
            yield Finding(path, found, f"set {path} to false")


def remediate_token(resource: Resource, settings: Settings) -> Iterator[Edit]:
    """Take the token from a pod that does not say whether it wants one."""
    for pod in _pods(resource):
        if isinstance(pod, Pod) and pod.spec.get("automountServiceAccountToken") is None:
            yield Edit((*pod.at, "automountServiceAccountToken"), False)


def _token_admission(settings: Settings) -> Admission:
    field, account = "variables.podSpec.automountServiceAccountToken", "variables.podSpec.serviceAccountName"
    asked = f"{cel.has(account)} && {account} != '' && {account} != 'default'"
    return Admission(
        ("pods",),
        (
            Validation(
                f"{cel.has(field)} && (!{field} || ({asked}))",
                "set automountServiceAccountToken to false, or to true with a serviceAccountName of its own",
            ),
        ),
    )


def check_helm(resource: Resource, settings: Settings) -> Iterator[Finding]:
    """A chart is rendered where the pack sees it: as a Chart, not as a Helm Release.

    A Release (`kubernetes:helm.sh/v3:Release`) renders its manifests inside the provider, so no rule of
    this pack sees its pods. A Chart (`kubernetes:helm.sh/v4:Chart`) registers every object it renders, and
    each is checked.

    Good:
        ```json
        [{"type": "kubernetes:helm.sh/v4:Chart", "name": "app", "inputs": {"chart": "./app"}}]
        ```

    Bad:
        ```json
        [{"type": "kubernetes:helm.sh/v3:Release", "name": "app", "inputs": {"chart": "./app"}}]
        ```
    """
    if resource.type == "kubernetes:helm.sh/v3:Release":
        fix = "use kubernetes.helm.v4.Chart, or except it by name and check `helm template` in CI"
        yield Finding("chart", "renders pods that the pack cannot see", fix)


WASM = Rule(
    id="wasm-runtime-class",
    description="Wasm images run under a RuntimeClass for wasm, and nothing else does.",
    settings=WasmSettings,
    severity="medium",
    check=check_runtime_class,
    applies=is_kubernetes,
    admission=_runtime_class_admission,
)
PROBES = Rule(
    id="probes",
    description="Every container that runs for ever has a liveness and a readiness probe.",
    settings=ProbeSettings,
    severity="medium",
    check=check_probes,
    applies=is_kubernetes,
    remediate=remediate_probes,
    admission=_probes_admission,
)
TOKEN = Rule(
    id="service-account-token",
    description="A pod gets no token of the API server unless it asks for one.",
    settings=Settings,
    severity="medium",
    check=check_token,
    applies=is_kubernetes,
    remediate=remediate_token,
    admission=_token_admission,
)
HELM = Rule(
    id="visible-pods",
    description="Charts are rendered where the pack sees their pods.",
    settings=Settings,
    severity="medium",
    check=check_helm,
    applies=lambda kind: kind.startswith("kubernetes:helm.sh/"),
    outside="It is about how a program is written; the pods of a Release that is let through are checked "
    "in the cluster by the other rules' policies.",
)
RULES: Sequence[Rule[Any]] = (WASM, PROBES, TOKEN, HELM)
