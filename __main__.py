"""The composition root: settings in, components, outputs out."""

import pulumi
import pulumi_kubernetes as k8s

import components as edge
from stacks.settings import SettingsError
from stacks.site import Site, autoscaling, load_site


def stage(site: Site, host: edge.EdgeHost, name: str, checked: list[pulumi.Resource]) -> edge.Artifact:
    """Puts one artifact of the manifest on a host, once every host of the site passed its checks."""
    entry = site.artifacts[name]
    args = edge.ArtifactArgs(host, name, entry.source, str(entry.sha256), after=checked)
    return edge.Artifact(f"{host.name}-{name}", args)


def deploy(site: Site) -> None:
    """Declares the whole site."""
    settings = site.settings
    hosts = {name: edge.EdgeHost(name, args) for name, args in site.hosts.items()}
    checked: list[pulumi.Resource] = [host.checked for host in hosts.values()]

    nodes = []
    for wanted in settings.hosts:
        host = hosts[wanted.name]
        archive = stage(site, host, "wasmedge-runtime", checked)
        wasmedge = edge.WasmEdgeInstall(
            f"{host.name}-wasmedge", edge.WasmEdgeInstallArgs(host, archive, settings.wasmedge.version)
        )
        nodes.append(
            edge.NodeArgs(
                host,
                wanted.role,
                binary=stage(site, host, "k3s", checked),
                installer=stage(site, host, "k3s-install", checked),
                images=stage(site, host, "k3s-images", checked),
                node_ip=wanted.node_ip or wanted.address,
                labels=site.labels(wanted),
                taints=wanted.taints,
                after=[wasmedge.step],
            )
        )
    wanted_cluster = settings.cluster
    cluster = edge.K3sCluster(
        "cluster",
        edge.K3sClusterArgs(
            nodes,
            wanted_cluster.disable,
            wanted_cluster.cluster_cidr,
            wanted_cluster.service_cidr,
            wanted_cluster.server_flags,
            wanted_cluster.flags,
            wanted_cluster.wait_seconds,
        ),
    )
    in_cluster = pulumi.ResourceOptions(
        provider=k8s.Provider(
            "cluster",
            kubeconfig=cluster.kubeconfig,
            cluster_identifier=cluster.endpoint,
            delete_unreachable=any(host.gone and host.role == "server" for host in settings.hosts),
            opts=pulumi.ResourceOptions(depends_on=[cluster]),
        )
    )
    runtime = edge.WasmEdgeRuntime(
        "wasm",
        edge.WasmEdgeRuntimeArgs("wasm", settings.wasmedge.overhead_memory, settings.wasmedge.overhead_cpu),
        opts=in_cluster,
    )
    if settings.nvidia.enabled:
        edge.NvidiaRuntime(
            "nvidia", edge.NvidiaRuntimeArgs(str(settings.nvidia.device_plugin_image)), opts=in_cluster
        )
    namespace = k8s.core.v1.Namespace(
        settings.namespace,
        metadata={
            "name": settings.namespace,
            "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
        },
        opts=in_cluster,
    )
    endpoints = {}
    for service in settings.services:
        image = site.images[service.name]
        models: list[pulumi.Resource] = []
        if service.archive:
            for host in hosts.values():
                archive = stage(site, host, service.archive, checked)
                args = edge.ModelImageArgs(host, service.name, archive, image, after=(cluster,))
                models.append(edge.ModelImage(f"{host.name}-{service.name}", args))
        served = edge.InferenceService(
            service.name,
            edge.InferenceServiceArgs(
                image=image,
                namespace=namespace.metadata.name,
                deployment_name=service.deployment,
                runtime_class=runtime.runtime_class,
                replicas=service.replicas,
                port=service.port,
                service_type=service.service_type,
                requests=service.requests.quantities(),
                limits=service.limits.quantities(),
                env=service.env,
                command=service.command,
                autoscaling=autoscaling(service),
                after=models,
            ),
            opts=in_cluster,
        )
        endpoints[service.name] = served.url
    pulumi.export("endpoints", endpoints)
    pulumi.export("nodes", cluster.versions)
    pulumi.export("kubeconfig", cluster.kubeconfig)
    pulumi.export("versions", {name: entry.version for name, entry in site.artifacts.items()})


try:
    site = load_site()
except SettingsError as error:
    # Pulumi prints this error's message alone, without a trace.
    raise pulumi.RunError(f"the stack's settings are wrong:\n{error}") from None
deploy(site)
