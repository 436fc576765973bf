# cost: what a study will take, said before it runs; makes no file
rule cost:
    input:
        data=targets("data/{dataset}.nc", dataset=STUDY.datasets),
    log:
        f"results/{STUDY.name}/logs/cost.log",
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        settings=STUDY.costing(),
        code=code("cost", *files_of_study(), *(("operators", name) for name in STUDY.curvature.operators)),
    shell:
        "python workflow/scripts/cost.py --data {input.data} --settings {params.settings:q} --code {params.code:q} --log {log}"
