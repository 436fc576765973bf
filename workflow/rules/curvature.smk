# runs: measure curvature, features, units and weights of an ensemble's checkpoints; train nothing
rule curvature:
    input:
        targets("runs/{ensemble}/measures.nc", ensemble=ENSEMBLES),
    localrule: True


rule measure_ensemble:
    input:
        data=dataset_of,
        choice=choice_of,
        checkpoints=result("runs/{setting}/{method}/{seeds}/checkpoints.nc"),
    output:
        result("runs/{setting}/{method}/{seeds}/measures.nc"),
    log:
        log_file("runs/{setting}/{method}/{seeds}/curvature"),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **slurm_resources("measure_ensemble", memory=3000, trains=False),
    params:
        settings=as_param(asdict(STUDY.curvature)),
        code=lambda wildcards: code(
            "curvature",
            *plugins_of_operators(),
            *plugins_of_setting(wildcards.setting, optimizer=False),
        ),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/curvature.py"'
        " --data {input.data} --choice {input.choice}"
        " --checkpoints {input.checkpoints} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
        " --memory {resources.mem_mb}"
