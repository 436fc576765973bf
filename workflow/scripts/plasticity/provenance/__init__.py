"""Where results come from: code digests, records, lineage, audits and the reasons for reruns.

Standard library only, except `plan`, which asks Snakemake. The launcher imports the other modules.
"""
