"""Rules about what a workload may do to its node and its network: rights, namespaces, exposure."""

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import Field

from policies import cel
from policies.config import Settings
from policies.pods import Container, Pod, pods
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
from policies.values import Unknown, text_path

_HOST_NAMESPACES = ("hostNetwork", "hostPID", "hostIPC")
_ENFORCE = "pod-security.kubernetes.io/enforce"


class PodSecuritySettings(Settings):
    """What is allowed beyond nothing."""

    hostPaths: tuple[str, ...] = Field(
        default=(), description="Folders of a node that pods may mount, with all below them."
    )
    capabilities: tuple[str, ...] = Field(
        default=(), description="Linux capabilities that containers may add, such as NET_BIND_SERVICE."
    )

    def allows_path(self, path: str) -> bool:
        """Whether a pod may mount a path of its node."""
        wanted = posixpath.normpath(path)
        roots = [posixpath.normpath(root) for root in self.hostPaths]
        return any(wanted == root or wanted.startswith(root.rstrip("/") + "/") for root in roots)


def check_pod(resource: Resource, settings: PodSecuritySettings) -> Iterator[Finding]:
    """No container is privileged, runs as root, adds capabilities or shares its node's namespaces or files.

    A container runs as root unless the pod or the container says `runAsNonRoot: true`, or gives a
    `runAsUser` other than 0. Host paths and capabilities are refused unless the settings list them.

    Good:
        ```yaml
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: app, namespace: default}
        spec:
          selector: {matchLabels: {app: app}}
          template:
            metadata: {labels: {app: app}}
            spec:
              securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
              containers:
                - name: app
                  image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
                  securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        ```

    Bad:
        ```yaml
        apiVersion: apps/v1
        kind: Deployment
        metadata: {name: app, namespace: default}
        spec:
          selector: {matchLabels: {app: app}}
          template:
            metadata: {labels: {app: app}}
            spec:
              hostNetwork: true
              containers:
                - name: app
                  image: edge.local/m@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
                  securityContext: {privileged: true}
        ```
    """
    for pod in pods(resource.type, resource.inputs):
        if not isinstance(pod, Pod):
            yield unreadable(pod)
            continue
        for name in _HOST_NAMESPACES:
            yield from _is_not_true(pod.spec.get(name), pod.field(name), "leave it out")
        yield from _volumes(pod, settings)
        context = pod.spec.get("securityContext")
        for part in pod.containers():
            if not isinstance(part, Container):
                yield unreadable(part)
            else:
                yield from _container(part, context, settings)


def _is_not_true(value: Any, path: str, fix: str, container: str = "") -> Iterator[Finding]:
    if isinstance(value, Unknown):
        yield not_yet_known(path, container)
    elif value is not None and value is not False:
        yield Finding(path, f"is {str(value).lower()}", fix, container)


def _volumes(pod: Pod, settings: PodSecuritySettings) -> Iterator[Finding]:
    volumes = pod.spec.get("volumes")
    if isinstance(volumes, Unknown):
        yield not_yet_known(pod.field("volumes"))
    for index, volume in enumerate(volumes if isinstance(volumes, list) else ()):
        path = text_path((*pod.at, "volumes", index, "hostPath"))
        host = volume.get("hostPath") if isinstance(volume, Mapping) else volume
        wanted = host.get("path") if isinstance(host, Mapping) else host
        if isinstance(wanted, Unknown):
            yield not_yet_known(path)
        elif isinstance(host, Mapping) and not (isinstance(wanted, str) and settings.allows_path(wanted)):
            fix = "use another kind of volume, or list the folder in pod-security.hostPaths"
            yield Finding(f"{path}.path", f"is {wanted}, a folder of the node", fix)


def _container(container: Container, pod_context: Any, settings: PodSecuritySettings) -> Iterator[Finding]:
    context = container.fields.get("securityContext")
    path = text_path((*container.at, "securityContext"))
    if isinstance(context, Unknown) or isinstance(pod_context, Unknown):
        yield not_yet_known(path, container.name)
        return
    own = context if isinstance(context, Mapping) else {}
    shared = pod_context if isinstance(pod_context, Mapping) else {}
    yield from _is_not_true(own.get("privileged"), f"{path}.privileged", "leave it out", container.name)
    yield from _capabilities(container, own.get("capabilities"), f"{path}.capabilities", settings)
    yield from _not_root(container, {**shared, **own}, path)


