"""The composition root: settings in, components, outputs out."""

import asyncio
import gc

import pulumi
import pulumi_kubernetes as k8s

import components as edge
from stacks.service import ServiceSettings
from stacks.settings import HostSettings, SettingsError
from stacks.site import Site, autoscaling, load_site

Artifacts = dict[str, edge.Artifact]


def declare(site: Site) -> Artifacts:
    """The artifacts, each once for all hosts."""
    return {
        name: edge.Artifact(name, edge.ArtifactArgs(name, entry.source, str(entry.sha256), entry.version))
        for name, entry in site.artifacts.items()
    }


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
        edge.NvidiaRuntime("nvidia", site.nvidia_args(), opts)
    if metrics := site.dcgm_args():
        edge.DcgmExporter("dcgm-exporter", metrics, opts)
    args = edge.WasmEdgeRuntimeArgs("wasm", wasm.overhead_memory, wasm.overhead_cpu)
    if site.admission:
        edge.AdmissionPolicies("admission", edge.AdmissionPoliciesArgs(site.admission), opts)
    return edge.WasmEdgeRuntime("wasm", args, opts).runtime_class


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
    return edge.InferenceService(wanted.name, args, opts).url


def save(site: Site, hosts: dict[str, edge.EdgeHost], cluster: edge.K3sCluster) -> None:
    """Backups on each server, where the settings want them."""
    wanted = site.settings.backup
    for host in site.settings.hosts:
        if wanted and host.role == "server":
            installed = cluster.installed[host.name].stdout
            args = edge.BackupArgs(hosts[host.name], installed, wanted.schedule, wanted.keep)
            edge.Backup(f"{host.name}-backup", args)


def deploy(site: Site) -> None:
    """Declares the whole site."""
    settings = site.settings
    hosts = {name: edge.EdgeHost(name, args) for name, args in site.hosts.items()}
    gpus = {
        wanted.name: edge.GpuHost(f"{wanted.name}-gpu", site.gpu_args(hosts[wanted.name], wanted.gpu))
        for wanted in settings.hosts
        if wanted.gpu
    }
    artifacts = declare(site)
    files = {
        hosts[wanted.name]: [artifacts[name] for name in site.files(wanted)] for wanted in settings.hosts
    }
    edge.prepare("site", files, [gpu.checked for gpu in gpus.values()])
    if settings.nvidia.packages:
        gpus = {
            wanted.name: gpu_software(site, hosts[wanted.name], wanted.gpu, artifacts)
            for wanted in settings.hosts
            if wanted.gpu
        }
    cdi = {name: edge.GpuCdi(f"{name}-cdi", hosts[name], gpu.facts) for name, gpu in gpus.items()}
    nodes = [
        node(site, wanted, hosts[wanted.name], artifacts, [cdi[wanted.name].step] if wanted.gpu else [])
        for wanted in settings.hosts
    ]
    cluster = edge.K3sCluster("cluster", site.cluster_args(nodes))
    save(site, hosts, cluster)
    provider = k8s.Provider(
        "cluster",
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
    namespace = k8s.core.v1.Namespace(settings.namespace, metadata=metadata, opts=opts)
    if settings.cluster.profile == "hardened":
        isolated = edge.NamespaceIsolationArgs(edge.known_name(settings.namespace, namespace))
        edge.NamespaceIsolation("isolation", isolated, opts)
    edge.remove_copies(cluster.kubeconfig, namespace)
    endpoints = {}
    for wanted in settings.services:
        models: list[pulumi.Resource] = []
        for host in hosts.values() if wanted.archive else ():
            archive = artifacts[str(wanted.archive)]
            ready = cluster.installed[host.name]
            image = edge.ModelImageArgs(host, wanted.name, archive, site.images[wanted.name], (ready,))
            models.append(edge.ModelImage(f"{host.name}-{wanted.name}", image))
        endpoints[wanted.name] = serve(
            site, wanted, models, runtime_class, edge.known_name(settings.namespace, namespace), opts
        )
    pulumi.export("endpoints", endpoints)
    pulumi.export("nodes", cluster.versions)
    pulumi.export("gpus", {name: gpu.facts for name, gpu in gpus.items()})
    pulumi.export("kubeconfig", cluster.kubeconfig)
    pulumi.export("versions", {name: entry.version for name, entry in site.artifacts.items()})


try:
    site = load_site()
except SettingsError as error:
    # Pulumi prints this error's message alone, without a trace.
    raise pulumi.RunError(f"the stack's settings are wrong:\n{error}") from None


async def main() -> None:
    """Declares the site, then lets every registration begin.

    The SDK waits for registrations one by one, and for outputs in a loop over all of them
    (pulumi.runtime.stack.wait_for_rpcs): where that loop comes first, it takes longer than all the rest.
    """
    # Nearly all objects live as long as the program; looking for garbage takes a quarter of a fleet's time.
    gc.disable()
    # The SDK sends each debug line to the engine, five a resource, and stands still until that answers: half
    # of a preview's time, for lines that only --debug shows.
    pulumi.log.debug = lambda *_, **__: None
    deploy(site)
    await asyncio.sleep(0)


pulumi.run(main)
