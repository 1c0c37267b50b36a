"""Rule `signed-images`: nothing runs that nobody trusted has signed."""

from collections.abc import Iterable, Iterator

from policies import exceptions, trust
from policies.config import ConfigError
from policies.naming import Named, named
from policies.rules import Finding, Resource, Rule, is_kubernetes
from policies.trust import SignatureSettings, Trust
from policies.verification import Question, verify, verify_all

__all__ = ["RULE", "SignatureSettings", "check", "prefetch"]


def check(resource: Resource, settings: SignatureSettings) -> Iterator[Finding]:
    """Every image bears a signature that cosign verifies: by a trusted key pair, or by a trusted identity.

    What is verified is the digest that the image is named by; wasm artifacts are verified like other images.
    A key may have a first and a last day, or be revoked: then its signatures do not count, and the report
    says so. Signatures are cosign's classic ones or Sigstore bundles, looked for in the OCI layouts of the
    settings and, where those have none for the image, in its registry. If the registry does not answer, the
    image is refused.

    To bring signatures to a site without a registry: `cosign save --dir FOLDER IMAGE@DIGEST` for classic
    ones; for bundles `oras cp -r IMAGE@DIGEST --to-oci-layout FOLDER`, or, where the registry has no
    referrers API, `crane pull --format oci REPOSITORY:sha256-… FOLDER`.

    Good:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/app@sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
        ```

    Bad:
        ```yaml
        apiVersion: v1
        kind: Pod
        metadata: {name: app, namespace: default}
        spec:
          containers:
            - name: app
              image: edge.local/app@sha256:0000000000000000000000000000000000000000000000000000000000000bad
        ```
    """
    found = list(named(resource))
    try:
        terms = _terms([found], settings)
        verify_all(_questions(found, terms))
    except ConfigError as error:
        for each in found:
            fix = "put the file there, or name the right one"
            yield (
                each
                if isinstance(each, Finding)
                else each.finding(f"whose signature was not checked: {error}", fix)
            )
        return
    for each in found:
        if isinstance(each, Finding):
            yield each
        elif finding := _finding(each, terms):
            yield finding


def prefetch(resources: Iterable[Resource], settings: SignatureSettings) -> None:
    """Verify the images of many resources at a time, so that check() has the answers at hand.

    Raises:
        ConfigError: there is an image, and a key or the trusted root cannot be read.
    """
    found = [list(named(resource)) for resource in resources if is_kubernetes(resource.type)]
    terms = _terms(found, settings)
    verify_all(question for each in found for question in _questions(each, terms))


def _terms(found: Iterable[Iterable[Named | Finding]], settings: SignatureSettings) -> Trust | None:
    """The settings with their files read, where there is an image to verify."""
    needed = any(isinstance(each, Named) and each.image.digest for part in found for each in part)
    return trust.load(settings, exceptions.today()) if needed else None


def _questions(found: Iterable[Named | Finding], terms: Trust | None) -> Iterator[Question]:
    for each in found:
        if terms is not None and isinstance(each, Named) and each.image.digest:
            yield Question(each.image.repository, each.image.digest, terms)


def _finding(each: Named, terms: Trust | None) -> Finding | None:
    questions = list(_questions([each], terms))
    if not questions:
        return each.finding(
            "which names no digest, so there is nothing to verify a signature for",
            f"write {each.text}@sha256:…, the digest that was signed",
        )
    problem = verify(questions[0])
    return None if problem is None else each.finding(problem.found, problem.fix)


RULE: Rule[SignatureSettings] = Rule(
    id="signed-images",
    description="Every image is signed by somebody this environment trusts.",
    settings=SignatureSettings,
    severity="critical",
    check=check,
    applies=is_kubernetes,
    outside="CEL reaches no registry and has no cryptography. The digest that `image-digest` demands is the"
    " one that Pulumi verified, and `image-registry` keeps other registries out; docs/policies/README.md"
    " names controllers that verify signatures in the cluster.",
)
