"""The composition root: settings in, components, outputs out."""

import gc
from typing import Any

import pulumi
import pulumi_kubernetes as k8s

import components as edge
from stacks.outcome import failure, settle
from stacks.service import ServiceSettings
from stacks.settings import HostSettings, SettingsError
from stacks.site import Site, autoscaling, load_sites

Artifacts = dict[str, edge.Artifact]


def declare(site: Site, declared: Artifacts) -> dict[str, Artifacts]:
    """The artifacts of each host, each declared once for all hosts of all sites."""
    by_architecture: dict[str, Artifacts] = {}
    for architecture, entries in site.artifacts.items():
        artifacts = by_architecture[architecture] = {}
        for name, entry in entries.items():
            unique = site.unique_artifact(name, architecture)
            if unique not in declared:
                args = edge.ArtifactArgs(name, entry.source, str(entry.sha256), entry.version)
                declared[unique] = edge.Artifact(unique, args)
            artifacts[name] = declared[unique]
    return {host.name: by_architecture[site.settings.architecture(host)] for host in site.settings.hosts}


def gpu_software(site: Site, host: edge.EdgeHost, gpus: int, artifacts: Artifacts) -> edge.GpuHost:
    """Installs NVIDIA's packages and checks what they made of the host."""
    files = [artifacts[name] for name in site.settings.nvidia.packages]
    packages = edge.GpuPackages(f"{host.name}-gpu-packages", host, files)
    return edge.GpuHost(f"{host.name}-gpu-installed", site.gpu_args(host, gpus, packages.installed))


def node(
    site: Site,
    wanted: HostSettings,
    host: edge.EdgeHost,
    artifacts: Artifacts,
    after: list[pulumi.Resource],
) -> edge.NodeArgs:
    """A host with WasmEdge on it, which K3s then finds when it starts."""
    install = edge.WasmEdgeInstallArgs(host, artifacts["wasmedge-runtime"], site.settings.wasmedge.version)
    return edge.NodeArgs(
        host,
        wanted.role,
        binary=artifacts["k3s"],
        installer=artifacts["k3s-install"],
        images=artifacts["k3s-images"],
        node_ip=wanted.node_ip or wanted.address,
        labels=site.labels(wanted),
        taints=wanted.taints,
        gpu=wanted.gpu > 0,
        after=[edge.WasmEdgeInstall(f"{host.name}-wasmedge", install), *after],
    )


def runtimes(site: Site, opts: pulumi.ResourceOptions) -> pulumi.Output[str]:
    """What the cluster must know of wasm, GPUs and policies; returns the wasm RuntimeClass's name."""
    wasm = site.settings.wasmedge
    if site.settings.nvidia.enabled:
        edge.NvidiaRuntime(site.unique("nvidia"), site.nvidia_args(), opts)
    if metrics := site.dcgm_args():
        edge.DcgmExporter(site.unique("dcgm-exporter"), metrics, opts)
    args = edge.WasmEdgeRuntimeArgs("wasm", wasm.overhead_memory, wasm.overhead_cpu)
    if site.admission:
        policies = edge.AdmissionPoliciesArgs(site.admission, prefix=site.unique(""))
        edge.AdmissionPolicies(site.unique("admission"), policies, opts)
    return edge.WasmEdgeRuntime(site.unique("wasm"), args, opts).runtime_class


def serve(
    site: Site,
    wanted: ServiceSettings,
    models: list[pulumi.Resource],
    runtime_class: pulumi.Input[str],
    namespace: pulumi.Input[str],
    opts: pulumi.ResourceOptions,
) -> pulumi.Output[str]:
    """One service once its image is on the nodes; returns its URL."""
    args = edge.InferenceServiceArgs(
        image=site.images[wanted.name],
        namespace=namespace,
        service_name=wanted.name,
        deployment_name=wanted.deployment,
        runtime_class=runtime_class,
        replicas=wanted.replicas,
        port=wanted.port,
        service_type=wanted.service_type,
        external_traffic_policy=wanted.external_traffic_policy,
        unreachable_seconds=wanted.unreachable_seconds,
        requests=wanted.requests.quantities(),
        limits=wanted.limits.quantities(),
        gpus=wanted.gpu.count if wanted.gpu else 0,
        env=wanted.env,
        command=wanted.command,
        autoscaling=autoscaling(wanted),
        model_memory=site.memory.get(wanted.name),
        after=models,
    )
    return edge.InferenceService(site.unique(wanted.name), args, opts).url


def save(site: Site, hosts: dict[str, edge.EdgeHost], cluster: edge.K3sCluster) -> None:
    """Backups on each server, where the settings want them."""
    wanted = site.settings.backup
    for host in site.settings.hosts:
        if wanted and host.role == "server":
            installed = cluster.installed[host.name].stdout
            args = edge.BackupArgs(hosts[host.name], installed, wanted.schedule, wanted.keep)
            edge.Backup(f"{host.name}-backup", args)


