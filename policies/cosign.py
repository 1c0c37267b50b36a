"""One run of the cosign program: does one signer's signature for an image verify?

Written against cosign 2.6.5, of which these are the ways (cmd/cosign/cli/verify):

- `verify` looks for Sigstore bundles first; if the registry has one for the image, at no classic signature.
- `verify` takes any attestation by the signer in a bundle for a signature; its output says which type it is.
- `verify` checks no annotations of bundles, though it says so.
- `verify --local-image` reads the classic signatures that `cosign save` wrote, and no bundles; a bundle in a
  file is verified by `verify-blob-attestation`.
"""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from policies.trust import Key, Signer, Trust

Verdict = Literal["good", "unsigned", "unreachable", "wrong", "annotations", "other", "broken"]
_SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
_CLASSIC = "cosign container image signature"
NO_ANSWER = "no answer within the time limit"
_UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection refused|connection reset|i/o timeout|deadline exceeded"
    r"|network is unreachable|TLS handshake|x509:|server gave HTTP|unexpected EOF|: EOF|status code 5\d\d"
)
_NOT_LOGGED = "offline verification failed"
# An empty Sigstore trust root: only the keys count, and cosign does not ask the internet for the public one.
_NO_SIGSTORE = Path(__file__).resolve().parent / "no-sigstore.json"
# cosign takes every flag from the environment too: COSIGN_CHECK_CLAIMS=false would let any signature pass.
_KEPT = ("COSIGN_REPOSITORY", "COSIGN_DOCKER_MEDIA_TYPES")


@dataclass(frozen=True)
class Answer:
    """What cosign said.

    Args:
        verdict: `good`; `unsigned`: no signature is there; `unreachable`: the registry did not answer;
            `wrong`: no signature there verifies; `annotations`: it verifies and does not say what it must;
            `other`: what verifies is no signature of this image; `broken`: cosign could not check.
        reason: in cosign's words.
    """

    verdict: Verdict
    reason: str = ""


_BUNDLE_SAYS_NOTHING = Answer("annotations", "it is a Sigstore bundle, which bears none")


def verify_in_registry(image: str, digest: str, signer: Signer, trust: Trust, seconds: float) -> Answer:
    """Verify an image's signature where the registry keeps it.

    Args:
        image: repository and digest.
        digest: of the image's manifest, `sha256:…`.
        signer: who must have signed.
        trust: on what terms.
        seconds: longest wait.
    """
    answer = _verify([image], digest, signer, trust, seconds)
    if answer.verdict in ("wrong", "broken") and _UNREACHABLE.search(answer.reason):
        return Answer("unreachable", answer.reason)
    return answer


def verify_saved(layout: Path, digest: str, signer: Signer, trust: Trust, seconds: float) -> Answer:
    """Verify the signature of the image that `cosign save` wrote; arguments as verify_in_registry()."""
    return _verify(["--local-image", str(layout)], digest, signer, trust, seconds)


def verify_bundle(file: Path, digest: str, signer: Signer, trust: Trust, seconds: float) -> Answer:
    """Verify that a file's Sigstore bundle is a signature of an image; arguments as verify_in_registry()."""
    command = [
        "cosign",
        "verify-blob-attestation",
        "--new-bundle-format",
        f"--bundle={file}",
        f"--type={_SIGNATURE}",
        "--check-claims=true",
        "--digestAlg=sha256",
        f"--digest={digest.removeprefix('sha256:')}",
        *_flags(signer, trust),
    ]
    answer, _ = _run(command, seconds)
    if answer.verdict == "good" and trust.annotations:
        return _BUNDLE_SAYS_NOTHING
    return answer


def verify_blob(file: Path, bundle: Path, key: Path, seconds: float) -> Answer:
    """Verify that a Sigstore bundle is a key's signature of a file; nothing is asked of a server.

    Args:
        file: what was signed.
        bundle: the signature.
        key: the public key.
        seconds: longest wait.
    """
    what = ["cosign", "verify-blob", "--new-bundle-format", f"--bundle={bundle}"]
    trusted = [f"--key={key}", f"--trusted-root={_NO_SIGSTORE}", "--insecure-ignore-tlog=true"]
    return _run([*what, *trusted, str(file)], seconds)[0]


