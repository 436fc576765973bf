# runs: curvature and the other measures of an ensemble's checkpoints; nothing is trained
rule curvature:
    input:
        targets("runs/{ensemble}/measures.nc", ensemble=ENSEMBLES),
    localrule: True


rule measure_ensemble:
    input:
        data=dataset_of,
        choice=choice_of,
        checkpoints=f"results/{STUDY.name}/runs/{{setting}}/{{method}}/{{seeds}}/checkpoints.nc",
    output:
        f"results/{STUDY.name}/runs/{{setting}}/{{method}}/{{seeds}}/measures.nc",
    log:
        f"results/{STUDY.name}/logs/runs/{{setting}}/{{method}}/{{seeds}}/curvature.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/runs/{{setting}}/{{method}}/{{seeds}}/curvature.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1
    resources:
        **slurm.resources(SITE, gpu=False),
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=curvature_minutes,
    params:
        settings=as_json(asdict(STUDY.curvature)),
        code=lambda wildcards: code(
            "curvature", *(("operators", name) for name in STUDY.curvature.operators), *files_of(wildcards.setting, optimizer=False)
        ),
    shell:
        "python workflow/scripts/curvature.py --data {input.data} --choice {input.choice} --checkpoints {input.checkpoints} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log} --memory {resources.mem_mb}"