def _capabilities(
    container: Container, value: Any, path: str, settings: PodSecuritySettings
) -> Iterator[Finding]:
    added = value.get("add") if isinstance(value, Mapping) else value
    if isinstance(added, Unknown):
        yield not_yet_known(f"{path}.add", container.name)
    for name in added if isinstance(added, list) else ():
        if isinstance(name, Unknown):
            yield not_yet_known(f"{path}.add", container.name)
        elif name not in settings.capabilities:
            fix = "leave it out, or list it in pod-security.capabilities"
            yield Finding(f"{path}.add", f"holds {name}", fix, container.name)


def _not_root(container: Container, context: Mapping[str, Any], path: str) -> Iterator[Finding]:
    user, non_root = context.get("runAsUser"), context.get("runAsNonRoot")
    if user is not None and not isinstance(user, Unknown):
        if user == 0:
            fix = "give another user, or leave it out and set runAsNonRoot: true"
            yield Finding(f"{path}.runAsUser", "is 0, which is root", fix, container.name)
    elif isinstance(user, Unknown) or isinstance(non_root, Unknown):
        yield not_yet_known(f"{path}.runAsNonRoot", container.name)
    elif non_root is not True:
        found = "is missing, so it may run as root" if non_root is None else f"is {str(non_root).lower()}"
        fix = "set runAsNonRoot: true for the pod or the container"
        yield Finding(f"{path}.runAsNonRoot", found, fix, container.name)


def _pod_admission(settings: PodSecuritySettings) -> Admission:
    roots = [posixpath.normpath(root).rstrip("/") for root in settings.hostPaths]
    paths = " || ".join(
        f"v.hostPath.path == {cel.text(root or '/')} || v.hostPath.path.startsWith({cel.text(root + '/')})"
        for root in roots
    )
    context = "variables.podSpec.securityContext"
    pod_user, pod_non_root = f"{context}.runAsUser", f"{context}.runAsNonRoot"
    user, non_root, added = (
        f"c.securityContext.{name}" for name in ("runAsUser", "runAsNonRoot", "capabilities.add")
    )
    not_root = (
        f"({cel.has(user)}) ? {user} != 0"
        f" : ({cel.has(pod_user)}) ? {pod_user} != 0"
        f" : ({cel.has(non_root)}) ? {non_root}"
        f" : ({cel.has(pod_non_root)}) && {pod_non_root}"
    )
    privileged = "c.securityContext.privileged"
    return Admission(
        ("pods",),
        (
            *(
                Validation(
                    f"!has(variables.podSpec.{name}) || !variables.podSpec.{name}", f"{name} is refused"
                )
                for name in _HOST_NAMESPACES
            ),
            Validation(
                "!has(variables.podSpec.volumes) || variables.podSpec.volumes.all(v, !has(v.hostPath)"
                f"{' || ' + paths if paths else ''})",
                f"a hostPath is refused, except {', '.join(settings.hostPaths) or 'none'}",
            ),
            Validation(
                f"variables.allContainers.all(c, !({cel.has(privileged)}) || !{privileged})",
                "a privileged container is refused",
            ),
            Validation(
                f"variables.allContainers.all(c, !({cel.has(added)})"
                f" || {added}.all(a, a in {cel.texts(settings.capabilities)}))",
                f"capabilities other than {', '.join(settings.capabilities) or 'none'} may not be added",
            ),
            Validation(
                f"variables.allContainers.all(c, {not_root})",
                "a container that may run as root is refused: set runAsNonRoot: true",
            ),
        ),
    )


class NamespaceSettings(Settings):
    """What a namespace must enforce."""

    levels: tuple[str, ...] = Field(
        default=("restricted",), min_length=1, description="Pod Security levels that a namespace may enforce."
    )


