"""Hosts that shall have GPUs: each fault is named and changes nothing, a whole one gets its specification.

Most cases run the step's own text on a host, as each `pulumi up` takes seconds; what the engine adds, the
order of the steps and what becomes of settings, is seen once for several cases.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gpu_host import (
    BARE,
    DRIVER,
    FAULTS,
    FIRST,
    GOOD,
    MODULES,
    NAMED,
    SECOND,
    SPEC,
    WANTED,
    installed,
    made,
    package,
    says,
    smi,
    step,
    toolkit,
)
from tests.integration.local_site import CHECKOUT, LocalSite
from tests.integration.test_faults import hosts, refused, untouched

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="local hosts need root: run the tests with sudo")

TEMPLATE = "/var/lib/rancher/k3s/agent/etc/containerd/config.toml.tmpl"
OURS = "edge-inference-cdi"
UNITS = f"/etc/systemd/system/{OURS}.service /etc/systemd/system/{OURS}.path"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSite]:
    result = LocalSite(tmp_path_factory.mktemp("gpu"), "gpuh", "10.216.12")
    try:
        result.create()
        yield result
    finally:
        result.localhosts("delete")


def until(reached: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Waits for a state of a host."""
    end = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < end, otherwise()
        time.sleep(0.2)


@pytest.fixture(scope="module")
def untouched_agent(site: LocalSite) -> list[str]:
    return site.traces(site.names[1])


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_named(site: LocalSite, untouched_agent: list[str], name: str) -> None:
    fake, changes, messages = FAULTS[name]
    agent = site.names[1]
    done = step(site, agent, "gpu.sh", first=made(fake), **WANTED | changes)
    print(done.stderr)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: host {agent}: ")
    for message in messages:
        assert message in done.stderr
    assert "nothing was changed on the host" in done.stderr


def test_the_checks_changed_nothing(site: LocalSite, untouched_agent: list[str]) -> None:
    site.ssh(site.names[1], made(None))
    assert site.traces(site.names[1]) == untouched_agent


def test_faults_of_two_hosts_are_named_in_one_up_and_change_neither(site: LocalSite) -> None:
    """Through the engine, with what the settings ask for."""
    site.ssh(site.names[0], made(GOOD))
    site.ssh(site.names[1], made(None))
    before = {host: site.traces(host) for host in site.names}
    image = "registry.example.com/large@sha256:" + "07e5c3a1" * 8
    wanted = [host | {"gpu": gpu} for host, gpu in zip(hosts(site), (3, True), strict=True)]
    site.configure(
        services=[{"name": "large", "image": image, "gpu": {"count": 2, "memory": "96Gi"}}],
        nvidia={"enabled": True, "devicePluginImage": image, "minimumDriver": "560.35.03"},
        hosts=wanted,
    )
    text = refused(site, limit_s=60)
    for message in (
        NAMED + "2 found on the PCI bus, want 3, as its setting says gpu: 3",
        NAMED + "driver 550.90.07 found, want 560.35.03 or newer (nvidia.minimumDriver)",
        f"GPU {FIRST} (10de:2330): 81559 MiB memory found, want 98304 MiB: lower services.gpu.memory",
        f"GPU {SECOND} (10de:2330): 81559 MiB memory found, want 98304 MiB: lower services.gpu.memory",
        "4 fault(s) above; nothing was changed on the host",
    ):
        assert f"error: host {site.names[0]}: {message}" in text
    assert f"error: host {site.names[1]}: no NVIDIA GPU found on the PCI bus" in text
    untouched(site, before)


GPUS = [
    {"address": address, "id": "10de:2330", "name": "NVIDIA H100 80GB HBM3", "memoryMiB": 81559}
    for address in (FIRST, SECOND)
]
FACTS = json.dumps({"driver": DRIVER, "toolkit": "1.17.8", "gpus": GPUS}, separators=(",", ":"))


# Packages.


