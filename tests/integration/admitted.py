"""What a real API server says of the policies' corpus, beside what the pack says of it."""

from __future__ import annotations

import copy
import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from kubernetes import client, config, utils

from policies.admission import manifests
from tests.integration.local_site import LocalSite
from tests.policy import corpus

PLURALS = {
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}
BY_ITSELF = "refused by Kubernetes itself"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
REFUSED = next(case for case in corpus.BAD if case.name == "limits-no-resources")


class Cluster:
    """The API server of a site, asked by the Kubernetes client with the stack's kubeconfig."""

    def __init__(self, site: LocalSite) -> None:
        shown = site.pulumi("stack", "output", "kubeconfig", "--show-secrets").stdout
        self.api = config.new_client_from_config_dict(yaml.safe_load(shown))
        core = client.CoreV1Api(self.api)
        if corpus.NAMESPACE not in {each.metadata.name for each in core.list_namespace().items}:
            core.create_namespace(corpus.namespace(corpus.NAMESPACE, **RESTRICTED))

    def create(self, manifest: Mapping[str, Any], **options: Any) -> str | None:
        """Create an object and return why not; None when it is taken."""
        try:
            utils.create_from_dict(self.api, copy.deepcopy(manifest), **options)
        except utils.FailToCreateError as error:
            return str(json.loads(error.api_exceptions[0].body)["message"])
        return None

    def enforce(self, **settings: Any) -> None:
        """Put the policy `resource-limits` in force with these settings."""
        own = manifests("test", {"resource-limits": settings})
        for manifest in own:
            if manifest["metadata"]["name"] == "edge-inference-resource-limits":
                self._replace(manifest)

    def _replace(self, manifest: Mapping[str, Any]) -> None:
        self.api.call_api(
            f"/apis/{manifest['apiVersion']}/{PLURALS[manifest['kind']]}/{manifest['metadata']['name']}",
            "PATCH",
            header_params={"Content-Type": "application/merge-patch+json"},  # replaces lists as a whole
            body={"spec": manifest["spec"]},
            auth_settings=["BearerToken"],
        )

    def comes_to(self, wanted: str | None) -> str | None:
        """What becomes of an object without limits, once it is what is wanted or 20 s are over."""
        end = time.monotonic() + 20
        while True:
            said = self.create(REFUSED.manifest, dry_run="All")
            if (said is None) == (wanted is None) or time.monotonic() > end:
                return said
            time.sleep(0.5)


@dataclass(frozen=True)
class Verdicts:
    """What pack and API server say of an object of the corpus."""

    case: corpus.Case
    pack: str
    server: str


def verdicts(cluster: Cluster) -> list[Verdicts]:
    """Both verdicts on each object; test_corpus shows that the pack's is the one stated in the corpus."""
    rows = []
    for case in corpus.GOOD + corpus.BAD:
        message = cluster.create(case.manifest, dry_run="All")
        by = re.search(r"ValidatingAdmissionPolicy 'edge-inference-([a-z-]+)'", message or "")
        server = "taken" if message is None else f"refused by {by[1]}" if by else BY_ITSELF
        rows.append(Verdicts(case, f"refused by {case.rule}" if case.rule else "taken", server))
    return rows


def exceptions_and_levels(cluster: Cluster) -> None:
    """An exception lets an object and what it makes through, until its day; advice refuses nothing."""
    given = {
        "resource": f"Deployment/{corpus.NAMESPACE}/{REFUSED.name}",
        "owner": "tests",
        "reason": "a test",
    }
    cluster.enforce(exceptions=[given | {"expires": "2999-12-31"}])
    assert cluster.comes_to(None) is None
    assert cluster.create(REFUSED.manifest) is None
    pods = client.CoreV1Api(cluster.api)
    end = time.monotonic() + 20
    while not (
        made := pods.list_namespaced_pod(corpus.NAMESPACE, label_selector=f"app={REFUSED.name}").items
    ):
        assert time.monotonic() < end, "the excepted Deployment got no pod"
        time.sleep(0.5)
    assert made[0].spec.containers[0].resources.limits is None
    client.AppsV1Api(cluster.api).delete_namespaced_deployment(REFUSED.name, corpus.NAMESPACE)
    cluster.enforce(exceptions=[given | {"expires": "2020-12-31"}])
    assert "resource-limits" in (cluster.comes_to("refused") or "")
    cluster.enforce(enforcementLevel="advisory")
    assert cluster.comes_to(None) is None
    cluster.enforce()
    assert "resource-limits" in (cluster.comes_to("refused") or "")
