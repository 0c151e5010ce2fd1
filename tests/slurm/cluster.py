"""A Slurm cluster on this machine for as long as a test runs: munged, slurmctld and two slurmd.

Everything lies in one folder; no file of the system is touched. Debian's slurmd takes `-N NAME`
and may run twice on a host. There is no slurmdbd, hence no `sacct`: the plugin asks `squeue`.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import psutil

# Options of Snakemake for this cluster, which has no accounting and only short jobs.
OPTIONS = ["--profile", "workflow/profiles/slurm", "--nolock", "--slurm-status-command", "squeue"]
OPTIONS += ["--slurm-init-seconds-before-status-checks", "3"]
DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun")

# More processors and memory than the host may have: whether jobs wait is up to `--jobs`. A node
# that does not respond is down after 6 seconds, and its jobs start elsewhere 5 seconds later
# (`cred_expire`). A step that takes more memory than it asked for is killed within a second. Jobs
# that have ended are remembered for longer than a test runs.
SLURM_CONF = """\
ClusterName=stpm_bench
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
SlurmdTimeout=6
MinJobAge=7200
JobRequeue={requeue:d}
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill,UsePss
NodeName=node1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=16 RealMemory=64000
NodeName=node2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=16 RealMemory=64000
PartitionName=main Nodes=node1,node2 Default=YES State=UP
"""


def missing() -> str | None:
    """Return why no cluster can be started here, None where one can."""
    if os.geteuid() != 0:
        return "Slurm's daemons are started by root alone"
    absent = [name for name in DAEMONS if shutil.which(name) is None]
    if absent:
        return f"Slurm is not installed: no {', '.join(absent)} (apt install slurm-wlm munge)"
    return None


class Cluster:
    """A running cluster with the nodes `node1` and `node2`; a context manager.

    Args:
        folder: where everything of it lies.
        requeue: whether Slurm starts the jobs of a dead node again.

    Attributes:
        environment: of every command that is to find the cluster.
    """

    def __init__(self, folder: Path, requeue: bool = True) -> None:
        self.folder = folder
        self.conf = folder / "slurm.conf"
        commands = folder / "bin"
        self.environment = os.environ | {
            "SLURM_CONF": str(self.conf),
            "PATH": f"{commands}:{os.environ['PATH']}",
        }
        self.daemons: dict[str, subprocess.Popen] = {}
        for name in ("bin", "state", "node1", "node2"):
            (folder / name).mkdir()
        # The plugin's jobs drop SLURM_CONF; a cluster of the system has its file where srun looks.
        srun = commands / "srun"
        srun.write_text(f'#!/bin/sh\nSLURM_CONF={self.conf} exec {shutil.which("srun")} "$@"\n')
        srun.chmod(0o755)
        self.conf.write_text(
            SLURM_CONF.format(
                host=socket.gethostname(), folder=folder, ports=free_ports(3), requeue=requeue
            )
        )

    def __enter__(self) -> "Cluster":
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(1024))
        key.chmod(0o600)
        files = {"key-file": key} | {
            name: self.folder / f"munge.{name.partition('-')[0]}"
            for name in ("socket", "pid-file", "log-file", "seed-file")
        }
        options = [f"--{name}={path}" for name, path in files.items()]
        try:
            # A folder of pytest is its user's alone, as a key's should not need to be: hence force.
            self.start("munged", "--foreground", "--force", *options)
            wait_for(files["socket"].exists, 10, "munged's socket")
            self.start("slurmctld", "-D", "-f", str(self.conf))
            for node in ("node1", "node2"):
                self.start_node(node)
            wait_for(lambda: self.states() == {"node1": "idle", "node2": "idle"}, 60, "idle nodes")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        for node in ("node1", "node2"):
            self.kill_node(node)
        for daemon in self.daemons.values():
            daemon.kill()
            daemon.wait()

    def start(self, name: str, *options: str, key: str | None = None) -> None:
        """Start a daemon that stays a child of this process; its output goes to a file."""
        key = key or name
        with (self.folder / f"{key}.out").open("ab") as output:
            self.daemons[key] = subprocess.Popen(
                [name, *options], env=self.environment, stdout=output, stderr=subprocess.STDOUT
            )

    def start_node(self, node: str) -> None:
        self.start("slurmd", "-D", "-N", node, "-f", str(self.conf), key=node)

    def kill_node(self, node: str) -> None:
        """Kill a node as a power cut does: slurmd, its job steps and all that runs in them."""
        if node in self.daemons:
            self.daemons[node].kill()
            self.daemons[node].wait()
        while running := self.processes(node):
            # A slurmstepd leads the session of its jobs.
            sessions = {session_of(process) for process in running} - {None}
            for process in psutil.process_iter():
                if session_of(process) in sessions:
                    with contextlib.suppress(psutil.NoSuchProcess):
                        process.kill()
            time.sleep(0.1)

    def processes(self, node: str) -> list[psutil.Process]:
        """Return what the jobs on a node run."""
        ours = {"SLURM_CONF": str(self.conf), "SLURMD_NODENAME": node}
        return [
            process
            for process in psutil.process_iter(["environ", "cmdline"])
            if ours.items() <= (process.info["environ"] or {}).items()
        ]

    def states(self) -> dict[str, str]:
        """Return each node's state as sinfo spells it: idle, mixed, down."""
        lines = self.query("sinfo", "-N", "-h", "-o", "%N %T").split("\n")
        return dict(line.split() for line in lines if line)

    def jobs(self) -> list[dict[str, str]]:
        """Return the jobs that slurmctld remembers, as `scontrol show job` describes them."""
        lines = self.query("scontrol", "--oneliner", "show", "job").split("\n")
        jobs = [line.split() for line in lines if line.startswith("JobId=")]
        return [
            {key: value for key, _, value in (item.partition("=") for item in job)} for job in jobs
        ]

    def query(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True).stdout


def session_of(process: psutil.Process) -> int | None:
    """Return the session of a process, None of one that has ended."""
    try:
        return os.getsid(process.pid)
    except ProcessLookupError:
        return None


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def wait_for(condition, seconds: float, what: str) -> None:
    """Wait until `condition()` holds.

    Raises:
        TimeoutError: it did not within so many seconds.
    """
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"no {what} within {seconds} seconds")
        time.sleep(0.2)