@pytest.fixture(scope="module")
def packages(site: LocalSite) -> dict[str, Path]:
    """Made-up packages; the toolkit's brings units as NVIDIA's does since 1.18, and enables them."""
    folder = site.folder / "packages"
    output = "Environment=NVIDIA_CTK_CDI_OUTPUT_FILE_PATH=/var/run/cdi/nvidia.yaml\nRuntimeDirectory=cdi\n"
    output += "RuntimeDirectoryPreserve=yes"
    run = f"[Service]\nType=oneshot\n{output}\nExecStart=/usr/bin/nvidia-ctk cdi generate\n"
    unit = "[Install]\nWantedBy=multi-user.target\n"
    theirs = "lib/systemd/system/nvidia-cdi-refresh"
    parts = {
        "usr/bin/nvidia-ctk": toolkit("1.18.0"),
        f"{theirs}.service": run + unit,
        f"{theirs}.path": f"[Path]\nPathChanged=/lib/modules/%v/modules.dep\n{unit}",
    }
    enable = (
        "systemctl daemon-reload; systemctl enable --now nvidia-cdi-refresh.path nvidia-cdi-refresh.service"
    )
    return {
        "smi": package(folder, "fake-smi", {"usr/bin/nvidia-smi": says(smi(DRIVER, FIRST, SECOND))}),
        "toolkit": package(folder, "fake-toolkit", parts, postinst=enable),
        "greedy": package(folder, "fake-greedy", {}, control="Depends: nowhere-to-be-had\n"),
        "tar": package(folder, "tar", {}),
    }


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("greedy", "dpkg refused fake-greedy, see above, and they were taken off again: add what"),
        ("tar", "nvidia.packages has 1.0: remove it from the host or from nvidia.packages"),
    ],
)
def test_a_package_that_does_not_do_is_named_and_taken_off(
    site: LocalSite, untouched_agent: list[str], packages: dict[str, Path], name: str, message: str
) -> None:
    agent = site.names[1]
    done = step(site, agent, "gpu-packages.sh", first=_brought(packages, name), FILES=f"/run/{name}.deb")
    assert done.returncode == 1
    assert f"error: host {agent}: " in done.stderr
    assert message in done.stderr
    _taken_off(site, agent, untouched_agent)


def test_a_package_that_is_left_out_is_purged(
    site: LocalSite, untouched_agent: list[str], packages: dict[str, Path]
) -> None:
    """With the units that it enabled and the specification that they wrote."""
    agent = site.names[1]
    both = {"FILES": "/run/smi.deb\n/run/toolkit.deb"}
    done = step(site, agent, "gpu-packages.sh", first=_brought(packages, "smi", "toolkit"), **both)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "fake-smi 1.0\nfake-toolkit 1.0\n"
    done = step(site, agent, "gpu-cdi.sh", FACTS=FACTS)
    assert done.returncode == 0, done.stderr
    assert site.ssh(agent, f"ls {UNITS} {SPEC} 2>/dev/null || true") == f"{SPEC}\n"
    step(site, agent, "gpu-packages.sh", FILES="/run/smi.deb").check_returncode()
    assert site.ssh(agent, f"ls {SPEC} 2>/dev/null; find /etc/systemd/system -name 'nvidia*'") == ""
    done = step(site, agent, "gpu.sh", **WANTED | {"PACKAGES": "after"})
    assert NAMED + "NVIDIA container toolkit (nvidia-ctk) not found" in done.stderr
    assert "1 fault(s) above; K3s is not installed here before this is mended" in done.stderr
    _taken_off(site, agent, untouched_agent)


def _brought(packages: dict[str, Path], *names: str) -> str:
    """Shell text that puts packages on a host; each is small enough to travel as text."""
    lines = [made(BARE), "mkdir -p /var/lib/edge-inference"]
    for name in names:
        octal = "".join(f"\\0{byte:03o}" for byte in packages[name].read_bytes())
        lines.append(f"printf %b '{octal}' >/run/{name}.deb")
    return "\n".join(lines) + "\n"