def deploy(site: Site, declared: Artifacts) -> dict[str, Any]:
    """Declares a whole site; returns its outputs.

    Args:
        site: the site.
        declared: artifacts that are declared already, for all sites.
    """
    settings = site.settings
    hosts = {name: edge.EdgeHost(name, args) for name, args in site.hosts.items()}
    gpus = {
        wanted.name: edge.GpuHost(f"{wanted.name}-gpu", site.gpu_args(hosts[wanted.name], wanted.gpu))
        for wanted in settings.hosts
        if wanted.gpu
    }
    artifacts = declare(site, declared)
    files = {
        hosts[wanted.name]: [artifacts[wanted.name][name] for name in site.files(wanted)]
        for wanted in settings.hosts
    }
    edge.prepare(site.unique("site"), files, [gpu.checked for gpu in gpus.values()])
    if settings.nvidia.packages:
        gpus = {
            wanted.name: gpu_software(site, hosts[wanted.name], wanted.gpu, artifacts[wanted.name])
            for wanted in settings.hosts
            if wanted.gpu
        }
    cdi = {name: edge.GpuCdi(f"{name}-cdi", hosts[name], gpu.facts) for name, gpu in gpus.items()}
    nodes = [
        node(
            site,
            wanted,
            hosts[wanted.name],
            artifacts[wanted.name],
            [cdi[wanted.name].step] if wanted.gpu else [],
        )
        for wanted in settings.hosts
    ]
    cluster = edge.K3sCluster(site.unique("cluster"), site.cluster_args(nodes))
    save(site, hosts, cluster)
    provider = k8s.Provider(
        site.unique("cluster"),
        kubeconfig=cluster.kubeconfig,
        cluster_identifier=cluster.identity,
        delete_unreachable=all(host.gone for host in settings.hosts if host.role == "server"),
        opts=pulumi.ResourceOptions(depends_on=[cluster]),
    )
    # When the cluster itself goes, its objects go with it: a pod that will not end cannot hold up a destroy.
    opts = pulumi.ResourceOptions(provider=provider, deleted_with=cluster.server)
    runtime_class = runtimes(site, opts)
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": settings.namespace, "labels": restricted}
    namespace = k8s.core.v1.Namespace(site.unique(settings.namespace), metadata=metadata, opts=opts)
    if settings.cluster.profile == "hardened":
        name = edge.known_name(settings.namespace, namespace)
        isolated = edge.NamespaceIsolationArgs(name, prefix=site.unique(""))
        edge.NamespaceIsolation(site.unique("isolation"), isolated, opts)
    edge.remove_copies(cluster.kubeconfig, namespace)
    endpoints = {}
    for wanted in settings.services:
        models: list[pulumi.Resource] = []
        for host in hosts.values() if wanted.archive else ():
            archive = artifacts[host.name][str(wanted.archive)]
            ready = cluster.installed[host.name]
            image = edge.ModelImageArgs(host, wanted.name, archive, site.images[wanted.name], (ready,))
            models.append(edge.ModelImage(f"{host.name}-{wanted.name}", image))
        endpoints[wanted.name] = serve(
            site, wanted, models, runtime_class, edge.known_name(settings.namespace, namespace), opts
        )
    return {
        "endpoints": endpoints,
        "nodes": cluster.versions,
        "gpus": {name: gpu.facts for name, gpu in gpus.items()},
        "kubeconfig": cluster.kubeconfig,
        "versions": site.versions(),
    }


try:
    sites = load_sites()
except SettingsError as error:
    # Pulumi prints this error's message alone, without a trace.
    raise pulumi.RunError(f"the stack's settings are wrong:\n{error}") from None


async def main() -> None:
    """Declares the sites, waits until all of it came or failed, and exports what came."""
    # Nearly all objects live as long as the program; looking for garbage takes a quarter of a fleet's time.
    gc.disable()
    # The SDK sends each debug line to the engine, five a resource, and stands still until that answers: half
    # of a preview's time, for lines that only --debug shows.
    pulumi.log.debug = lambda *_, **__: None
    declared: Artifacts = {}
    outputs = {site.name: deploy(site, declared) for site in sites}
    await settle()
    failed = []
    for name, values in outputs.items():
        if reason := await failure(values):
            site = f"site {name}" if name else f"stack {pulumi.get_stack()}"
            failed.append(f"{site} is not complete: {reason}; see its error, then up again goes on")
        else:
            for key, value in {name: values}.items() if name else values.items():
                pulumi.export(key, value)
    if failed:
        # The engine keeps the outputs of these, and deletes nothing that was not declared for them.
        raise pulumi.RunError("\n".join(failed))


pulumi.run(main)
