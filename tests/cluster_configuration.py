"""How the daemons of the tests' cluster are configured: as a facility's, in small.

Two nodes, one of which tests may drain; limits, accounts and qualities of service; GPUs that are
only counted. Without cgroups, which containers rarely have: SLURM itself kills jobs for memory.
"""

from collections.abc import Mapping

from tests.cluster_machine import DATABASE, HOST, NODE, ROOT, USER, USERS

SPARE = "spare"
MUNGE_SOCKET = ROOT / "munge" / "socket"
DATABASE_SOCKET = DATABASE / "socket"

SSHD_OPTIONS = {
    "ListenAddress": HOST,
    "HostKey": f"{ROOT}/ssh/host_key",
    "AuthorizedKeysFile": f"{ROOT}/ssh/key.pub",
    "AllowUsers": USER,
    "PasswordAuthentication": "no",
    "KbdInteractiveAuthentication": "no",
    "UsePAM": "no",
    "UseDNS": "no",
    "PidFile": "none",
    "MaxStartups": "100",
    "MaxSessions": "100",
    "Subsystem": "sftp internal-sftp",
}

DATABASE_OPTIONS = (
    f"--datadir={DATABASE}",
    f"--socket={DATABASE_SOCKET}",
    f"--pid-file={DATABASE}/pid",
    "--user=mysql",
    "--skip-networking",
    # What SLURM asks for; and no disk is waited for, as nothing is to be kept.
    "--innodb-lock-wait-timeout=900",
    "--innodb-flush-log-at-trx-commit=0",
)

SLURMDBD_OPTIONS = {
    "DbdHost": NODE,
    "DbdAddr": HOST,
    "SlurmUser": "slurm",
    "AuthType": "auth/munge",
    "AuthInfo": f"socket={MUNGE_SOCKET}",
    "CommunicationParameters": "NoInAddrAny",
    "StorageType": "accounting_storage/mysql",
    "StorageHost": "localhost",
    "StorageUser": "slurm",
    "PidFile": f"{ROOT}/state/slurmdbd.pid",
}

_NODE = f"NodeAddr={HOST} NodeHostname={NODE} CPUs=16 RealMemory=20000"
SLURM_OPTIONS = {
    "ClusterName": "tests",
    "SlurmctldHost": f"{NODE}({HOST})",
    "SlurmUser": "slurm",
    # Listen on the address of the host's name only, not on all.
    "CommunicationParameters": "NoInAddrAny,NoCtldInAddrAny",
    "AuthInfo": f"socket={MUNGE_SOCKET}",
    "SlurmctldPidFile": f"{ROOT}/state/slurmctld.pid",
    "SlurmdPidFile": f"{ROOT}/spool/%n.pid",
    "StateSaveLocation": f"{ROOT}/state",
    "SlurmdSpoolDir": f"{ROOT}/spool/%n",
    "MailProg": "/bin/true",
    "ProctrackType": "proctrack/linuxproc",
    "TaskPlugin": "task/none",
    "MpiDefault": "none",
    # Jobs over their memory are looked for every second, and killed.
    "JobAcctGatherType": "jobacct_gather/linux",
    "JobAcctGatherFrequency": "task=1",
    "JobAcctGatherParams": "OverMemoryKill",
    "AccountingStorageType": "accounting_storage/slurmdbd",
    "AccountingStorageHost": HOST,
    "AccountingStoragePass": str(MUNGE_SOCKET),
    "AccountingStorageEnforce": "associations,limits,qos",
    "AccountingStoreFlags": "job_comment",
    "AccountingStorageTRES": "gres/gpu",
    "GresTypes": "gpu",
    "PreemptType": "preempt/qos",
    "PreemptMode": "REQUEUE",
    "PriorityType": "priority/multifactor",
    "PriorityWeightQOS": "1000",
    "SchedulerParameters": "sched_interval=1,batch_sched_delay=0,bf_interval=1",
    "SelectType": "select/cons_tres",
    "SelectTypeParameters": "CR_CPU_Memory",
    "MaxJobCount": "20000",
    "MaxArraySize": "1001",
    "MinJobAge": "300",
    "KillWait": "2",
    "ReturnToService": "2",
    # More processors and memory than there are.
    "SlurmdParameters": "config_overrides",
}
PARTITIONS = (
    f"main Nodes={NODE} Default=YES DefMemPerCPU=100",
    f"short Nodes={NODE} MaxTime=1 DefMemPerCPU=100",
    f"spare Nodes={SPARE} DefMemPerCPU=100",
)
# Any two devices will do: SLURM only counts them.
GPUS = ("/dev/null", "/dev/zero")

# By its name, what a job with this quality of service may. Whoever may do most is first: jobs that
# ask for none are of `normal`.
QUALITIES = {
    "urgent": ("Priority=1000", "Preempt=normal"),
    "two": ("MaxSubmitJobsPerUser=2",),
    "ten": ("MaxSubmitJobsPerUser=10",),
    "one-runs": ("MaxJobsPerUser=1",),
    "small": ("GrpTRES=cpu=2",),
}
# Accounts, with limits of each user in them.
ACCOUNTS = {"lab": (), "guests": ("MaxSubmitJobs=3",)}


def slurm_conf(ports: Mapping[str, int], options: Mapping[str, object]) -> str:
    """The text of slurm.conf, with options that are other than usual."""
    ours = {
        **SLURM_OPTIONS,
        "SlurmctldPort": ports["slurmctld"],
        "AccountingStoragePort": ports["slurmdbd"],
        **options,
    }
    nodes = [f"{name} {_NODE} Port={ports[of]}" for name, of in ((NODE, "slurmd"), (SPARE, SPARE))]
    nodes[1] += f" Gres=gpu:{len(GPUS)}"
    return (
        _lines(ours)
        + "".join(f"NodeName={node}\n" for node in nodes)
        + "".join(f"PartitionName={partition}\n" for partition in PARTITIONS)
    )


def slurmdbd_conf(ports: Mapping[str, int]) -> str:
    """The text of slurmdbd.conf."""
    return _lines({**SLURMDBD_OPTIONS, "DbdPort": ports["slurmdbd"]})


def sshd_config(ports: Mapping[str, int]) -> str:
    """The text of sshd_config."""
    return _lines({**SSHD_OPTIONS, "Port": ports["sshd"]}, separator=" ")


def gres_conf() -> str:
    """The text of gres.conf."""
    return "".join(f"NodeName={SPARE} Name=gpu File={gpu}\n" for gpu in GPUS)


def accounting_commands() -> list[list[tuple[str, ...]]]:
    """What `sacctmgr` is told when accounting is new, in steps: each needs those before it."""
    names = ",".join(("normal", *QUALITIES))
    qualities = [("add", "qos", name, *limits) for name, limits in QUALITIES.items()]
    accounts = [("add", "account", *ACCOUNTS, "Cluster=tests")]
    users = [
        ("add", "user", *USERS, f"Account={name}", f"QOS={names}", "DefaultQOS=normal", *limits)
        for name, limits in ACCOUNTS.items()
    ]
    return [[("add", "cluster", "tests")], qualities + accounts, *([user] for user in users)]


def _lines(options: Mapping[str, object], separator: str = "=") -> str:
    return "".join(f"{key}{separator}{value}\n" for key, value in options.items())
