"""Make a launcher ask Slurm every two seconds.

Otherwise the plugin adds ten seconds to the interval after each query, until a job ends.
"""

import sys

SECONDS = 2

if "--profile" in sys.orig_argv:
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    always = property(lambda executor: SECONDS, lambda executor, seconds: None)
    RemoteExecutor.next_seconds_between_status_checks = always