def _taken_off(site: LocalSite, host: str, before: list[str]) -> None:
    step(site, host, "gpu-packages.sh", "remove").check_returncode()
    site.ssh(host, f"rmdir /var/lib/edge-inference\n{made(None)}")
    assert site.traces(host) == before
    assert "fake" not in site.ssh(host, "dpkg-query -W -f '${Package}\n'")


# The CDI specification.


@pytest.fixture
def agent(site: LocalSite, untouched_agent: list[str]) -> Iterator[str]:
    """A host whose GPUs are well; afterwards it is as before."""
    name = site.names[1]
    site.ssh(name, made(GOOD))
    yield name
    step(site, name, "gpu-cdi.sh", "remove").check_returncode()
    assert site.ssh(name, f"{made(None)}ls -d {SPEC} /var/run/cdi 2>/dev/null || true") == ""
    assert site.traces(name) == untouched_agent


def written(site: LocalSite, host: str) -> str:
    return site.ssh(host, f"stat -c %y {SPEC} 2>/dev/null; cat {SPEC} 2>/dev/null || true")


def test_the_specification_is_written_now_at_boot_and_after_a_change(site: LocalSite, agent: str) -> None:
    assert step(site, agent, "gpu.sh", **WANTED).stdout == FACTS + "\n"
    done = step(site, agent, "gpu-cdi.sh", FACTS=FACTS)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["nvidia.com/gpu=0", "nvidia.com/gpu=1", "nvidia.com/gpu=all"]
    shown = site.ssh(
        agent, f"stat -c '%a %U' {UNITS} {SPEC} /run/cdi; systemctl is-enabled {OURS}.{{service,path}}"
    )
    assert shown.splitlines() == [*["644 root"] * 3, "755 root", "enabled", "enabled"]
    first = written(site, agent)
    assert f".so.{DRIVER}" in first

    again = step(site, agent, "gpu-cdi.sh", FACTS=FACTS)
    assert (again.returncode, again.stderr) == (0, "")
    assert written(site, agent) == first

    site.ssh(agent, f"echo 560.35.03 >/opt/fake/driver; echo new >{MODULES}")
    until(lambda: ".so.560.35.03" in written(site, agent), lambda: written(site, agent))
    site.ssh(agent, f"echo 565.57.01 >/opt/fake/driver; {installed('nvidia-ctk', toolkit('1.17.9'))}")
    until(lambda: ".so.565.57.01" in written(site, agent), lambda: written(site, agent))

    site.localhosts("stop", agent)
    site.localhosts("start", agent)
    until(
        lambda: ".so.565.57.01" in written(site, agent), lambda: site.ssh(agent, f"systemctl status {OURS}")
    )


def test_what_was_there_before_comes_back(site: LocalSite, agent: str) -> None:
    site.ssh(
        agent, f"mkdir /etc/cdi /run/cdi; echo 'kind: a.example/x' >/etc/cdi/owner.yaml; echo own >{SPEC}"
    )
    done = step(site, agent, "gpu-cdi.sh", FACTS=FACTS)
    assert done.returncode == 0, done.stderr
    assert f".so.{DRIVER}" in written(site, agent)
    step(site, agent, "gpu-cdi.sh", "remove").check_returncode()
    shown = site.ssh(agent, f"cat {SPEC} /etc/cdi/owner.yaml; ls -d /run/edge*; rm -r /etc/cdi /run/cdi")
    assert shown == "own\nkind: a.example/x\n"


NVML = "failed to generate CDI spec: failed to create device CDI specs: "
NVML += "failed to initialize NVML: ERROR_LIBRARY_NOT_FOUND"


@pytest.mark.parametrize(
    ("program", "driver", "message"),
    [
        (toolkit("1.17.8", failure=NVML), DRIVER, f"no CDI specification, nvidia-ctk says '{NVML}': run"),
        (toolkit("1.17.8", gpus=1), DRIVER, f"CDI describes 1 of 2 GPUs after {OURS}.service ran: run"),
        (toolkit("1.17.8"), "535.183.01", f"the CDI specification {SPEC} is not of driver {DRIVER}: run"),
    ],
)
def test_no_whole_specification_is_an_error_and_nothing_stays(
    site: LocalSite, agent: str, program: str, driver: str, message: str
) -> None:
    first = f"{installed('nvidia-ctk', program)}; echo {driver} >/opt/fake/driver\n"
    done = step(site, agent, "gpu-cdi.sh", first=first, FACTS=FACTS)
    print(done.stderr)
    assert done.returncode == 1
    assert f"error: host {agent}: {NAMED}{message}" in done.stderr
    assert "then run up again" in done.stderr
    assert site.ssh(agent, f"ls {UNITS} 2>/dev/null || true") == ""


