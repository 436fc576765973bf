"""Run a real Slurm on this machine, on loopback, with all its state in one folder.

    python tests/slurm/cluster.py up FOLDER [--accounting]
    python tests/slurm/cluster.py down FOLDER
    python tests/slurm/cluster.py why-not

The cluster has six nodes, five of them with fake GPUs. It uses neither systemd nor cgroups, and
stops only processes that it started. It needs root and Debian's packages munge, slurm-wlm and
slurm-client. Accounting also needs slurmdbd and mariadb-server.
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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

# srun inside a job reads only this file, because the job-step plugin removes SLURM_CONF
LINK = Path("/etc/slurm/slurm.conf")
FIRST_LINE = "# of a cluster that tests started"  # of its slurm.conf
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch")
ACCOUNTING_PROGRAMS = ("slurmdbd", "mariadbd")
GPU_NODES = ("g1", "g2", "g3", "g4", "g5")
NODES = (*GPU_NODES, "c1")
PARTITIONS = {
    "gpu": "Nodes=g1,g2",
    "frail": "Nodes=g3,g4",  # tests may stop these nodes
    "low": "Nodes=g5",
    "urgent": "Nodes=g5 PriorityTier=9",  # its jobs preempt those of low
    "cpu": "Nodes=c1",
}
# Resources of a node in slurm.conf, memory in MB. The machine may have less, because most jobs of
# tests only wait.
GPUS = 8
CPUS = 16
MEMORY = 64_000
PATH = os.pathsep.join(["/usr/sbin", "/sbin", os.environ["PATH"]])


def missing_requirements(accounting: bool = False) -> str:
    """Explain why this machine cannot run a cluster; empty if it can."""
    programs = PROGRAMS + ACCOUNTING_PROGRAMS if accounting else PROGRAMS
    missing = [program for program in programs if shutil.which(program, path=PATH) is None]
    reasons = []
    if missing:
        reasons.append(f"Slurm is not installed ({', '.join(missing)})")
    if os.geteuid():
        reasons.append("the user is not root")
    if LINK.exists() and not _is_of_tests(LINK):
        reasons.append(f"{LINK} belongs to another cluster")
    elif LINK.exists() and _has_controller(LINK.resolve().parent):
        reasons.append(
            "tests that were killed left their cluster: kill the processes in "
            f"{LINK.resolve().parent}/*.pid, and remove {LINK}"
        )
    return " and ".join(reasons)


def _is_of_tests(configuration: Path) -> bool:
    """Return whether a `slurm.conf` is that of a cluster that tests started."""
    return configuration.read_text(encoding="utf-8").startswith(FIRST_LINE)


def _has_controller(folder: Path) -> bool:
    """Return whether the slurmctld of a cluster that tests started is still at work."""
    try:
        os.kill(int((folder / "slurmctld.pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


class Job(NamedTuple):
    """A queued or running job. Snakemake writes the rule and the wildcards to its comment."""

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
        folder: has the state.
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

    def start(self) -> None:
        """Start all daemons, and wait until every node is idle."""
        self._configure()
        self._start_munge()
        if self.accounting:
            self._start_accounting()
        LINK.parent.mkdir(exist_ok=True)
        LINK.unlink(missing_ok=True)
        LINK.symlink_to(self.folder / "slurm.conf")
        configuration = str(self.folder / "slurm.conf")
        self._start_daemon("slurmctld", "-D", "-f", configuration)
        wait("the start of slurmctld", lambda: "UP" in self.output("scontrol", "ping"))
        for node in NODES:
            (self.folder / "spool" / node).mkdir(parents=True, exist_ok=True)
            arguments = ("-D", "-N", node, "-f", configuration)
            self._start_daemon("slurmd", *arguments, name=f"slurmd.{node}")
        wait("the start of all nodes", lambda: set(self._node_states()) == {"idle"})

    def _node_states(self) -> list[str]:
        """Return the state of each node."""
        return self.output("sinfo", "-h", "-N", "-o", "%T").split()

    def _start_munge(self) -> None:
        """Start munged, with which the daemons authenticate each other."""
        folder = self.folder / "munge"
        socket_path = str(self.folder / "munge.sock")
        self._start_daemon(
            "munged",
            "-F",
            "--force",
            f"--key-file={folder / 'key'}",
            f"--socket={socket_path}",
            f"--pid-file={folder / 'pid'}",
            f"--log-file={folder / 'log'}",
            f"--seed-file={folder / 'seed'}",
        )

        def is_ready() -> bool:
            return self.output("munge", "-n", "-S", socket_path).startswith("MUNGE:")

        wait("the start of munged", is_ready)

    def stop(self) -> None:
        """Cancel all jobs, and stop the daemons in reverse order of their starts."""
        self.output("scancel", "-u", "root")
        wait("the end of all jobs", lambda: not self.output("squeue", "-h"), 60)
        pid_files = sorted(self.folder.glob("*.pid"), key=lambda path: path.stat().st_mtime_ns)
        for pid_file in reversed(pid_files):
            self._stop_daemon(pid_file.stem)
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
        table = self.output("squeue", "-h", "-o", "%i|%T|%Z|%P|%N|%b|%k")
        jobs = [Job(*line.split("|")) for line in table.splitlines()]
        return [job for job in jobs if job.state not in ("COMPLETING", "COMPLETED")]

    def kill_node(self, node: str) -> None:
        """Kill the daemon of a node and all processes of its jobs, as a power failure does."""
        numbers = {job.number for job in self.jobs() if job.node == node}
        self._stop_daemon(f"slurmd.{node}", signal.SIGKILL)
        # first the daemons of job steps, which would report the end of the other processes
        prefixes = tuple(f"slurmstepd: [{number}." for number in numbers)
        self._kill_processes("cmdline", lambda text: text.startswith(prefixes))
        variables = {f"SLURM_JOB_ID={number}" for number in numbers}
        self._kill_processes("environ", lambda text: not variables.isdisjoint(text.split("\0")))

    def _kill_processes(self, file: str, is_wanted: Callable[[str], bool]) -> None:
        """Kill all processes whose file in /proc has a wanted text."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                text = (process / file).read_text(errors="replace")
            except OSError:  # the process has ended
                continue
            if is_wanted(text):
                os.kill(int(process.name), signal.SIGKILL)

    def _stop_daemon(self, name: str, signal_number: int = signal.SIGTERM) -> None:
        """Stop a daemon that this cluster started, if the recorded process is still that daemon."""
        pid_file = self.folder / f"{name}.pid"
        pid = int(pid_file.read_text())
        if self._is_running(name):
            os.kill(pid, signal_number)
            deadline = time.monotonic() + 20
            while self._is_running(name):
                if time.monotonic() > deadline:
                    os.kill(pid, signal.SIGKILL)
                time.sleep(0.05)
        pid_file.unlink()

    def _is_running(self, name: str) -> bool:
        """Check whether the recorded process is still the daemon. A zombie has no executable."""
        try:
            pid = int((self.folder / f"{name}.pid").read_text())
            executable = Path(f"/proc/{pid}/exe").readlink()
        except OSError:
            return False
        return name.partition(".")[0] in executable.name

    def _start_daemon(self, program: str, *arguments: str, name: str = "") -> None:
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
        for name in ("munge", "spool", "state", "dev"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "munge").chmod(0o700)
        key = self.folder / "munge" / "key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        for number in range(GPUS):
            # Slurm requires character devices, so these are copies of /dev/null.
            device = self.folder / "dev" / f"gpu{number}"
            os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        controller_port, database_port, *node_ports = _free_ports(2 + len(NODES))
        host = socket.gethostname().partition(".")[0]
        self._write_slurm_conf(host, controller_port, database_port, node_ports)
        self._write_slurmdbd_conf(host, database_port)
        (self.folder / "gres.conf").write_text(
            f"NodeName={','.join(GPU_NODES)} Name=gpu File={self.folder}/dev/gpu[0-{GPUS - 1}]\n"
        )
        (self.folder / "cgroup.conf").write_text(
            "CgroupPlugin=cgroup/v1\nConstrainCores=no\nConstrainRAMSpace=no\nConstrainDevices=no\n"
        )

    def _common_lines(self) -> str:
        """Return the lines that slurm.conf and slurmdbd.conf share."""
        return f"AuthType=auth/munge\nAuthInfo=socket={self.folder}/munge.sock\nSlurmUser=root\n"

    def _write_slurm_conf(
        self, host: str, controller_port: int, database_port: int, node_ports: Sequence[int]
    ) -> None:
        """Write the configuration of the controller and the nodes."""
        storage = "AccountingStorageType=accounting_storage/none\n"
        if self.accounting:
            storage = f"""AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={database_port}
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
        (self.folder / "slurm.conf").write_text(f"""{FIRST_LINE}
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
SlurmdUser=root
{self._common_lines()}CredType=cred/munge
SlurmctldPort={controller_port}
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

    def _write_slurmdbd_conf(self, host: str, port: int) -> None:
        """Write the configuration of the accounting daemon, which only its user may read."""
        path = self.folder / "slurmdbd.conf"
        path.write_text(f"""{self._common_lines()}DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={port}
CommunicationParameters=NoInAddrAny
PidFile={self.folder}/state/slurmdbd
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=lab
StorageLoc=accounts
""")
        path.chmod(0o600)

    def _start_accounting(self) -> None:
        """Start MariaDB and slurmdbd, and create an account for root."""
        data = self.folder / "mysql"
        socket_option = f"--socket={self.folder}/mysql.sock"
        if not data.exists():
            command = [
                "mariadb-install-db",
                "--no-defaults",
                "--user=root",
                f"--datadir={data}",
                "--skip-test-db",
                "--auth-root-authentication-method=normal",
            ]
            subprocess.run(command, env=self.env, check=True, capture_output=True)
        self._start_daemon(
            "mariadbd",
            "--no-defaults",
            "--user=root",
            f"--datadir={data}",
            socket_option,
            "--skip-networking",
            "--innodb-buffer-pool-size=64M",
        )
        options = ("--no-defaults", socket_option, "-uroot")
        wait(
            "the start of mariadbd",
            lambda: "alive" in self.output("mariadb-admin", *options, "ping"),
        )
        statements = (
            "CREATE DATABASE IF NOT EXISTS accounts; "
            "CREATE USER IF NOT EXISTS slurm@localhost IDENTIFIED BY 'lab'; "
            "GRANT ALL ON accounts.* TO slurm@localhost;"
        )
        self.output("mariadb", *options, "-e", statements)
        self._start_daemon("slurmdbd", "-D")
        wait(
            "the start of slurmdbd",
            lambda: "root" in self.output("sacctmgr", "-n", "list", "user"),
        )
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

    Args:
        event: its name, for the error message.
        is_ready: returns a true value after the event.
        seconds: longest time to wait.
        every: seconds between two calls of `is_ready`.

    Raises:
        TimeoutError: the event did not happen in time.
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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("up", "down"):
        commands.add_parser(name).add_argument("folder", type=Path)
    commands.choices["up"].add_argument("--accounting", action="store_true")
    commands.add_parser(
        "why-not", help="explain why this machine cannot run a cluster; empty if it can"
    )
    arguments = parser.parse_args()
    if arguments.command == "why-not":
        print(missing_requirements())
    elif arguments.command == "down":
        Cluster(arguments.folder.absolute()).stop()
    else:
        reason = missing_requirements(arguments.accounting)
        if reason:
            sys.exit(f"This machine cannot run a cluster: {reason}.")
        Cluster(arguments.folder.absolute(), arguments.accounting).start()


if __name__ == "__main__":
    main()
