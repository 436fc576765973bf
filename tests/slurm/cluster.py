"""Run a real Slurm on this machine, on loopback, with all its state in one folder.

    python tests/slurm/cluster.py up FOLDER [--accounting]
    python tests/slurm/cluster.py down FOLDER
    python tests/slurm/cluster.py why-not

It has six nodes, five of them with fake GPUs, and uses no systemd and no cgroups. It stops only the
processes that it started. It needs root and Debian's packages munge, slurm-wlm and slurm-client,
and for accounting slurmdbd and mariadb-server.
"""

import argparse
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# srun inside a job reads only this file, because the job-step plugin removes SLURM_CONF
LINK = Path("/etc/slurm/slurm.conf")
DAEMONS = ("munged", "slurmctld", "slurmd")
ACCOUNTING = ("slurmdbd", "mariadbd")
GPU_NODES, GPUS = ("g1", "g2", "g3", "g4", "g5"), 8
NODES = (*GPU_NODES, "c1")
PARTITIONS = {
    "gpu": "Nodes=g1,g2",
    "frail": "Nodes=g3,g4",  # tests may stop these nodes
    "low": "Nodes=g5",
    "urgent": "Nodes=g5 PriorityTier=9",  # its jobs preempt those of low
    "cpu": "Nodes=c1",
}
# of a node, in the configuration: more than the machine has, because the jobs of tests mostly wait
CPUS, MEMORY = 16, 64_000
PATH = os.pathsep.join(["/usr/sbin", "/sbin", os.environ["PATH"]])


def missing(accounting: bool = False) -> str:
    """Explain why no cluster can run here; empty if one can."""
    programs = (*DAEMONS, "sbatch", *(ACCOUNTING if accounting else ()))
    reasons = []
    if absent := [program for program in programs if shutil.which(program, path=PATH) is None]:
        reasons.append(f"no Slurm here ({', '.join(absent)})")
    if os.geteuid():
        reasons.append("not root")
    if LINK.exists():
        reasons.append(f"{LINK} belongs to another cluster")
    return " and ".join(reasons)


class Job(NamedTuple):
    """A queued or running job; the comment has the rule and wildcards, from Snakemake."""

    number: str
    state: str
    folder: str
    partition: str
    node: str
    gres: str
    comment: str


