# data: original files, checked, to one described netCDF file per dataset
rule data:
    input:
        targets("data/{dataset}.nc", dataset=DATASETS),
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
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        settings=lambda wildcards: as_json({"dataset": wildcards.dataset}),
        code=lambda wildcards: code("prepare", ("datasets", wildcards.dataset)),
    shell:
        'python workflow/scripts/prepare.py --root "$PLASTICITY_DATA" --output {output}'
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
