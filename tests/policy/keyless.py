"""Keyless signing without Sigstore: a certificate authority and a transparency log of the tests' own.

The certificates are as Fulcio issues them (its docs/oid-info.md), the log answers as Rekor v1 does for one
entry; both use the openssl program for keys and signatures.
"""

import base64
import datetime
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.policy.world import run

ISSUER = "https://login.example"
LOG = "rekor.example"
_CA = """
[ca]
default_ca = one
[one]
database = index.txt
new_certs_dir = .
rand_serial = yes
unique_subject = no
default_md = sha256
policy = any
[any]
commonName = supplied
[root]
basicConstraints = critical,CA:true
keyUsage = critical,keyCertSign
[intermediate]
basicConstraints = critical,CA:true,pathlen:0
keyUsage = critical,keyCertSign
extendedKeyUsage = codeSigning
"""
_LEAF = """
keyUsage = critical,digitalSignature
extendedKeyUsage = codeSigning
subjectAltName = critical,{subject}
1.3.6.1.4.1.57264.1.1 = DER:{raw_issuer}
1.3.6.1.4.1.57264.1.8 = ASN1:UTF8String:{issuer}
"""


@dataclass(frozen=True)
class Credential:
    """What a keyless signer signs with.

    Args:
        key: the private key, as cosign keeps it.
        certificate: PEM.
    """

    key: Path
    certificate: Path


@dataclass(frozen=True)
class Authority:
    """A root, and an intermediate authority that issues certificates.

    Args:
        folder: holds all keys and certificates; `chain.pem` is the intermediate's and the root's certificate.
    """

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> "Authority":
        """Make keys and certificates of root and intermediate."""
        folder.mkdir()
        (folder / "ca.cnf").write_text(_CA)
        (folder / "index.txt").touch()
        made = cls(folder)
        year = datetime.timedelta(days=365)
        made._certify("root", "root", ["-selfsign", "-keyfile", "root.pem"], (-year, year))
        made._certify("intermediate", "intermediate", _by("root"), (-year, year))
        chain = [(folder / f"{name}.crt").read_text() for name in ("intermediate", "root")]
        (folder / "chain.pem").write_text("".join(chain))
        return made

    def issue(self, name: str, subject: str, issued: datetime.timedelta, issuer: str = ISSUER) -> Credential:
        """Issue a certificate that holds for ten minutes.

        Args:
            name: of the files.
            subject: who signs, such as `email:dev@example.org` or `URI:https://…`.
            issued: when it was issued, from now.
            issuer: who logged them in.
        """
        extensions = _LEAF.format(subject=subject, issuer=issuer, raw_issuer=issuer.encode().hex(":"))
        (self.folder / f"{name}.cnf").write_text(extensions)
        valid = (issued, issued + datetime.timedelta(minutes=10))
        self._certify(name, None, [*_by("intermediate"), "-extfile", f"{name}.cnf"], valid)
        prefix = f"--output-key-prefix={name}"
        run("cosign", "import-key-pair", f"--key={name}.pem", prefix, cwd=self.folder, COSIGN_PASSWORD="")
        return Credential(self.folder / f"{name}.key", self.folder / f"{name}.crt")

    def trusted_root(self, log: "Log") -> Path:
        """Write a Sigstore trusted root that names this authority and a log."""
        file = self.folder / "trusted-root.json"
        run(
            "cosign",
            "trusted-root",
            "create",
            "--fulcio=url=https://ca.example,certificate-chain=chain.pem",
            f"--rekor=url=https://{LOG},public-key={log.folder / 'log.pub'},start-time=2020-01-01T00:00:00Z",
            f"--out={file}",
            cwd=self.folder,
        )
        return file

    def _certify(
        self,
        name: str,
        extensions: str | None,
        signer: list[str],
        valid: tuple[datetime.timedelta, datetime.timedelta],
    ) -> None:
        make_key(self.folder / f"{name}.pem")
        request = ["-new", "-key", f"{name}.pem", "-subj", f"/CN={name}", "-out", f"{name}.csr"]
        run("openssl", "req", *request, cwd=self.folder)
        now = datetime.datetime.now(datetime.UTC)
        start, end = ((now + when).strftime("%Y%m%d%H%M%SZ") for when in valid)
        command = ["openssl", "ca", "-config", "ca.cnf", "-batch", "-notext", *signer]
        command += ["-extensions", extensions] if extensions else []
        command += ["-startdate", start, "-enddate", end, "-in", f"{name}.csr", "-out", f"{name}.crt"]
        run(*command, cwd=self.folder)