def _verify(target: Sequence[str], digest: str, signer: Signer, trust: Trust, seconds: float) -> Answer:
    command = ["cosign", "verify", "--check-claims=true", "--output=json", *_flags(signer, trust), *target]
    answer, output = _run(command, seconds)
    return answer if answer.verdict != "good" else _about(output, digest, trust)


def _flags(signer: Signer, trust: Trust) -> list[str]:
    """What cosign needs to know of a signer; nothing in it makes cosign ask a server of Sigstore's."""
    if isinstance(signer, Key):
        # Key pairs are the trust root, and an air-gapped site has no transparency log.
        return [f"--key={signer.file}", f"--trusted-root={_NO_SIGSTORE}", "--insecure-ignore-tlog=true"]
    return [
        *signer.flags,
        f"--trusted-root={trust.root}",
        "--offline=true",
        f"--insecure-ignore-tlog={'false' if trust.log_required else 'true'}",
        f"--insecure-ignore-sct={'false' if trust.has_certificate_logs else 'true'}",
    ]


def _run(command: Sequence[str], seconds: float) -> tuple[Answer, str]:
    environment = {
        key: value
        for key, value in os.environ.items()
        if key in _KEPT or not key.startswith(("COSIGN_", "SIGSTORE_"))
    }
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=max(seconds, 0.001),
            stdin=subprocess.DEVNULL,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Answer("unreachable", NO_ANSWER), ""
    except OSError as error:
        return Answer("broken", f"it could not be started: {error.strerror}"), ""
    if result.returncode == 0:
        return Answer("good"), result.stdout
    return _failure(_reason(result.stderr)), ""


def _failure(reason: str) -> Answer:
    if reason.startswith(("no signatures found", "no signatures associated")):
        return Answer("unsigned", reason)
    if reason.startswith("invalid predicate type"):
        return Answer("other", reason)
    if reason.startswith(("no matching", "failed to verify")):
        return Answer("wrong", reason)
    return Answer("broken", reason)


def _about(output: str, digest: str, trust: Trust) -> Answer:
    """Judge what cosign found in order: the image and the annotations that verified signatures speak of."""
    try:
        entries: list[dict[str, Any]] = [_entry(entry) for entry in json.loads(output)]
    except (ValueError, KeyError, TypeError):
        return Answer("broken", "its output is not the one of cosign 2.6")
    signatures = [
        entry for entry in entries if entry["digest"] == digest and entry["type"] in (_SIGNATURE, _CLASSIC)
    ]
    if not signatures:
        kinds = ", ".join(sorted({f"{entry['type']} for {entry['digest']}" for entry in entries}))
        return Answer("other", f"found {kinds[:400]}")
    if not trust.annotations or any(_bears(entry["annotations"], trust) for entry in signatures):
        return Answer("good")
    if all(entry["type"] == _SIGNATURE for entry in signatures):
        return _BUNDLE_SAYS_NOTHING
    found = " or ".join(json.dumps(_wanted(entry["annotations"], trust)) for entry in signatures)
    return Answer("annotations", f"it says {found[:400]}")


def _entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    critical = entry["critical"]
    return {
        "digest": critical["image"]["docker-manifest-digest"],
        "type": critical["type"],
        "annotations": entry.get("optional") or {},
    }


def _bears(annotations: Mapping[str, Any], trust: Trust) -> bool:
    return all(annotations.get(key) == value for key, value in trust.annotations)


def _wanted(annotations: Mapping[str, Any], trust: Trust) -> dict[str, Any]:
    return {key: annotations[key] for key, _ in trust.annotations if key in annotations}


def _reason(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    # An error may have several lines; cosign says it once more after these words.
    said = " ".join(" ".join(lines).partition("error during command execution:")[0].split())
    said = said.partition("Error: ")[2] or said or "it said nothing"
    return said.replace(_NOT_LOGGED, f"it bears no entry of a transparency log ({_NOT_LOGGED})")[:400]
