"""A real SLURM with two nodes on one machine: each node is a set of namespaces (network, processes, host name, mounts).

The nodes share /tmp, as a shared file system; /var/tmp is each node's own. Nothing outlives the processes in the
namespaces: links, bridge and mounts are gone with them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter", "ip", "mknod")
_ADDRESSES = {"ctl": "10.77.0.1", "n1": "10.77.0.11", "n2": "10.77.0.12"}
SHARED = Path("/srv")
"""Below it lies what studies of tests need: launches from /tmp are refused, as nodes have one each elsewhere."""
_SETTLE_S = 60.0
"""How long SLURM may take for what takes it 2 s on an idle machine."""

_CONF = """\
ClusterName=lrs
SlurmctldHost=ctl({ctl})
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={base}/munge.socket
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool-%n
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd-%n.pid
SlurmctldParameters=idle_on_node_suspend
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
GresTypes=gpu
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SchedulerParameters=sched_min_interval=500000,bf_interval=2
SchedulerType=sched/backfill
KillWait=8
ReturnToService=2
MailProg=/bin/true
NodeName=n1 NodeAddr={n1} CPUs=8 RealMemory=16000 Gres=gpu:2
NodeName=n2 NodeAddr={n2} CPUs=8 RealMemory=16000 Gres=gpu:2
PartitionName=main Nodes=ALL Default=YES MaxTime=02:00:00 PriorityTier=1 GraceTime=20 OverSubscribe=NO
PartitionName=urgent Nodes=ALL MaxTime=01:00:00 PriorityTier=10 PreemptMode=OFF
"""


def missing() -> str:
    """What this machine lacks for the nodes, in words; empty if nothing."""
    if os.geteuid() != 0:
        return "it needs root for namespaces"
    if absent := [name for name in _PROGRAMS if not _found(name)]:
        return f"{', '.join(absent)}: not installed (apt-get install --no-install-recommends slurmctld slurmd slurm-client munge)"
    if not SHARED.is_dir():
        return f"there is no {SHARED} for what the nodes share"
    probe = ["unshare", "--net", "--pid", "--fork", "--uts", "--mount", "ip", "link", "add", "b0", "type", "bridge"]
    result = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"no namespaces with a bridge here: {result.stderr.strip()}" if result.returncode else ""


class SlurmNodes:
    """The running cluster: how to call its commands."""

    def __init__(self, base: Path, pids: Mapping[str, int]) -> None:
        self.base, self._pids = base, pids
        self.conf = base / "slurm.conf"

    def command(self, *arguments: str, host: str = "ctl") -> list[str]:
        """A command as it is started on one of the hosts: on `ctl`, the login node, or in all the namespaces of a node."""
        which = ["--net"] if host == "ctl" else ["--net", "--pid", "--uts", "--mount"]
        return ["nsenter", "--target", str(self._pids[host]), *which, "--", *arguments]

    def run(self, *arguments: str, host: str = "ctl", **variables: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "SLURM_CONF": str(self.conf), **variables}
        command = self.command(*arguments, host=host)
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)

    def state(self, job: str) -> str:
        """The state of a job, such as RUNNING; GONE when SLURM does not know it any more."""
        return self.fact(job, "JobState") or "GONE"

    def fact(self, job: str, key: str) -> str:
        """A field that ``scontrol show job`` prints; empty when there is none."""
        words = self.run("scontrol", "show", "job", "-o", job).stdout.split()
        return next((word.partition("=")[2] for word in words if word.startswith(f"{key}=")), "")

    def processes(self, host: str) -> list[str]:
        """The command lines of all processes on a node but the daemons and this question."""
        lines = self.run("ps", "-eo", "pid,args", "--no-headers", host=host).stdout.splitlines()
        ours = ("namespace_init", "slurmd ", "ps -eo")
        return [line.strip() for line in lines if not any(word in line for word in ours)]


@contextmanager
def slurm_nodes() -> Iterator[SlurmNodes]:
    """Two nodes, `n1` and `n2`, with 8 CPUs and two fake GPUs each, and the partitions `main` and `urgent`, which preempts."""
    with ExitStack() as stack:
        base = Path(tempfile.mkdtemp(prefix="lrs"))
        base.chmod(0o755)
        stack.callback(shutil.rmtree, base, ignore_errors=True)
        _configure(base)
        commands = {
            "ctl": [
                f"{_found('munged')} --foreground --force --socket={base}/munge.socket --key-file={base}/munge.key "
                f"--pid-file={base}/munge.pid --seed-file={base}/munge.seed --log-file={base}/munge.log",
                f"{_found('slurmctld')} -D",
            ],
            "n1": [f"{_found('slurmd')} -D -N n1"],
            "n2": [f"{_found('slurmd')} -D -N n2"],
        }
        machines = {name: stack.enter_context(_machine(name, base, commands[name])) for name in _ADDRESSES}
        pids = {name: _child(process.pid) for name, process in machines.items()}
        _connect(pids)
        for process in machines.values():
            assert process.stdin
            process.stdin.write("go\n")
            process.stdin.flush()
        nodes = SlurmNodes(base, pids)
        wait_until(lambda: nodes.run("sinfo", "-h", "-o", "%D %T", "-p", "main").stdout.split() == ["2", "idle"], nodes)
        yield nodes


def wait_until(is_true, nodes: SlurmNodes, limit_s: float = _SETTLE_S, logs: Sequence[Path] = ()) -> None:
    """Wait for a condition; after `limit_s`, fail with what the logs and SLURM say."""
    deadline = time.monotonic() + limit_s
    while not is_true():
        if time.monotonic() > deadline:
            texts = [
                f"{path}:\n{path.read_text()[-3000:]}"
                for path in (*logs, *sorted(nodes.base.glob("*-0.log")))
                if path.exists()
            ]
            raise AssertionError("\n".join([nodes.run("scontrol", "show", "job").stdout, *texts]))
        time.sleep(0.25)


def _found(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _configure(base: Path) -> None:
    (base / "state").mkdir()
    (base / "slurm.conf").write_text(_CONF.format(base=base, **_ADDRESSES))
    (base / "gres.conf").write_text(f"NodeName=n[1-2] Name=gpu File={base}/gpu[0-1]\n")
    (base / "munge.key").write_bytes(os.urandom(1024))
    (base / "munge.key").chmod(0o600)
    for number in range(2):
        subprocess.run(["mknod", base / f"gpu{number}", "c", "1", "3"], check=True)


@contextmanager
def _machine(name: str, base: Path, commands: list[str]) -> Iterator[subprocess.Popen[str]]:
    init = Path(__file__).with_name("namespace_init.py")
    command = [
        "unshare",
        "--net",
        "--pid",
        "--fork",
        "--uts",
        "--mount",
        "--kill-child",
        sys.executable,
        "-P",
        str(init),
    ]
    process = subprocess.Popen(
        [*command, name, str(base), *commands],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "SLURM_CONF": str(base / "slurm.conf")},
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        yield process
    finally:
        process.kill()  # and with it all that lives in its namespaces
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _connect(pids: Mapping[str, int]) -> None:
    """Join the hosts by a bridge on the login node."""

    def ip(host: str, *arguments: str) -> None:
        subprocess.run(["nsenter", "--target", str(pids[host]), "--net", "ip", *arguments], check=True)

    ip("ctl", "link", "add", "bridge", "type", "bridge")
    ip("ctl", "addr", "add", f"{_ADDRESSES['ctl']}/24", "dev", "bridge")
    ip("ctl", "link", "set", "bridge", "up")
    for name in ("n1", "n2"):
        ip("ctl", "link", "add", name, "type", "veth", "peer", "name", "eth0", "netns", str(pids[name]))
        ip("ctl", "link", "set", name, "master", "bridge", "up")
        ip(name, "addr", "add", f"{_ADDRESSES[name]}/24", "dev", "eth0")
        ip(name, "link", "set", "eth0", "up")
