"""The start of several processes as one run: whether there is a cluster, and JAX's own way into it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import jax

from moejax.types import UserError

TPU = ("/dev/accel0", "/dev/vfio/0")  # the first chip of a Cloud TPU machine


@dataclass(frozen=True)
class Cluster:
    """How this process finds the others. Names and meanings are those of jax.distributed.initialize."""

    dist: Literal["auto", "off", "on"] = "auto"
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    initialization_timeout: int = 300
    heartbeat_timeout_seconds: int = 100


def found(cluster: Cluster, environ: Mapping[str, str] = os.environ) -> str | None:
    """What says that this process is one of several, in words; None: it is alone.

    Looked at are flags, variables, and on a machine with TPU chips libtpu; nothing is asked over the network.
    """
    if cluster.dist == "off":
        return None
    named = (cluster.coordinator_address, cluster.num_processes, cluster.process_id)
    if cluster.dist == "on" or named != (None, None, None):
        return "the command line"
    if "JAX_COORDINATOR_ADDRESS" in environ:
        return "JAX_COORDINATOR_ADDRESS"
    if {"SLURM_JOB_ID", "SLURM_STEP_NODELIST", "SLURM_PROCID"} <= environ.keys():
        return "SLURM" if environ.get("SLURM_NTASKS", "1") != "1" else None
    if "OMPI_MCA_orte_hnp_uri" in environ:
        return "Open MPI" if environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1" else None
    hosts = environ.get("TPU_PROCESS_ADDRESSES", environ.get("TPU_WORKER_HOSTNAMES"))
    if "MEGASCALE_COORDINATOR_ADDRESS" in environ or (hosts is not None and "," in hosts):
        return "a TPU slice"
    if hosts is None and _on_tpu() and "TPU_SKIP_MDS_QUERY" not in environ:
        return "a TPU machine"  # which its metadata may make one of several
    if {"KUBERNETES_SERVICE_HOST", "JOB_COMPLETION_INDEX"} <= environ.keys() and find_spec("kubernetes"):
        return "a Kubernetes job"
    return None


def start(cluster: Cluster, why: str) -> None:
    """Join the others, through jax.distributed.initialize. Raises UserError where it is not said how."""
    try:
        jax.distributed.initialize(
            cluster.coordinator_address,
            cluster.num_processes,
            cluster.process_id,
            initialization_timeout=cluster.initialization_timeout,
            heartbeat_timeout_seconds=cluster.heartbeat_timeout_seconds,
        )
    except ValueError as error:
        raise UserError(
            f"{why} asks for several processes, but JAX cannot tell how they meet ({error}): give "
            "--coordinator-address HOST:PORT, --num-processes N and --process-id P, or say --dist off"
        ) from error


def _on_tpu() -> bool:
    return find_spec("libtpu") is not None and any(Path(chip).exists() for chip in TPU)
