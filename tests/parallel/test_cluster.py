"""Where a cluster is found, and where a process is alone."""

import pytest

from moejax.commands.processes import apart
from moejax.parallel import cluster
from moejax.parallel.cluster import Cluster, found, start
from moejax.types import UserError

SLURM = {"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
MPI = {"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1"}
JOB = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}


@pytest.mark.parametrize(
    ("environ", "why"),
    [
        ({}, None),
        ({"JAX_COORDINATOR_ADDRESS": "a:1"}, "JAX_COORDINATOR_ADDRESS"),
        (SLURM, None),  # one task: an interactive shell, or a job of one process
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        (SLURM | {"SLURM_NTASKS": "2"}, "SLURM"),
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2"}, None),  # in a batch script, not within srun
        (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        (MPI | {"OMPI_COMM_WORLD_SIZE": "4"}, "Open MPI"),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "a TPU slice"),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_COORDINATOR_ADDRESS": "a"}, "a TPU slice"),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),
        (JOB, "a Kubernetes job"),
    ],
)
def test_auto_finds_a_cluster_by_what_it_sets(environ, why, monkeypatch):
    monkeypatch.setattr(cluster, "find_spec", lambda name: name == "kubernetes" or None)
    assert found(Cluster(), environ) == why
    assert found(Cluster("off"), environ) is None
    assert found(Cluster("on"), environ) == "the command line"
    assert found(Cluster(num_processes=2), environ) == "the command line"


def test_a_machine_with_chips_asks_jax(monkeypatch, tmp_path):
    (chip := tmp_path / "accel0").touch()
    monkeypatch.setattr(cluster, "find_spec", lambda name: True)
    monkeypatch.setattr(cluster, "TPU", (str(chip),))
    assert found(Cluster(), {}) == "a TPU machine"
    assert found(Cluster(), {"TPU_SKIP_MDS_QUERY": "1"}) is None
    assert found(Cluster(), {"TPU_WORKER_HOSTNAMES": "localhost"}) is None
    monkeypatch.setattr(cluster, "TPU", (str(tmp_path / "accel1"),))
    assert found(Cluster(), {}) is None


def test_on_without_a_cluster_says_what_to_give(monkeypatch):
    def refuse(*args, **options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr("jax.distributed.initialize", refuse)
    with pytest.raises(
        UserError, match=r"the command line asks .* \(coordinator_address should .*--dist off"
    ):
        start(Cluster("on"), "the command line")


def test_flags_of_processes_go_apart_from_those_of_the_config():
    words = ["--config", "c.py", "--dist", "on", "--methods", "base", "arrow(k=2)", "--process-id=1", "-h"]
    assert apart(words) == (
        Cluster("on", process_id=1),
        ["--config", "c.py", "--methods", "base", "arrow(k=2)", "-h"],
    )
    flags = ["--coordinator-address", "a:1", "--num-processes", "2", "--heartbeat-timeout-seconds", "10"]
    assert apart(flags)[0] == Cluster("auto", "a:1", 2, heartbeat_timeout_seconds=10)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--dist", "yes"], "--dist: invalid choice: 'yes'"),
        (["--process-id", "one"], "--process-id: invalid int value: 'one'"),
        (["--process-id", "2", "--num-processes", "2"], "--process-id is 2: expected 0 to 1"),
    ],
)
def test_a_wrong_flag_is_named(words, sentence):
    with pytest.raises(UserError, match=sentence):
        apart(words)
