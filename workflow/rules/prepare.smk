# data: original files, checked, to one described netCDF file per dataset
rule data:
    input:
        targets("data/{dataset}.nc", dataset=STUDY.datasets),
    localrule: True


rule prepare:
    output:
        f"results/{STUDY.name}/data/{{dataset}}.nc",
    log:
        f"results/{STUDY.name}/logs/data/{{dataset}}.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/data/{{dataset}}.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 60 * attempt,
    params:
        settings=lambda wildcards: STUDY.preparing(wildcards.dataset),
        code=lambda wildcards: code("prepare", ("datasets", STUDY.datasets[wildcards.dataset].kind)),
    shell:
        'python workflow/scripts/prepare.py --root "$PLASTICITY_DATA" --output {output}'
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
