"""Make a launcher query Slurm every two seconds.

By default the plugin waits ten seconds longer after each query, until a job ends.
"""

import sys

SECONDS = 2

if "--profile" in sys.orig_argv:
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    constant = property(lambda executor: SECONDS, lambda executor, seconds: None)
    RemoteExecutor.next_seconds_between_status_checks = constant
