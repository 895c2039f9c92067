"""Runs the checks of the kernels with a library built under sanitizers, and prints the name of each when it has passed.

python under_sanitizers.py LIBRARY DTYPE [CHECK...]: a check is a name of `kernel_checks`, or a mistake that must be seen.
"""

import sys

import numpy as np
from host_kernels import HostKernels
from kernel_checks import CHECKS, Runner

MISTAKES = {
    "--write-beyond": lambda run: run("rescale", run.normal(7), run.normal(6), 7, 1.0, 0.0),
    "--read-beyond": lambda run: run("rescale", run.normal(6), run.normal(7), 7, 1.0, 0.0),
    "--read-before": lambda run: run(
        "gather_labels", np.zeros(3, np.int32), np.array([-1], np.int64), np.zeros(1, np.int32), 1
    ),
}


def main(library, dtype, *names):
    kernels = HostKernels(library, dtype)
    for name in names or CHECKS:
        for mode in ("as-launched", "cramped"):
            {**CHECKS, **MISTAKES}[name](Runner(kernels, dtype, mode))
        sys.stdout.write(f"{name}\n")


main(*sys.argv[1:])
