"""Has a launcher ask Slurm every two seconds; the plugin asks ten seconds later each time that no job has ended."""

import sys

if "--profile" in sys.orig_argv:
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    RemoteExecutor.next_seconds_between_status_checks = property(lambda self: 2, lambda self, seconds: None)