class Cluster:
    """A cluster with its state in one folder.

    Attributes:
        folder: of its state.
        accounting: whether slurmdbd runs.
        env: environment of commands that use the cluster.
    """

    def __init__(self, folder: Path, accounting: bool = False) -> None:
        self.folder = folder
        self.accounting = accounting
        self._started: list[subprocess.Popen[bytes]] = []
        self.env = os.environ | {
            "PATH": PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(folder / "mysql.sock"),
        }

    def up(self) -> None:
        """Start all daemons, and wait until every node is idle."""
        self._configure()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        LINK.parent.mkdir(exist_ok=True)
        LINK.unlink(missing_ok=True)
        LINK.symlink_to(self.folder / "slurm.conf")
        self._start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        wait("slurmctld", lambda: "UP" in self.output("scontrol", "ping"))
        for node in NODES:
            (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
            configuration = str(self.folder / "slurm.conf")
            self._start("slurmd", "-D", "-N", node, "-f", configuration, name=f"slurmd.{node}")
        wait("all nodes", lambda: set(self._node_states()) == {"idle"})

    def _node_states(self) -> list[str]:
        """Return the state of each node."""
        return self.output("sinfo", "-h", "-N", "-o", "%T").split()

    def _start_munge(self) -> None:
        """Start munged, with which the daemons authenticate each other."""
        folder, socket_path = self.folder / "munge", str(self.folder / "munge.sock")
        self._start(
            "munged",
            "-F",
            "--force",
            f"--key-file={folder / 'key'}",
            f"--socket={socket_path}",
            f"--pid-file={folder / 'pid'}",
            f"--log-file={folder / 'log'}",
            f"--seed-file={folder / 'seed'}",
        )
        wait("munged", lambda: self.output("munge", "-n", "-S", socket_path).startswith("MUNGE:"))

    def down(self) -> None:
        """Cancel all jobs, and stop the daemons, the last one first."""
        self.output("scancel", "-u", "root")
        wait("the end of all jobs", lambda: not self.output("squeue", "-h"), 60)
        for record in sorted(self.folder.glob("*.pid"), key=lambda path: -path.stat().st_mtime_ns):
            self.stop(record.stem)
        for daemon in self._started:
            daemon.wait(20)
        if LINK.is_symlink() and LINK.readlink() == self.folder / "slurm.conf":
            LINK.unlink()

    def output(self, *command: str) -> str:
        """Return what a command prints; empty if it fails."""
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> list[Job]:
        """Return the queued and running jobs."""
        rows = [
            line.split("|")
            for line in self.output("squeue", "-h", "-o", "%i|%T|%Z|%P|%N|%b|%k").splitlines()
        ]
        return [Job(*row) for row in rows if row[1] not in ("COMPLETING", "COMPLETED")]

    def lose(self, node: str) -> None:
        """Kill the daemon of a node and all processes of its jobs, as a power failure does."""
        numbers = {job.number for job in self.jobs() if job.node == node}
        self.stop(f"slurmd.{node}", signal.SIGKILL)
        # first the daemons of job steps, which would report the end of the other processes
        self._kill_processes("cmdline", lambda text: text.startswith(_prefixes(numbers)))
        variables = {f"SLURM_JOB_ID={number}" for number in numbers}
        self._kill_processes("environ", lambda text: not variables.isdisjoint(text.split("\0")))

    def _kill_processes(self, file: str, is_wanted: Callable[[str], bool]) -> None:
        """Kill all processes whose file in /proc has the wanted text."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                text = (process / file).read_text(errors="replace")
            except OSError:  # the process has ended
                continue
            if is_wanted(text):
                os.kill(int(process.name), signal.SIGKILL)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Stop a daemon that this cluster started, if the recorded process is still that daemon."""
        record = self.folder / f"{name}.pid"
        pid = int(record.read_text())
        if self._is_running(name):
            os.kill(pid, number)
            deadline = time.monotonic() + 20
            while self._is_running(name):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        record.unlink()

    def _is_running(self, name: str) -> bool:
        """Answer whether the recorded process is still the daemon; a zombie has no executable."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            executable = Path(f"/proc/{pid}/exe").readlink()
        except OSError:
            return False
        return name.partition(".")[0] in executable.name

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        """Start a daemon in its own session, and record its process id."""
        name = name or program
        with (self.folder / f"{name}.out").open("a") as out:
            command = [str(shutil.which(program, path=PATH)), *arguments]
            daemon = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started.append(daemon)
        (self.folder / f"{name}.pid").write_text(str(daemon.pid))

    def _configure(self) -> None:
        """Write the files that the daemons read."""
        for part in ("munge", "spool", "state", "dev"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for number in range(
            GPUS
        ):  # Slurm wants character devices, so these are copies of /dev/null
            os.mknod(self.folder / "dev" / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        host = socket.gethostname().partition(".")[0]
        controller, database, *node_ports = _free_ports(2 + len(NODES))
        common = f"AuthType=auth/munge\nAuthInfo=socket={self.folder}/munge.sock\nSlurmUser=root\n"
        storage = "AccountingStorageType=accounting_storage/none\n"
        if self.accounting:
            storage = f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database}
AccountingStoragePass=socket={self.folder}/munge.sock
AccountingStoreFlags=job_comment
"""
        nodes = "\n".join(
            _node_line(node, host, port) for node, port in zip(NODES, node_ports, strict=True)
        )
        partitions = "\n".join(
            f"PartitionName={name} {options} MaxTime=1-0 DefaultTime=10 DefMemPerCPU=500"
            for name, options in PARTITIONS.items()
        )
        (self.folder / "slurm.conf").write_text(f"""ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmdUser=root
{common}CredType=cred/munge
SlurmctldPort={controller}
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool/%n
SlurmctldPidFile={self.folder}/state/slurmctld
SlurmdPidFile={self.folder}/state/slurmd.%n
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=2
JobAcctGatherParams=OverMemoryKill
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
PreemptType=preempt/partition_prio
PreemptMode=CANCEL
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=2,batch_sched_delay=0,sched_interval=2
SlurmdParameters=config_overrides
ReturnToService=2
JobRequeue=1
SlurmctldTimeout=30
SlurmdTimeout=10
KillWait=15
InactiveLimit=0
MinJobAge=300
EnforcePartLimits=ALL
MailProg=/bin/true
GresTypes=gpu
{storage}{nodes}
{partitions}
""")
        (self.folder / "gres.conf").write_text(
            f"NodeName={','.join(GPU_NODES)} Name=gpu File={self.folder}/dev/gpu[0-{GPUS - 1}]\n"
        )
        (self.folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n"
        )
        accounts = self.folder / "slurmdbd.conf"
        accounts.write_text(f"""{common}DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={database}
CommunicationParameters=NoInAddrAny
PidFile={self.folder}/state/slurmdbd
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=lab
StorageLoc=accounts
""")
        accounts.chmod(0o600)

    def _start_accounting(self) -> None:
        """Start MariaDB and slurmdbd, and create an account for root."""
        data, at = self.folder / "mysql", f"--socket={self.folder}/mysql.sock"
        if not data.exists():
            command = [
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                "--skip-test-db",
            ]
            subprocess.run(
                [*command, "--auth-root-authentication-method=normal"],
                env=self.env,
                check=True,
                capture_output=True,
            )
        self._start(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            at,
            "--skip-networking",
            "--innodb-buffer-pool-size=64M",
        )
        wait(
            "mariadbd",
            lambda: "alive" in self.output("mariadb-admin", "--no-defaults", at, "-uroot", "ping"),
        )
        statements = (
            "CREATE DATABASE IF NOT EXISTS accounts; "
            "CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'lab'; "
            "GRANT ALL ON accounts.* TO slurm@localhost;"
        )
        self.output(
            "mariadb",
            "--no-defaults",
            at,
            "-uroot",
            "-e",
            statements,
        )
        self._start("slurmdbd", "-D")
        wait("slurmdbd", lambda: "root" in self.output("sacctmgr", "-n", "list", "user"))
        for entity in (
            "cluster lab",
            "account lab Description=lab Organization=lab",
            "user root DefaultAccount=lab",
        ):
            self.output("sacctmgr", "-i", "add", *entity.split())


def wait(
    event: str, is_ready: Callable[[], object], seconds: float = 300, every: float = 0.1
) -> None:
    """Wait for an event.

    Raises:
        TimeoutError: it did not happen in time.
    """
    deadline = time.monotonic() + seconds
    while not is_ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{event} did not happen within {seconds} s")
        time.sleep(every)


def _free_ports(count: int) -> list[int]:
    """Find free ports on loopback."""
    sockets = [socket.socket() for _ in range(count)]
    for open_socket in sockets:
        open_socket.bind(("127.0.0.1", 0))
    ports = [int(open_socket.getsockname()[1]) for open_socket in sockets]
    for open_socket in sockets:
        open_socket.close()
    return ports


def _node_line(node: str, host: str, port: int) -> str:
    """Return the line of a node in slurm.conf."""
    gpus = f" Gres=gpu:{GPUS}" if node in GPU_NODES else ""
    return (
        f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={CPUS} "
        f"RealMemory={MEMORY}{gpus} State=UNKNOWN"
    )


def _prefixes(numbers: set[str]) -> tuple[str, ...]:
    """Return how the command lines of the daemons of job steps start."""
    return tuple(f"slurmstepd: [{number}." for number in numbers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down"):
        commands.add_parser(name).add_argument("folder", type=Path)
    commands.choices["up"].add_argument("--accounting", action="store_true")
    commands.add_parser("why-not", help="explain why no cluster can run here; empty if one can")
    arguments = parser.parse_args()
    if arguments.command == "why-not":
        print(missing())
    elif arguments.command == "down":
        Cluster(arguments.folder.absolute()).down()
    elif reason := missing(arguments.accounting):
        sys.exit(f"no cluster: {reason}")
    else:
        Cluster(arguments.folder.absolute(), arguments.accounting).up()
