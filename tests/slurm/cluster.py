"""A real Slurm on this machine: munged, slurmctld and several slurmd, with or without slurmdbd, all on loopback and below one folder.

    python tests/slurm/cluster.py up FOLDER [--accounting]      python tests/slurm/cluster.py down FOLDER
    python tests/slurm/cluster.py why-not

Six nodes, five of them with pretend GPUs; no systemd, no cgroups. It stops only what it started. Root is needed, and
Debian's packages munge, slurm-wlm and slurm-client; for accounting slurmdbd and mariadb-server.
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

LINK = Path(
    "/etc/slurm/slurm.conf"
)  # a job's own srun looks nowhere else: the job-step plugin strips SLURM_CONF
DAEMONS = ("munged", "slurmctld", "slurmd")
ACCOUNTING = ("slurmdbd", "mariadbd")
GPU_NODES, GPUS = ("g1", "g2", "g3", "g4", "g5"), 8
NODES = (*GPU_NODES, "c1")
PARTITIONS = {
    "gpu": "Nodes=g1,g2",
    "frail": "Nodes=g3,g4",  # a test may take down its nodes
    "low": "Nodes=g5",
    "urgent": "Nodes=g5 PriorityTier=9",  # its jobs take the place of those in low
    "cpu": "Nodes=c1",
}
CPUS, MEMORY = (
    16,
    64_000,
)  # of a node, as it says of itself: more than there is, since jobs of tests wait most of their time
PATH = os.pathsep.join(["/usr/sbin", "/sbin", os.environ["PATH"]])


def missing(accounting: bool = False) -> str:
    """Why there can be no cluster here; empty if there can."""
    programs = (*DAEMONS, "sbatch", *(ACCOUNTING if accounting else ()))
    reasons = []
    if absent := [program for program in programs if shutil.which(program, path=PATH) is None]:
        reasons.append(f"no Slurm here ({', '.join(absent)})")
    if os.geteuid():
        reasons.append("not root")
    if LINK.exists():
        reasons.append(f"{LINK} is that of a cluster, and is left alone")
    return " and ".join(reasons)


class Job(NamedTuple):
    """A job that waits or runs, as squeue says it; the comment is Snakemake's: rule and wildcards."""

    number: str
    state: str
    folder: str
    partition: str
    node: str
    gres: str
    comment: str


