"""Whether somebody trusted signed an image: where its signatures are, whose they are, what to say if not."""

import functools
import re
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeAlias

from policies import cosign, layouts
from policies.cosign import Answer
from policies.trust import Key, Signer, Trust

WORKERS = 8
"""How many images are verified at a time."""
_SIGNATURE_TAG = re.compile(r"^sha256-([0-9a-f]{64})\.sig$", re.MULTILINE)

_lock = threading.Lock()
_results: "dict[Question, Future[Problem | None]]" = {}
_silent: dict[str, str] = {}
"""Registries that did not answer in this process, and why."""


@dataclass(frozen=True)
class Problem:
    """Why an image is not trusted, and what to do.

    Args:
        found: follows the image's name.
        fix: what to do.
    """

    found: str
    fix: str


@dataclass(frozen=True)
class Question:
    """An image, and on what terms it is trusted.

    Args:
        repository: registry and path, such as `edge.local/models/digits`.
        digest: `sha256:…`, of the image's manifest.
        trust: whom to trust and where to look.
    """

    repository: str
    digest: str
    trust: Trust

    @property
    def registry(self) -> str:
        """The registry's host."""
        return self.repository.partition("/")[0]


@dataclass(frozen=True)
class _Place:
    """Where a signature may be: its name for people, and how to verify it for a signer in some seconds."""

    name: str
    verify: Callable[[Signer, Trust, float], Answer]


_Answers: TypeAlias = list[tuple[_Place, Signer, Answer]]


def verify(question: Question) -> Problem | None:
    """Verify that somebody trusted signed an image; asked again, it answers from memory.

    Returns:
        None when the signature is good; whatever goes wrong is a Problem.
    """
    with _lock:
        future, is_mine = _results.get(question), False
        if future is None:
            future, is_mine = _results.setdefault(question, Future()), True
    if is_mine:
        try:
            future.set_result(_verify(question))
        except BaseException as error:
            future.set_exception(error)
            raise
    return future.result()


def verify_all(questions: Iterable[Question]) -> None:
    """Verify several images at a time, so that verify() has the answers."""
    distinct = list(dict.fromkeys(questions))
    if len(distinct) > 1:
        with ThreadPoolExecutor(min(WORKERS, len(distinct))) as pool:
            list(pool.map(verify, distinct))


def forget() -> None:
    """Forget all answers, as after an image was signed."""
    with _lock:
        _results.clear()
        _silent.clear()


def _verify(question: Question) -> Problem | None:
    if shutil.which("cosign") is None:
        return Problem(
            "but cosign is not on PATH, so its signature was not checked", "run `. ./env.sh` first"
        )
    trust, digest = question.trust, question.digest
    try:
        places = list(_in_layouts(trust, digest))
    except layouts.LayoutError as error:
        return Problem(
            f"but {error}, so its signature was not checked",
            "write the layout again, or remove it from signed-images.layouts",
        )
    if places:
        return _judge(question, places)
    if reason := _silent.get(question.registry):
        return _no_answer(f"registry {question.registry}", f"it did not answer before: {reason}")
    image = f"{question.repository}@{digest}"
    ask = functools.partial(cosign.verify_in_registry, image, digest)
    return _judge(question, [_Place(f"registry {question.registry}", ask)])


def _in_layouts(trust: Trust, digest: str) -> Iterable[_Place]:
    for folder in trust.layouts:
        try:
            layout = layouts.read(folder)
        except layouts.LayoutError as error:
            raise layouts.LayoutError(f"the layout {folder} cannot be read ({error})") from None
        if layout is None:
            continue
        if layout.saved == digest:
            yield _Place(f"layout {folder}", functools.partial(cosign.verify_saved, folder, digest))
        for file in layout.bundles.get(digest, ()):
            yield _Place(f"layout {folder}", functools.partial(cosign.verify_bundle, file, digest))