# The template of containerd's configuration.


LINE = 'plugins."io.containerd.grpc.v1.cri".enable_cdi = true # edge-inference'
FILE = "/run/template/config.toml.tmpl"
THRICE = """
template=/run/template/config.toml.tmpl
try() {
    if cdi_template; then echo changed; else echo same; fi
    cat "$template" 2>/dev/null || true
}
try
try
CDI=off
try
"""


@pytest.mark.parametrize(
    ("version", "own", "wanted"),
    [
        ("v1.7.15-k3s1", "", f'{LINE}\n{{{{ template "base" . }}}} # edge-inference\n'),
        ("v1.7.15-k3s1", "own\n", f"{LINE}\nown\n"),
        ("v1.7.15-k3s1", "own\nenable_cdi = true\n", "own\nenable_cdi = true\n"),
        ("v2.0.4-k3s2", "", ""),
        ("v2.0.4-k3s2", "own\n", "own\n"),
    ],
)
def test_containerds_template_has_cdi_on_and_what_the_owner_wrote(
    site: LocalSite, version: str, own: str, wanted: str
) -> None:
    """The step's own function, twice with CDI on, then off; `k3s ctr help` is a stub's."""
    done = step(site, site.names[1], "k3s.sh", "none", first=_template(version, own), more=THRICE, **NODE)
    assert done.returncode == 0, done.stderr
    changed = "changed" if wanted != own else "same"
    assert done.stdout == f"{changed}\n{wanted}same\n{wanted}{changed}\n{own}"


def test_a_template_that_has_cdi_off_is_an_error(site: LocalSite, untouched_agent: list[str]) -> None:
    agent = site.names[1]
    first = _template("v1.7.15-k3s1", "own\nenable_cdi = false\n")
    done = step(site, agent, "k3s.sh", "none", first=first, more=THRICE, **NODE)
    assert (done.returncode, done.stdout) == (1, "")
    assert (
        f"error: host {agent}: {FILE} has an enable_cdi that is not true, and hosts[].gpu is" in done.stderr
    )
    assert site.ssh(agent, f"cat {FILE}; rm -r {FILE} /usr/local/bin/k3s") == "own\nenable_cdi = false\n"
    assert site.traces(agent) == untouched_agent


NODE = {"ROLE": "agent", "CDI": "on", "PROFILE": "standard", "ENCRYPT": "off"}


def _template(version: str, own: str) -> str:
    stub = says(f"VERSION:\n   {version}")
    write = f"printf %s {shlex.quote(own)} >{FILE}" if own else ":"
    place = f"rm -rf /run/template; mkdir /run/template; {write}"
    return f"{place}\nprintf %s {shlex.quote(stub)} >/usr/local/bin/k3s; chmod 755 /usr/local/bin/k3s\n"


# A cluster of one, through the engine.


@pytest.fixture(scope="module")
def server(site: LocalSite) -> str:
    """A host with GPUs and no software for them, and a template of its owner's."""
    name = site.names[0]
    site.ssh(name, made(BARE))
    mine = '{{ template "base" . }}\n# mine\n'
    site.on_host(name, f"mkdir -p {TEMPLATE.rpartition('/')[0]}; cat >{TEMPLATE}", mine)
    return name


@pytest.fixture(scope="module")
def before(site: LocalSite, server: str) -> dict[str, list[str]]:
    site.ssh(site.names[1], made(None))
    return {host: site.traces(host) for host in site.names}


