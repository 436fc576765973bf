# runs: treat checkpoints of an ensemble on purpose, measure the copies, and train them for one task
rule intervene:
    input:
        targets("runs/{ensemble}/interventions.nc", ensemble=TREATED),
    localrule: True


rule treat_ensemble:
    input:
        data=dataset_of,
        choice=choice_of,
        checkpoints=result("runs/{setting}/{method}/{seeds}/checkpoints.nc"),
    output:
        result("runs/{setting}/{method}/{seeds}/interventions.nc"),
    log:
        log_file("runs/{setting}/{method}/{seeds}/intervene"),
    conda:
        ENVIRONMENT
    threads: 1  # as in training, which an untreated copy repeats to the bit
    resources:
        **slurm_resources("treat_ensemble", memory=3000, trains=True),
    params:
        settings=intervention_of,
        code=lambda wildcards: code(
            "intervene",
            *plugins_of_treatments(wildcards.setting),
            *plugins_of_operators(STUDY.curvature_of_copies()),
            *plugins_of_method(wildcards.method),
            *plugins_of_setting(wildcards.setting),
        ),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/intervene.py"'
        " --data {input.data} --choice {input.choice}"
        " --checkpoints {input.checkpoints} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
        " --memory {resources.mem_mb}"
