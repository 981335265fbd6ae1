"""SLURM itself on this machine: a controller and two nodes, of Debian's slurm-wlm and munge, run as root."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from ports import free_ports

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")

# Both nodes are this machine, whatever it has; the second GPU that they declare is no device either.
_CONF = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CryptoType=crypto/munge
AuthInfo=socket={folder}/munge,cred_expire=10
SlurmctldPort={ports[0]}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=sched_interval=5,bf_interval=5
GresTypes=gpu
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=1 RealMemory=4000 Gres=gpu:1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=1 RealMemory=4000 Gres=gpu:1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A cluster of two nodes with a core and a declared GPU each.

    Attributes:
        environment: in which its commands and jobs find it.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir="/tmp", prefix="slurm-"))  # its sockets need a short path
        self.folder.chmod(0o755)
        self.environment = {**os.environ, "SLURM_CONF": str(self.folder / "slurm.conf")}
        self._pid_files: list[Path] = []

    def start(self) -> None:
        """Until both nodes are idle."""
        for name in ("state", "n1", "n2"):
            (self.folder / name).mkdir()
        (self.folder / "key").write_bytes(os.urandom(1024))
        (self.folder / "key").chmod(0o400)
        host = socket.gethostname().partition(".")[0]
        conf = _CONF.format(folder=self.folder, host=host, ports=free_ports(3))
        (self.folder / "slurm.conf").write_text(conf)
        (self.folder / "gres.conf").write_text("Name=gpu File=/dev/null\n")
        files = {"key-file": "key", "socket": "munge", "seed-file": "seed", "log-file": "munged.log"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self._start("munged.pid", "munged", *options, f"--pid-file={self.folder / 'munged.pid'}")
        self._start("slurmctld.pid", "slurmctld", "-c")
        for name in ("n1", "n2"):
            self._start(f"{name}.pid", "slurmd", "-N", name)
        self.wait_for(lambda: self.run("sinfo", "--noheader", "--format=%D %t") == "2 idle\n", 60)

    def _start(self, pid_file: str, *command: str) -> None:
        self.run(*command)
        self._pid_files.append(self.folder / pid_file)
        self.wait_for(self._pid_files[-1].exists, 20)

    def run(self, *command: str) -> str:
        """What a command printed.

        Raises:
            AssertionError: it failed.
        """
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def job(self, job_id: str) -> dict[str, str]:
        """What SLURM knows of a job."""
        shown = self.run("scontrol", "--oneliner", "show", "job", job_id)
        return dict(word.split("=", 1) for word in shown.split() if "=" in word)

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                logs = [f"== {log.name}\n{log.read_text()[-2000:]}" for log in self.folder.glob("*.log")]
                raise AssertionError("\n".join(["not in time", *logs]))
            time.sleep(0.5)

    def stop(self) -> None:
        """With all of its jobs."""
        subprocess.run(["scancel", "--user=root"], env=self.environment, check=False)
        for file in reversed(self._pid_files):
            pid = int(file.read_text())
            os.kill(pid, 15)
            self.wait_for(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 60)
        shutil.rmtree(self.folder)
