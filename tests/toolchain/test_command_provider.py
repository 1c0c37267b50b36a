"""The command provider against a real SSH server, an edge host of its own, through the real engine."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

HOST, ADDRESS = "cmd-1", "10.216.6.11"
FLEET = ["--prefix", "cmd", "--subnet", "10.216.6.0/24"]
CHECKOUT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, pulumi
from pulumi_command import remote
e = os.environ
link = remote.ConnectionArgs(host="10.216.6.11", port=int(e.get("PORT", "22")), dial_error_limit=2,
    private_key=open(e["KEY"]).read(), host_key=open(e["HOST_KEY"]).read())
step = remote.Command("step", connection=link, create="cat; echo created", update="echo updated",
    delete="true", stdin="typed ", triggers=[e.get("TRIGGER", "1")],
    logging=remote.Logging(e.get("LOGGING", "none")), add_previous_output_in_env=False)
if "FAIL" in e:
    remote.Command("bad", connection=link, create="echo reason >&2; exit 7")
for name, source in {"folder": pulumi.FileArchive("folder/"), "text": pulumi.StringAsset("words")}.items():
    remote.CopyToRemote(name, connection=link, source=source, remote_path=f"{e['TARGET']}/{name}")
pulumi.export("said", step.stdout)
"""


class Stack:
    """One stack of the program above, with its state in a folder of the test."""

    def __init__(self, folder: Path, keys: Path) -> None:
        self.folder, self.keys = folder, keys
        interpreter = {"name": "python", "options": {"virtualenv": str(Path(sys.prefix))}}
        (folder / "Pulumi.yaml").write_text(json.dumps({"name": "provider-test", "runtime": interpreter}))
        (folder / "__main__.py").write_text(PROGRAM)
        (folder / "folder" / "sub").mkdir(parents=True)
        (folder / "folder" / "sub" / "file").write_text("in a folder")
        (folder / "state").mkdir()
        self.environment = os.environ | {
            "PULUMI_BACKEND_URL": f"file://{folder}/state",
            "PULUMI_CONFIG_PASSPHRASE": "test",
            "KEY": str(keys / "id_ed25519"),
            "HOST_KEY": str(keys / HOST / "ssh_host_ed25519_key.pub"),
            "TARGET": "/tmp/provider-test",  # noqa: S108 (a folder on the edge host)
        }
        self.environment.pop("PULUMI_CONFIG_PASSPHRASE_FILE", None)
        assert self("stack", "init", "test")[0] == 0

    def __call__(self, *command: str, **variables: str) -> tuple[int, str]:
        """Runs pulumi; returns its exit code and all it printed."""
        answer = subprocess.run(
            ["pulumi", *command, "--non-interactive"],
            cwd=self.folder,
            env=self.environment | variables,
            capture_output=True,
            text=True,
            timeout=120,
        )
        return answer.returncode, answer.stdout + answer.stderr

    def up(self, **variables: str) -> tuple[int, str]:
        """Runs `pulumi up`."""
        return self("up", "--yes", "--skip-preview", **variables)

    def on_host(self, command: str) -> str:
        """What a command prints on the edge host."""
        ssh = ["ssh", "-i", str(self.keys / "id_ed25519"), "-o", "BatchMode=yes", "-o", "ConnectTimeout=3"]
        ssh += [
            "-o",
            "StrictHostKeyChecking=no",
            "-o",
            "UserKnownHostsFile=/dev/null",
            "-o",
            "LogLevel=ERROR",
        ]
        return subprocess.run(
            [*ssh, f"root@{ADDRESS}", command], check=True, capture_output=True, text=True
        ).stdout


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One edge host; its keys' folder."""
    folder = tmp_path_factory.mktemp("hosts")
    localhosts = [sys.executable, "-m", "localhosts"]
    options = [*FLEET, "--state", str(folder)]
    subprocess.run([*localhosts, "create", *options, "--count", "1"], cwd=CHECKOUT, check=True)
    yield folder
    subprocess.run([*localhosts, "delete", *options], cwd=CHECKOUT, check=True)


@pytest.fixture
def stack(tmp_path: Path, keys: Path) -> Stack:
    """A fresh stack."""
    made = Stack(tmp_path, keys)
    made.on_host("rm -rf /tmp/provider-test")
    return made


def test_life(stack: Stack) -> None:
    """Create, an unchanged up, replacement by triggers, copies, and a state without the plain key."""
    code, said = stack("preview", PORT="1")
    assert code == 0, said  # a preview connects to nothing
    code, said = stack.up()
    assert code == 0, said
    assert "typed created" in said
    assert (
        stack.on_host("cat /tmp/provider-test/text /tmp/provider-test/folder/sub/file") == "wordsin a folder"
    )
    assert "4 unchanged" in stack.up()[1]
    assert "1 replaced" in stack.up(TRIGGER="2")[1]
    assert "1 updated" in stack.up(TRIGGER="2", LOGGING="stdout")[1]
    state = (stack.folder / "state/.pulumi/stacks/provider-test/test.json").read_text()
    assert "PRIVATE KEY" not in state
    assert stack("destroy", "--yes", "--skip-preview")[0] == 0


def test_failures(stack: Stack) -> None:
    """Each error names host and port and what is wrong."""
    code, said = stack.up(FAIL="1")
    assert code != 0
    assert f"{ADDRESS}:22: Process exited with status 7: reason" in said
    assert "Traceback" not in said
    code, said = stack.up(HOST_KEY=str(stack.keys / "id_ed25519.pub"))
    assert code != 0
    assert "host key mismatch" in said
    code, said = stack.up(PORT="1", TRIGGER="3")
    assert code != 0
    assert f"{ADDRESS}:1: after 2 dial attempts" in said
    wrong = stack.folder / "wrong"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(wrong)], check=True)
    code, said = stack.up(KEY=str(wrong), TRIGGER="4")
    assert code != 0
    assert "unable to authenticate" in said
