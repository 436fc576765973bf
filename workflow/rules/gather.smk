# datasets: gather all ensembles of a setting in one file; a missing seed is an error
rule datasets:
    input:
        targets("datasets/{setting}.nc", setting=STUDY.settings),
    localrule: True


rule gather:
    input:
        outcomes=outcomes_of,
        measures=measures_of,
        interventions=interventions_of,
    output:
        result("datasets/{setting}.nc"),
    log:
        log_file("datasets/{setting}"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=4000, minutes=10),
    params:
        runs=result("runs/{setting}"),
        ensembles=ensembles_in,  # not the files, because a command may have 128 KiB at most
        treated=treated_in,
        settings=gathering_of,
        code=code("gather"),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/gather.py"'
        " --runs {params.runs} --ensembles {params.ensembles}"
        " --treated {params.treated}"
        " --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
