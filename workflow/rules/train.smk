# runs: outcomes and checkpoints of an ensemble: one setting, one method with its arms, one block of seeds
rule train:
    input:
        targets("runs/{ensemble}/outcomes.nc", ensemble=ENSEMBLES),
    localrule: True


rule train_ensemble:
    input:
        data=dataset_of,
        choice=choice_of,
    output:
        outcomes=f"results/{STUDY.name}/runs/{{setting}}/{{method}}/{{seeds}}/outcomes.nc",
        checkpoints=f"results/{STUDY.name}/runs/{{setting}}/{{method}}/{{seeds}}/checkpoints.nc",
    log:
        f"results/{STUDY.name}/logs/runs/{{setting}}/{{method}}/{{seeds}}/train.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/runs/{{setting}}/{{method}}/{{seeds}}/train.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1  # Wasserstein's ranks take any further core that the job may use
    resources:
        **slurm.resources(SITE, gpu=True),
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: training_minutes(wildcards.setting, STUDY.reported(wildcards.method), wildcards.seeds, attempt),
    params:
        settings=training_of,
        code=lambda wildcards: code("train", *files_of_method(wildcards.method), *files_of(wildcards.setting)),
    shell:
        "python workflow/scripts/train.py --data {input.data} --choice {input.choice} --outcomes {output.outcomes} --checkpoints {output.checkpoints}"
        " --settings {params.settings:q} --code {params.code:q} --log {log} --memory {resources.mem_mb}"
