"""Components of an edge inference site. None of them reads stack config."""

from components.admission import AdmissionPolicies, AdmissionPoliciesArgs
from components.artifact import Artifact, ArtifactArgs, StagedArtifacts
from components.backup import Backup, BackupArgs
from components.dcgm import DcgmExporter, DcgmExporterArgs
from components.gpu import GpuCdi, GpuHost, GpuHostArgs, GpuPackages
from components.host import Bastion, EdgeHost, EdgeHostArgs, prepare
from components.inference import InferenceService, InferenceServiceArgs
from components.isolation import NamespaceIsolation, NamespaceIsolationArgs
from components.k3s import K3sCluster, K3sClusterArgs, NodeArgs, UpgradeArgs
from components.kubeconfig import remove_copies
from components.model import ModelImage, ModelImageArgs
from components.nvidia import NvidiaRuntime, NvidiaRuntimeArgs
from components.outputs import known_name
from components.wasmedge import WasmEdgeInstall, WasmEdgeInstallArgs, WasmEdgeRuntime, WasmEdgeRuntimeArgs

__all__ = [
    "AdmissionPolicies",
    "AdmissionPoliciesArgs",
    "Artifact",
    "ArtifactArgs",
    "Backup",
    "BackupArgs",
    "Bastion",
    "DcgmExporter",
    "DcgmExporterArgs",
    "EdgeHost",
    "EdgeHostArgs",
    "GpuCdi",
    "GpuHost",
    "GpuHostArgs",
    "GpuPackages",
    "InferenceService",
    "InferenceServiceArgs",
    "K3sCluster",
    "K3sClusterArgs",
    "ModelImage",
    "ModelImageArgs",
    "NamespaceIsolation",
    "NamespaceIsolationArgs",
    "NodeArgs",
    "NvidiaRuntime",
    "NvidiaRuntimeArgs",
    "StagedArtifacts",
    "UpgradeArgs",
    "WasmEdgeInstall",
    "WasmEdgeInstallArgs",
    "WasmEdgeRuntime",
    "WasmEdgeRuntimeArgs",
    "known_name",
    "prepare",
    "remove_copies",
]