def check_namespace(resource: Resource, settings: NamespaceSettings) -> Iterator[Finding]:
    """Every namespace enforces the restricted Pod Security standard by its label.

    Good:
        ```yaml
        apiVersion: v1
        kind: Namespace
        metadata:
          name: inference
          labels: {pod-security.kubernetes.io/enforce: restricted}
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Namespace
        metadata: {name: inference}
        ```
    """
    labels = resource.metadata("labels")
    value = labels.get(_ENFORCE) if isinstance(labels, Mapping) else labels
    path = text_path(("metadata", "labels", _ENFORCE))
    if isinstance(value, Unknown):
        yield not_yet_known(path)
    elif value not in settings.levels:
        found = "is missing" if value is None else f"is {value!r}"
        yield Finding(path, found, f"set the label to {' or '.join(settings.levels)}")


def _namespace_admission(settings: NamespaceSettings) -> Admission:
    return Admission(
        ("Namespace",),
        (
            Validation(
                f"{cel.has('object.metadata.labels')} && {cel.text(_ENFORCE)} in object.metadata.labels"
                f" && object.metadata.labels[{cel.text(_ENFORCE)}] in {cel.texts(settings.levels)}",
                f"the label {_ENFORCE} must be {' or '.join(settings.levels)}",
            ),
        ),
    )


class ExposureSettings(Settings):
    """Which Services may be reached from outside."""

    loadBalancers: tuple[str, ...] = Field(
        default=(), description="Services that may be of type LoadBalancer: namespace/name, `*` is any text."
    )


def check_exposure(resource: Resource, settings: ExposureSettings) -> Iterator[Finding]:
    """A Service of type LoadBalancer stands only where the settings allow it.

    Good:
        ```yaml
        apiVersion: v1
        kind: Service
        metadata: {name: app, namespace: default}
        spec: {type: ClusterIP, selector: {app: app}, ports: [{port: 80}]}
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Service
        metadata: {name: app, namespace: default}
        spec: {type: LoadBalancer, selector: {app: app}, ports: [{port: 80}]}
        ```
    """
    spec = resource.inputs.get("spec")
    kind = spec.get("type") if isinstance(spec, Mapping) else spec
    if isinstance(kind, Unknown):
        yield not_yet_known("spec.type")
    elif kind == "LoadBalancer":
        namespace, name = resource.metadata("namespace"), resource.metadata("name") or resource.name
        if any(isinstance(value, Unknown) for value in (namespace, name)):
            yield not_yet_known("metadata.namespace")
            return
        full = f"{namespace or 'default'}/{name}"
        if not any(re.fullmatch(cel.glob(pattern), full) for pattern in settings.loadBalancers):
            fix = f"use ClusterIP, or add {full} to load-balancer.loadBalancers"
            yield Finding("spec.type", "is LoadBalancer, which is not allowed here", fix)


def _exposure_admission(settings: ExposureSettings) -> Admission:
    allowed = "|".join(cel.glob(pattern) for pattern in settings.loadBalancers) or r"\b\B"
    name = "(object.metadata.namespace + '/' + object.metadata.name)"
    return Admission(
        ("Service",),
        (
            Validation(
                f"object.spec.type != 'LoadBalancer' || {name}.matches({cel.text(f'^({allowed})$')})",
                "type LoadBalancer is allowed only for "
                + (", ".join(settings.loadBalancers) or "none of the services"),
            ),
        ),
    )


POD = Rule(
    id="pod-security",
    description="No container is privileged, root, or shares its node's namespaces or files.",
    settings=PodSecuritySettings,
    severity="critical",
    check=check_pod,
    applies=is_kubernetes,
    admission=_pod_admission,
)
NAMESPACE = Rule(
    id="namespace-pod-security",
    description="Every namespace enforces the restricted Pod Security standard.",
    settings=NamespaceSettings,
    severity="high",
    check=check_namespace,
    applies=lambda kind: kind == "kubernetes:core/v1:Namespace",
    admission=_namespace_admission,
)
EXPOSURE = Rule(
    id="load-balancer",
    description="Services of type LoadBalancer stand only where allowed.",
    settings=ExposureSettings,
    severity="medium",
    check=check_exposure,
    applies=lambda kind: kind == "kubernetes:core/v1:Service",
    admission=_exposure_admission,
)
RULES: Sequence[Rule[Any]] = (POD, NAMESPACE, EXPOSURE)
