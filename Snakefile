# Directions of curvature and the loss of plasticity, from data to figures, tables and a report.
#
#   snakemake --cores all                                    the default study, config.yaml
#   snakemake --cores all --configfile studies/mnist.yaml    another one (make run STUDY=mnist)
#   snakemake --profile slurm                                on a cluster
#
# Targets: a stage (data, tune, train, curvature, intervene, datasets, tables, checks, figures,
# report), a figure (figure_scatter, …), or cost, which estimates jobs, disk and time before a study
# runs.
from snakemake.utils import min_version

min_version("9.27")


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/prepare.smk"
include: "workflow/rules/cost.smk"
include: "workflow/rules/tune.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/curvature.smk"
include: "workflow/rules/intervene.smk"
include: "workflow/rules/gather.smk"
include: "workflow/rules/analyse.smk"
include: "workflow/rules/check.smk"
include: "workflow/rules/typeset.smk"
include: "workflow/rules/draw.smk"
include: "workflow/rules/report.smk"


onstart:
    before_jobs()


onsuccess:
    after_success()


onerror:
    after_failure()


rule all:
    default_target: True
    input:
        rules.datasets.input,
        rules.tables.input,
        rules.figures.input,
        result("report.html"),
    localrule: True