class Cluster:
    """One cluster, whose state lies below a folder.

    Attributes:
        folder: of its state.
        accounting: whether slurmdbd runs.
        env: environment of commands that talk to it.
    """

    def __init__(self, folder: Path, accounting: bool = False) -> None:
        self.folder, self.accounting, self._started = (
            folder,
            accounting,
            list[subprocess.Popen[bytes]](),
        )
        self.env = os.environ | {
            "PATH": PATH,
            "SLURM_CONF": str(folder / "slurm.conf"),
            "MYSQL_UNIX_PORT": str(folder / "mysql.sock"),
        }

    def up(self) -> None:
        """Start everything, and wait until every node is idle."""
        self._configure()
        munge, socket_ = self.folder / "munge", self.folder / "munge.sock"
        self._start(
            "munged", "-F", "--force", f"--key-file={munge / 'key'}", f"--socket={socket_}", f"--pid-file={munge / 'pid'}",
            f"--log-file={munge / 'log'}", f"--seed-file={munge / 'seed'}",
        )  # fmt: skip
        wait("munged", lambda: self.say("munge", "-n", "-S", str(socket_)).startswith("MUNGE:"))
        if self.accounting:
            self._account()
        LINK.parent.mkdir(exist_ok=True)
        LINK.unlink(missing_ok=True)
        LINK.symlink_to(self.folder / "slurm.conf")
        self._start("slurmctld", "-D", "-f", str(self.folder / "slurm.conf"))
        wait("slurmctld", lambda: "UP" in self.say("scontrol", "ping"))
        for node in NODES:
            (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
            self._start(
                "slurmd",
                "-D",
                "-N",
                node,
                "-f",
                str(self.folder / "slurm.conf"),
                name=f"slurmd.{node}",
            )
        wait(
            "all nodes", lambda: set(self.say("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}
        )

    def down(self) -> None:
        """Cancel what runs, and stop what was started, the last first."""
        self.say("scancel", "-u", "root")
        wait("the end of all jobs", lambda: not self.say("squeue", "-h"), 60)
        for record in sorted(self.folder.glob("*.pid"), key=lambda path: -path.stat().st_mtime_ns):
            self.stop(record.stem)
        for daemon in self._started:
            daemon.wait(20)
        if LINK.is_symlink() and LINK.readlink() == self.folder / "slurm.conf":
            LINK.unlink()

    def say(self, *command: str) -> str:
        """What a command prints; empty if it fails."""
        done = subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=60, check=False
        )
        return done.stdout if done.returncode == 0 else ""

    def jobs(self) -> list[Job]:
        """Jobs that wait or run."""
        rows = [
            line.split("|")
            for line in self.say("squeue", "-h", "-o", "%i|%T|%Z|%P|%N|%b|%k").splitlines()
        ]
        return [Job(*row) for row in rows if row[1] not in ("COMPLETING", "COMPLETED")]

    def lose(self, node: str) -> None:
        """Kill a node's daemon and every process of its jobs, as if its power failed."""
        numbers = {job.number for job in self.jobs() if job.node == node}
        self.stop(f"slurmd.{node}", signal.SIGKILL)
        for sign in ("cmdline", "environ"):  # first those that would report the end of the others
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    text = (process / sign).read_text(errors="replace")
                except OSError:  # it ended meanwhile
                    continue
                if any(
                    text.startswith(f"slurmstepd: [{number}.")
                    or f"SLURM_JOB_ID={number}" in text.split("\0")
                    for number in numbers
                ):
                    os.kill(int(process.name), signal.SIGKILL)

    def stop(self, name: str, number: int = signal.SIGTERM) -> None:
        """Stop a daemon that this cluster started: by its record, and only if that process is the daemon."""
        record = self.folder / f"{name}.pid"
        pid = int(record.read_text())
        if self._lives(name):
            os.kill(pid, number)
            deadline = time.monotonic() + 20
            while self._lives(name):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        record.unlink()

    def _lives(self, name: str) -> bool:
        """Whether the recorded process is still the daemon: a zombie has no executable."""
        try:
            executable = Path(
                f"/proc/{int((self.folder / f'{name}.pid').read_text())}/exe"
            ).readlink()
        except OSError:
            return False
        return name.partition(".")[0] in executable.name

    def _start(self, program: str, *arguments: str, name: str = "") -> None:
        """Start a daemon in a session of its own, and record it."""
        name = name or program
        with (self.folder / f"{name}.out").open("a") as out:
            command = [str(shutil.which(program, path=PATH)), *arguments]
            running = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self._started.append(running)
        (self.folder / f"{name}.pid").write_text(str(running.pid))

    def _configure(self) -> None:
        """Write everything that the daemons read."""
        for part in ("munge", "spool", "state", "dev"):
            (self.folder / part).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for number in range(GPUS):  # a device must be a character device: these are /dev/null
            os.mknod(self.folder / "dev" / f"gpu{number}", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        ports = iter(_free_ports(2 + len(NODES)))
        host, controller, database = (
            socket.gethostname().partition(".")[0],
            next(ports),
            next(ports),
        )
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
            f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={next(ports)} CPUs={CPUS} RealMemory={MEMORY}"
            f"{f' Gres=gpu:{GPUS}' if node in GPU_NODES else ''} State=UNKNOWN"
            for node in NODES
        )
        partitions = "\n".join(
            f"PartitionName={name} {what} MaxTime=1-0 DefaultTime=10 DefMemPerCPU=500"
            for name, what in PARTITIONS.items()
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

    def _account(self) -> None:
        """Start MariaDB and slurmdbd, and give root an account."""
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
            lambda: "alive" in self.say("mariadb-admin", "--no-defaults", at, "-uroot", "ping"),
        )
        grant = "CREATE DATABASE IF NOT EXISTS accounts; CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'lab';"
        self.say(
            "mariadb",
            "--no-defaults",
            at,
            "-uroot",
            "-e",
            f"{grant} GRANT ALL ON accounts.* TO slurm@localhost;",
        )
        self._start("slurmdbd", "-D")
        wait("slurmdbd", lambda: "root" in self.say("sacctmgr", "-n", "list", "user"))
        for what in (
            "cluster lab",
            "account lab Description=lab Organization=lab",
            "user root DefaultAccount=lab",
        ):
            self.say("sacctmgr", "-i", "add", *what.split())


def wait(what: str, ready: Callable[[], object], seconds: float = 300, every: float = 0.1) -> None:
    """Wait for something, but not for ever.

    Raises:
        TimeoutError: it did not come.
    """
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not come within {seconds} s")
        time.sleep(every)


def _free_ports(count: int) -> list[int]:
    """Ports of loopback that nothing listens at."""
    held = [socket.socket() for _ in range(count)]
    for one in held:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in held]
    for one in held:
        one.close()
    return ports


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    whats = parser.add_subparsers(dest="what", required=True)
    for what in ("up", "down"):
        whats.add_parser(what).add_argument("folder", type=Path)
    whats.choices["up"].add_argument("--accounting", action="store_true")
    whats.add_parser("why-not", help="say why there can be no cluster here; nothing if there can")
    given = parser.parse_args()
    if given.what == "why-not":
        print(missing())
    elif given.what == "down":
        Cluster(given.folder.absolute()).down()
    elif reason := missing(given.accounting):
        sys.exit(f"no cluster: {reason}")
    else:
        Cluster(given.folder.absolute(), given.accounting).up()