def _judge(question: Question, places: Sequence[_Place]) -> Problem | None:
    """Ask for one signer after the other, in every place, until one is good."""
    until = time.monotonic() + question.trust.timeout
    answers: _Answers = []
    for signer in question.trust.signers:
        for place in places:
            answer = place.verify(signer, question.trust, until - time.monotonic())
            if answer.verdict == "good":
                return _unfit(signer) if isinstance(signer, Key) and signer.unfit else None
            if answer.verdict == "unreachable":
                return _out_of_reach(question, place, answer)
            answers.append((place, signer, answer))
        if all(answer.verdict == "unsigned" for _, _, answer in answers):
            break
    return _explain(question, answers, until)


def _unfit(key: Key) -> Problem:
    return Problem(f"whose only trusted signature is by the key {key}, {key.unfit}", key.remedy)


def _out_of_reach(question: Question, place: _Place, answer: Answer) -> Problem:
    reason = answer.reason
    if reason == cosign.NO_ANSWER:
        reason = f"no answer within {question.trust.timeout:g} s"
    if place.name.startswith("registry"):
        _silent[question.registry] = reason
    return _no_answer(place.name, reason)


def _explain(question: Question, answers: _Answers, until: float) -> Problem:
    """Say what is wrong: of several answers, the one that comes nearest to a good signature."""
    order = ("annotations", "other", "broken", "wrong", "unsigned")
    place, signer, nearest = min(answers, key=lambda each: order.index(each[2].verdict))
    signers = " or ".join(dict.fromkeys(str(each) for each in question.trust.signers))
    reason = "; ".join(dict.fromkeys(a.reason for _, _, a in answers if a.verdict == nearest.verdict))
    match nearest.verdict:
        case "unsigned":
            return _unsigned(question, place.name, reason, signers, until)
        case "wrong":
            return Problem(
                f"whose signature does not verify with {signers}: {reason}",
                "let a trusted signer sign the image, or add whoever did to signed-images.keys or identities",
            )
        case "annotations":
            wanted = " ".join(f"-a {key}={value}" for key, value in question.trust.annotations)
            return Problem(
                f"whose signature by {signer} does not say what signed-images.annotations wants: {reason}",
                f"sign the image with `cosign sign {wanted}`",
            )
        case "other":
            return Problem(
                f"for which {place.name} holds no signature but other statements of {signer} ({reason})",
                "sign it: `cosign sign IMAGE@DIGEST`, with `--new-bundle-format` if it has Sigstore bundles",
            )
    return Problem(
        f"but cosign could not check its signature in {place.name}: {reason}", "mend what cosign names"
    )


def _unsigned(question: Question, place: str, reason: str, signers: str, until: float) -> Problem:
    fix = f"sign it: `cosign sign --key KEY IMAGE@DIGEST`, as {signers}"
    found = f"which is not signed: {place} holds no signature for it ({reason})"
    signed = _signed_digests(question.repository, until) if place.startswith("registry") else []
    if not signed:
        return Problem(found, fix)
    several = f" and {len(signed) - 1} more" if len(signed) > 1 else ""
    return Problem(
        f"{found}, but one for sha256:{signed[0]}{several}, so a tag was moved after the signing",
        f"name the digest that was signed; or if this one is right, {fix}",
    )


def _signed_digests(repository: str, until: float) -> list[str]:
    """Digests in a repository for which there are signatures, for the message alone; none if that fails."""
    try:
        result = subprocess.run(
            ["crane", "ls", repository],
            capture_output=True,
            text=True,
            timeout=max(until - time.monotonic(), 0.001),
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return sorted(_SIGNATURE_TAG.findall(result.stdout))


def _no_answer(place: str, reason: str) -> Problem:
    return Problem(
        f"but {place} cannot be reached ({reason}), so its signature was not checked",
        "make the registry reachable, or `cosign save --dir FOLDER IMAGE@DIGEST` on a machine that reaches it"
        " and add FOLDER to signed-images.layouts",
    )
