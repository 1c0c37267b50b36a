"""The folder off the node: backups with their sums, mode 0600, each looked into before it is kept."""

from __future__ import annotations

import hashlib
import io
import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path

from backup.host import Kept
from status.stack import StatusError


def keep(folder: Path, kept: Kept, data: bytes) -> None:
    """Writes a backup that is whole: its sum is right, and sqlite's own check finds no fault in its database.

    Raises:
        StatusError: it is damaged; nothing is written.
    """
    if hashlib.sha256(data).hexdigest() != kept.sha256:
        raise StatusError(f"{kept.name}: sha256 is not {kept.sha256}: damaged, pull again")
    check(kept.name, data)
    file = folder / kept.name
    for target, content in (
        (file.with_name(f"{file.name}.sha256"), f"{kept.sha256}  {kept.name}\n".encode()),
        (file, data),
    ):
        part = target.with_name(f".{target.name}.part")
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as written:  # noqa: PTH123
            written.write(content)
            written.flush()
            os.fsync(written.fileno())
        part.replace(target)


def check(name: str, data: bytes) -> None:
    """Looks into a backup.

    Raises:
        StatusError: it lacks something, or its sqlite database is damaged.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as archive, tempfile.TemporaryDirectory() as work:
            archive.extractall(work, filter="data")
            there = {path.name for path in Path(work).rglob("*") if path.is_file() and path.stat().st_size}
            database = Path(work) / "sqlite/state.db"
            if lacking := {"token", "password"} - there:
                raise StatusError(f"{name}: has no {', '.join(sorted(lacking))}")
            if not database.exists() and not any((Path(work) / "etcd").glob("backup-*")):
                raise StatusError(f"{name}: has no datastore")
            if database.exists() and (fault := _fault(database)) != "ok":
                raise StatusError(f"{name}: its database is damaged: {fault}")
    except (tarfile.TarError, EOFError, OSError, sqlite3.Error) as error:
        raise StatusError(f"{name}: cannot be read: {error}") from None


def _fault(database: Path) -> str:
    connection = sqlite3.connect(database)
    try:
        return str(connection.execute("PRAGMA integrity_check").fetchone()[0])
    finally:
        connection.close()


def read(file: Path) -> tuple[bytes, str]:
    """A kept backup and its sum, compared.

    Raises:
        StatusError: it can't be read, or is not what was pulled.
    """
    try:
        data = file.read_bytes()
        wanted = file.with_name(f"{file.name}.sha256").read_text().split()[0]
    except (OSError, IndexError) as error:
        raise StatusError(f"{file}: {error}: name a backup that was pulled, its .sha256 beside it") from None
    if hashlib.sha256(data).hexdigest() != wanted:
        raise StatusError(f"{file}: sha256 is not {wanted}: damaged, take another")
    check(file.name, data)
    return data, wanted


def prune(folder: Path, host: str, number: int) -> None:
    """Removes a host's oldest backups, all but `number`."""
    found = sorted(folder.glob(f"backup-{host}-????????T??????Z-*.tar.gz"))
    for file in found[:-number]:
        file.unlink()
        file.with_name(f"{file.name}.sha256").unlink(missing_ok=True)