def _by(name: str) -> list[str]:
    return ["-cert", f"{name}.crt", "-keyfile", f"{name}.pem"]


def make_key(file: Path) -> None:
    """Make an elliptic curve's private key."""
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", str(file), cwd=file.parent)


@dataclass
class Log:
    """A transparency log that holds one entry at a time.

    Args:
        folder: holds its key, and the public one as `log.pub`.
        time: when it says that it took entries, from now.
        address: where it listens.
    """

    folder: Path
    time: datetime.timedelta = datetime.timedelta()
    address: str = ""

    @classmethod
    @contextmanager
    def serve(cls, folder: Path) -> "Iterator[Log]":
        """Run a log on loopback."""
        folder.mkdir()
        log = cls(folder)
        make_key(folder / "log.pem")
        run("openssl", "ec", "-in", "log.pem", "-pubout", "-out", "log.pub", cwd=folder)
        with ThreadingHTTPServer(("127.0.0.1", 0), _handler(log)) as server:
            log.address = f"http://127.0.0.1:{server.server_port}"
            threading.Thread(target=server.serve_forever, daemon=True).start()
            yield log
            server.shutdown()

    def entry(self, proposed: dict[str, Any]) -> dict[str, Any]:
        """Take an entry as Rekor does, and return what it answers."""
        body = json.dumps(_canonical(proposed), sort_keys=True, separators=(",", ":")).encode()
        taken = datetime.datetime.now(datetime.UTC) + self.time
        logged = {
            "body": base64.b64encode(body).decode(),
            "integratedTime": int(taken.timestamp()),
            "logID": self._key_hash().hex(),
            "logIndex": 0,
        }
        promise = self._sign(json.dumps(logged, sort_keys=True, separators=(",", ":")).encode())
        # RFC 6962, 2.1: the hash of a tree with one leaf.
        root = hashlib.sha256(b"\0" + body).digest()
        proof = {
            "checkpoint": self._checkpoint(root),
            "hashes": [],
            "logIndex": 0,
            "rootHash": root.hex(),
            "treeSize": 1,
        }
        verification = {"signedEntryTimestamp": base64.b64encode(promise).decode(), "inclusionProof": proof}
        return {"0" * 16 + root.hex(): {**logged, "verification": verification}}

    def _checkpoint(self, root: bytes) -> str:
        """A tree's head as a signed note (C2SP: "signed-note" and "tlog-checkpoint")."""
        text = f"{LOG}\n1\n{base64.b64encode(root).decode()}\n"
        signed = base64.b64encode(self._key_hash()[:4] + self._sign(text.encode())).decode()
        return f"{text}\n\u2014 {LOG} {signed}\n"

    def _key_hash(self) -> bytes:
        pem = (self.folder / "log.pub").read_text().splitlines()
        return hashlib.sha256(base64.b64decode("".join(pem[1:-1]))).digest()

    def _sign(self, content: bytes) -> bytes:
        digest = hashlib.sha256(content).hexdigest()
        (self.folder / digest).write_bytes(content)
        run(
            "openssl", "dgst", "-sha256", "-sign", "log.pem", "-out", f"{digest}.sig", digest, cwd=self.folder
        )
        return (self.folder / f"{digest}.sig").read_bytes()


def _canonical(proposed: dict[str, Any]) -> dict[str, Any]:
    """What Rekor keeps of an entry: all of a signature's, of a DSSE envelope its hashes and signatures."""
    if proposed["kind"] != "dsse":
        return proposed
    content = proposed["spec"]["proposedContent"]
    envelope = json.loads(content["envelope"])
    (verifier,) = content["verifiers"]
    spec = {
        "envelopeHash": _hash(content["envelope"].encode()),
        "payloadHash": _hash(base64.b64decode(envelope["payload"])),
        "signatures": [{"signature": one["sig"], "verifier": verifier} for one in envelope["signatures"]],
    }
    return {"apiVersion": proposed["apiVersion"], "kind": "dsse", "spec": spec}


def _hash(content: bytes) -> dict[str, str]:
    return {"algorithm": "sha256", "value": hashlib.sha256(content).hexdigest()}


def _handler(log: Log) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            proposed = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            answer = json.dumps(log.entry(proposed)).encode()
            self.send_response(201)
            self.send_header("Content-Type", "application/json")
            self.send_header("Location", "/api/v1/log/entries/0")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler
