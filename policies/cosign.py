"""Verification of an image's signature by the cosign program, from a local layout or from the registry."""

import functools
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

_UNREACHABLE = re.compile(
    r"dial tcp|no such host|connection refused|connection reset|i/o timeout|deadline exceeded"
    r"|network is unreachable|TLS handshake|x509:|server gave HTTP|unexpected EOF|: EOF|status code 5\d\d"
)
# An empty Sigstore trust root: only the keys count, and cosign does not ask the internet for the public one.
_NO_SIGSTORE = Path(__file__).resolve().parent / "no-sigstore.json"


@dataclass(frozen=True)
class Trust:
    """Whom to trust and where to look.

    Args:
        keys: files of public keys, one of which must have signed.
        layouts: folders written by `cosign save`.
        timeout: longest wait for one run of cosign, in seconds.
    """

    keys: tuple[Path, ...]
    layouts: tuple[Path, ...]
    timeout: float


@dataclass(frozen=True)
class Problem:
    """Why an image is not trusted, and what to do."""

    found: str
    fix: str


@functools.lru_cache(maxsize=4096)
def verify(repository: str, digest: str, trust: Trust) -> Problem | None:
    """Verify that one of the trusted keys signed the image; whatever goes wrong is a Problem.

    The transparency log is not asked: key pairs are the trust root, and an air-gapped site has no log.

    Args:
        repository: registry and path, such as `edge.local/models/digits`.
        digest: `sha256:…`, of the image's manifest.
        trust: keys, layouts and time limit.

    Returns:
        None when the signature is good.
    """
    if shutil.which("cosign") is None:
        return Problem(
            "but cosign is not on PATH, so its signature was not checked", "run `. ./env.sh` first"
        )
    for key in trust.keys:
        if fault := _unreadable(key):
            return Problem(
                f"but the public key {key} cannot be read ({fault}), so its signature was not checked",
                "put the key there, or name the right file in signed-images.keys",
            )
    layout = _layout_with(digest, trust.layouts)
    if isinstance(layout, Problem):
        return layout
    target = ["--local-image", str(layout)] if layout else [f"{repository}@{digest}"]
    problem: Problem | None = None
    for key in trust.keys:
        problem = _run(target, key, digest, trust)
        if problem is None:
            return None
    return problem


def _unreadable(key: Path) -> str | None:
    try:
        text = key.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        return str(error.strerror if isinstance(error, OSError) else error)
    return None if "BEGIN PUBLIC KEY" in text else "it holds no PEM public key"


def _layout_with(digest: str, layouts: tuple[Path, ...]) -> Path | Problem | None:
    for layout in layouts:
        index = layout / "index.json"
        if not index.exists():
            continue
        try:
            digests = [
                entry["digest"] for entry in json.loads(index.read_text(encoding="utf-8"))["manifests"]
            ]
        except (OSError, ValueError, KeyError, TypeError) as error:
            return Problem(
                f"but the layout {layout} cannot be read ({error!r}), so its signature was not checked",
                "write it again with `cosign save --dir`, or remove it from signed-images.layouts",
            )
        if digest in digests:
            return layout
    return None


def _run(target: list[str], key: Path, digest: str, trust: Trust) -> Problem | None:
    command = ["cosign", "verify", "--key", str(key), "--trusted-root", str(_NO_SIGSTORE)]
    command += ["--insecure-ignore-tlog=true", "--output=json", *target]
    place = (
        f"layout {target[1]}" if target[0] == "--local-image" else f"registry {target[0].split('/', 1)[0]}"
    )
    try:
        result = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=trust.timeout,
            stdin=subprocess.DEVNULL,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _no_answer(place, f"no answer within {trust.timeout:g} s")
    except OSError as error:
        return Problem(
            f"but cosign could not be started ({error.strerror}), so its signature was not checked",
            "install cosign again",
        )
    if result.returncode != 0:
        return _explain(place, trust.keys, result.stderr)
    if digest in _vouched(result.stdout):
        return None
    return Problem(f"but the signature in {place} vouches for another digest", "sign this very digest")


def _vouched(output: str) -> set[str]:
    try:
        return {entry["critical"]["image"]["docker-manifest-digest"] for entry in json.loads(output)}
    except (ValueError, KeyError, TypeError):
        return set()


def _explain(place: str, keys: tuple[Path, ...], stderr: str) -> Problem:
    reason, names = _reason(stderr), " or ".join(str(key) for key in keys)
    if place.startswith("registry") and _UNREACHABLE.search(reason):
        return _no_answer(place, reason)
    if reason.startswith("no signatures"):
        return Problem(
            f"which is not signed: {place} holds no signature for it ({reason})",
            f"sign it: `cosign sign --key KEY IMAGE@DIGEST`, with the private key of {names}",
        )
    if reason.startswith("no matching signatures"):
        return Problem(
            f"whose signature does not verify with {names}: {reason}",
            "sign the image with the trusted key, or add the signer's public key to signed-images.keys",
        )
    return Problem(f"but cosign could not check its signature in {place}: {reason}", "mend what cosign names")


def _reason(stderr: str) -> str:
    lines = [line for line in stderr.splitlines() if line.strip() and not line.startswith("WARNING")]
    errors = [line for line in lines if line.startswith("Error:")]
    return " ".join((errors or lines or ["cosign said nothing"])[0].split()).removeprefix("Error: ")[:400]


def _no_answer(place: str, reason: str) -> Problem:
    return Problem(
        f"but {place} cannot be reached ({reason}), so its signature was not checked",
        "make the registry reachable, or `cosign save --dir FOLDER IMAGE@DIGEST` on a machine that reaches it"
        " and add FOLDER to signed-images.layouts",
    )
