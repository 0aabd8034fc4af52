"""XLA's flags for tests: their programs are tiny, and compiling them is most of what they do.

Measured: a training step compiles in a tenth of the time.
"""

from importlib.metadata import version

FLAGS = "--xla_cpu_parallel_codegen_split_count=1"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (
    0,
    11,
):  # later ones do not know it, and end the process
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
