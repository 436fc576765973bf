# runs: train an ensemble, which is one setting, one method with its arms, and one block of seeds
rule train:
    input:
        targets("runs/{ensemble}/outcomes.nc", ensemble=ENSEMBLES),
    localrule: True


rule train_ensemble:
    input:
        data=dataset_of,
        choice=choice_of,
    output:
        outcomes=result("runs/{setting}/{method}/{seeds}/outcomes.nc"),
        checkpoints=result("runs/{setting}/{method}/{seeds}/checkpoints.nc"),
    log:
        log_file("runs/{setting}/{method}/{seeds}/train"),
    conda:
        ENVIRONMENT
    threads: 1  # the sorting of the Wasserstein penalty uses every further core that it may
    resources:
        **slurm_resources("train_ensemble", memory=3000, trains=True),
    params:
        settings=training_of,
        code=lambda wildcards: code(
            "train",
            *plugins_of_method(wildcards.method),
            *plugins_of_setting(wildcards.setting),
        ),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/train.py"'
        " --data {input.data} --choice {input.choice}"
        " --outcomes {output.outcomes} --checkpoints {output.checkpoints}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
        " --memory {resources.mem_mb}"
