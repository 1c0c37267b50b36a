"""Copies of the kubeconfig: the cluster's own go, all else stays."""

from pathlib import Path

import pytest

from components.kubeconfig import _remove

OURS = "users:\n- name: default\n  user:\n    client-key-data: b3VycwAA\n"


def test_only_the_clusters_own_copies_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    texts = {
        "kubeconfig1": OURS,
        "kubeconfig2": '{"users": [{"user": {"client-key-data": "b3VycwAA"}}]}',
        "kubeconfig3": OURS.replace("b3VycwAA", "dGhlaXJz"),
        "notes": OURS,
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "kubeconfig4").mkdir()
    _remove(OURS)
    assert {file.name for file in tmp_path.iterdir()} == {"kubeconfig3", "kubeconfig4", "notes"}
    _remove("without a key")
    assert len(list(tmp_path.iterdir())) == 3
