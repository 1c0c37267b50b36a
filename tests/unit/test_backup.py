"""Backups off the node: what is damaged, too old or failing is refused and said."""

import hashlib
import io
import sqlite3
import tarfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from backup import folder
from backup.__main__ import _fault
from backup.host import Kept, State
from status.stack import StatusError

NAME = "backup-edge-1-20261125T043000Z-sqlite.tar.gz"


def _database(path: Path) -> bytes:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE kine (name TEXT)")
    connection.executemany("INSERT INTO kine VALUES (?)", [(f"key-{n}" * 50,) for n in range(200)])
    connection.commit()
    connection.close()
    return path.read_bytes()


def _backup(files: dict[str, bytes]) -> tuple[Kept, bytes]:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    data = written.getvalue()
    return Kept(NAME, hashlib.sha256(data).hexdigest()), data


def test_a_whole_backup_is_kept_for_its_owner_alone(tmp_path: Path) -> None:
    database = _database(tmp_path / "db")
    kept, data = _backup({"token": b"t", "password": b"p", "sqlite/state.db": database})
    to = tmp_path / "kept"
    to.mkdir()
    folder.keep(to, kept, data)
    assert {path.stat().st_mode & 0o777 for path in to.iterdir()} == {0o600}
    assert folder.read(to / NAME) == (data, kept.sha256)


@pytest.mark.parametrize("lacking", ["token", "password", "sqlite/state.db"])
def test_an_incomplete_backup_is_refused(tmp_path: Path, lacking: str) -> None:
    files = {"token": b"t", "password": b"p", "sqlite/state.db": _database(tmp_path / "db")}
    kept, data = _backup({name: data for name, data in files.items() if name != lacking})
    to = tmp_path / "kept"
    to.mkdir()
    with pytest.raises(StatusError, match="has no"):
        folder.keep(to, kept, data)
    assert list(to.iterdir()) == []


def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    database = bytearray(_database(tmp_path / "db"))
    database[4096 * 3 : 4096 * 5] = b"\xff" * 8192
    kept, data = _backup({"token": b"t", "password": b"p", "sqlite/state.db": bytes(database)})
    with pytest.raises(StatusError, match=r"its database is damaged|cannot be read"):
        folder.keep(tmp_path, kept, data)


def test_another_sum_is_refused(tmp_path: Path) -> None:
    kept, data = _backup({"token": b"t"})
    with pytest.raises(StatusError, match="sha256 is not"):
        folder.keep(tmp_path, kept, data[:-1])


def test_only_the_newest_stay(tmp_path: Path) -> None:
    for host in ("edge-1", "edge-1-1"):
        for day in (23, 24, 25):
            (tmp_path / f"backup-{host}-202611{day}T043000Z-etcd.tar.gz").touch()
    folder.prune(tmp_path, "edge-1", 2)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert [name for name in left if name.startswith("backup-edge-1-2026")] == [
        "backup-edge-1-20261124T043000Z-etcd.tar.gz",
        "backup-edge-1-20261125T043000Z-etcd.tar.gz",
    ]
    assert len(left) == 5


@pytest.mark.parametrize(
    ("result", "timer", "age", "fault"),
    [
        ("success", "active", 1, ""),
        ("success", "active", 49, "the newest is 49 h old"),
        ("exit-code", "active", 1, "the last run ended with exit-code"),
        ("success", "inactive", 1, "its timer is inactive"),
    ],
)
def test_a_fault_is_named(result: str, timer: str, age: int, fault: str) -> None:
    made = datetime.now(UTC) - timedelta(hours=age)
    kept = Kept(f"backup-edge-1-{made:%Y%m%dT%H%M%SZ}-etcd.tar.gz", "0" * 64)
    assert _fault(State(result, timer, [kept]), 48)[: len(fault) or None] == fault


def test_no_backup_is_a_fault() -> None:
    assert _fault(State("success", "active", []), 48) == "no backup"
