"""Two hosts that are reached over ssh: network, process and mount namespaces of this machine, each with an sshd.

They share the file system, as hosts with NFS homes do, but for /tmp/ray and /dev/shm. Their home is a folder of the test.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

NEEDED = ("unshare", "nsenter", "ip", "/usr/sbin/sshd", "ssh", "ssh-keygen", "rsync")

_INIT = """
import os, signal, subprocess, sys
# The first process of a host: reaps whatever is left behind, and ends with its sshd.
sshd = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: sshd.terminate())
while True:
    if os.wait()[0] == sshd.pid:
        break
"""


def missing() -> str:
    """What such hosts need and this machine lacks; empty if it has everything."""
    if os.geteuid() != 0:
        return "root"
    return ", ".join(name for name in NEEDED if shutil.which(name) is None)


@dataclass(frozen=True)
class Hosts:
    """Hosts, and where they can be reached from.

    Attributes:
        addresses: Their IPv4 addresses.
        key: The private key that their root takes.
        home: The home folder of root there.
        inside: The beginning of a command that is to run where the hosts can be reached.
    """

    addresses: Sequence[str]
    key: Path
    home: Path
    inside: Sequence[str]

    def ssh(self, address: str, command: str) -> str:
        """What a command prints on a host."""
        line = self._line(address, command)
        return subprocess.run(line, check=True, capture_output=True, text=True, timeout=60).stdout

    def start(self, address: str, command: str) -> subprocess.Popen[str]:
        """Start a command on a host; it ends with the host at the latest."""
        return subprocess.Popen(
            self._line(address, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def _line(self, address: str, command: str) -> list[str]:
        options = ["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
        return [*self.inside, "ssh", *options, "-i", str(self.key), f"root@{address}", command]


@contextmanager
def ssh_hosts(folder: Path, count: int = 2) -> Iterator[Hosts]:
    """Start hosts whose files lie in `folder`; everything on them ends with the context."""
    home, key = folder / "home", folder / "key"
    home.mkdir()
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", folder / "host_key"], check=True)
    _write_sshd_config(folder)
    passwd = [line for line in Path("/etc/passwd").read_text().splitlines() if not line.startswith("root:")]
    (folder / "passwd").write_text("\n".join([f"root:x:0:0:root:{home}:/bin/bash", *passwd, ""]))
    (folder / "init.py").write_text(_INIT)
    Path("/run/sshd").mkdir(exist_ok=True)
    with ExitStack() as started:
        network = started.enter_context(_process(["unshare", "--net", "sleep", "infinity"]))
        inside = ["nsenter", f"--net=/proc/{network}/ns/net"]
        _wait_for_namespace(network)
        for line in (
            "link set lo up",
            "link add br0 type bridge",
            "addr add 10.77.0.254/24 dev br0",
            "link set br0 up",
        ):
            subprocess.run([*inside, "ip", *line.split()], check=True)
        addresses = [f"10.77.0.{number}" for number in range(1, count + 1)]
        for number, address in enumerate(addresses, 1):
            started.enter_context(_host(folder, inside, number, address))
        hosts = Hosts(addresses, key, home, inside)
        for address in addresses:
            _wait_for_sshd(hosts, address)
        yield hosts


@contextmanager
def _host(folder: Path, inside: Sequence[str], number: int, address: str) -> Iterator[None]:
    """One host; its init is the first process of a PID namespace, with which all others in it end."""
    script = f"""
        set -e
        hostname host{number}
        mkdir -p /tmp/ray
        mount -t tmpfs tmpfs /tmp/ray
        mount -t tmpfs -o size=1g tmpfs /dev/shm
        mount --bind {folder}/passwd /etc/passwd
        exec python3 {folder}/init.py /usr/sbin/sshd -D -f {folder}/sshd_config -E {folder}/sshd{number}.log
    """
    flags = ["--net", "--uts", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    with _process([*inside, "unshare", *flags, "bash", "-c", script]) as outer:
        init = _child(outer)
        _wait_for_namespace(init)
        link = f"veth{number}"
        here = [*inside, "ip"]
        there = ["nsenter", f"--net=/proc/{init}/ns/net", "ip"]
        subprocess.run([*here, *f"link add {link} type veth peer name eth0 netns {init}".split()], check=True)
        subprocess.run([*here, *f"link set {link} master br0 up".split()], check=True)
        for line in ("link set lo up", f"addr add {address}/24 dev eth0", "link set eth0 up"):
            subprocess.run([*there, *line.split()], check=True)
        yield


@contextmanager
def _process(command: Sequence[str]) -> Iterator[int]:
    """A process that is killed at the end; what `unshare --kill-child` made of it goes with it."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def _child(pid: int) -> int:
    """The first child of a process, once it has one."""
    deadline = time.monotonic() + 30
    children = Path(f"/proc/{pid}/task/{pid}/children")
    while not (found := children.read_text().split()):
        assert time.monotonic() < deadline, f"process {pid} has started nothing"
        time.sleep(0.02)
    return int(found[0])


def _wait_for_namespace(pid: int) -> None:
    """Wait until a process is in a network namespace other than ours."""
    deadline = time.monotonic() + 30
    while os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net"):
        assert time.monotonic() < deadline, f"process {pid} is in no namespace"
        time.sleep(0.02)


def _wait_for_sshd(hosts: Hosts, address: str) -> None:
    deadline = time.monotonic() + 30
    while not _answers(hosts, address):
        assert time.monotonic() < deadline, f"no sshd answers at {address}"
        time.sleep(0.2)


def _answers(hosts: Hosts, address: str) -> bool:
    try:
        hosts.ssh(address, "true")
    except subprocess.CalledProcessError:
        return False
    return True


def _write_sshd_config(folder: Path) -> None:
    shutil.copyfile(folder / "key.pub", folder / "authorized_keys")
    (folder / "sshd_config").write_text(
        f"HostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "StrictModes no\n"
        "PidFile none\n"
        "UsePAM no\n"
        "MaxStartups 100\n"
    )