@pytest.fixture(scope="module")
def manifest(site: LocalSite, packages: dict[str, Path]) -> dict[str, Any]:
    """The setting `artifacts`: the checkout's and the packages."""
    content = json.loads((CHECKOUT / ".artifacts/manifest.json").read_text())
    for entry in content["artifacts"].values():
        entry["source"] = str(CHECKOUT / ".artifacts" / entry["source"])
    for file in packages.values():
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        content["artifacts"][file.stem] = {"version": "1.0", "source": str(file), "sha256": sha256}
    path = site.folder / "packages.json"
    path.write_text(json.dumps(content))
    return {"manifest": str(path)}


def configure(site: LocalSite, manifest: dict[str, Any], *names: str) -> None:
    """The server alone, with two GPUs and these packages."""
    site.configure()
    site.configure(
        services=[],
        artifacts=manifest,
        nvidia={"packages": list(names)},
        cluster={"disable": ["traefik", "local-storage", "metrics-server", "coredns", "servicelb"]},
        hosts=[hosts(site)[0] | {"gpu": 2}],
    )


def up(site: LocalSite) -> str:
    done = site.pulumi("up", "--yes", "--skip-preview")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_packages_that_are_not_enough_end_before_k3s(
    site: LocalSite, manifest: dict[str, Any], server: str, before: dict[str, list[str]]
) -> None:
    configure(site, manifest, "fake-toolkit")
    text = refused(site, limit_s=120)
    assert f"error: host {server}: " in text
    assert NAMED + "nvidia-smi not found, want it beside driver 550.90.07" in text
    # WasmEdge goes its own way beside the packages; K3s waits for both.
    assert "k3s" not in site.ssh(server, "ls /usr/local/bin").split()


def test_packages_make_the_host_whole(site: LocalSite, manifest: dict[str, Any], server: str) -> None:
    """Their toolkit brings NVIDIA's units, which are used; ours are not installed."""
    configure(site, manifest, "fake-smi", "fake-toolkit")
    up(site)
    has = json.loads(site.output("gpus")[server])
    assert (has["driver"], has["toolkit"], len(has["gpus"])) == (DRIVER, "1.18.0", 2)
    assert f".so.{DRIVER}" in written(site, server)
    assert site.ssh(server, f"ls {UNITS} 2>/dev/null || true") == ""
    # The owner's template stays below our line, and containerd runs with it.
    assert site.ssh(server, f"cat {TEMPLATE}") == (
        'plugins."io.containerd.grpc.v1.cri".enable_cdi = true # edge-inference\n'
        '{{ template "base" . }}\n# mine\n'
    )
    assert "enable_cdi = true" in site.ssh(server, f"cat {TEMPLATE.removesuffix('.tmpl')}")


def test_a_host_that_is_whole_says_what_it_has_and_is_left_as_it_was(
    site: LocalSite, manifest: dict[str, Any], server: str, before: dict[str, list[str]]
) -> None:
    configure(site, manifest)
    own = [
        installed("nvidia-smi", says(smi(DRIVER, FIRST, SECOND))),
        installed("nvidia-ctk", toolkit("1.17.8")),
    ]
    site.ssh(server, f"dpkg --purge fake-smi fake-toolkit >&2; rm -r /run/cdi; {'; '.join(own)}")
    up(site)
    has = json.loads(site.output("gpus")[server])
    assert (has["driver"], has["toolkit"]) == (DRIVER, "1.17.8")
    assert has["gpus"] == GPUS
    assert f".so.{DRIVER}" in written(site, server)
    assert site.ssh(server, f"systemctl is-active {OURS}.path") == "active\n"
    again = site.pulumi("preview", "--expect-no-changes")
    assert again.returncode == 0, again.stdout
    gone = site.pulumi("destroy", "--yes", "--skip-preview")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert site.ssh(server, f"ls -d {SPEC} /var/run/cdi 2>/dev/null || true") == ""
    assert site.ssh(server, f"cat {TEMPLATE}") == '{{ template "base" . }}\n# mine\n'
    untouched(site, before)
    assert "fake" not in site.ssh(server, "dpkg-query -W -f '${Package}\n'")
