# datasets: all ensembles of a setting in one file; a missing seed is an error
rule datasets:
    input:
        targets("datasets/{setting}.nc", setting=STUDY.settings),
    localrule: True


rule gather:
    input:
        outcomes=lambda wildcards: ensembles_of(wildcards, "outcomes.nc"),
        measures=lambda wildcards: ensembles_of(wildcards, "measures.nc"),
    output:
        f"results/{STUDY.name}/datasets/{{setting}}.nc",
    log:
        f"results/{STUDY.name}/logs/datasets/{{setting}}.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/datasets/{{setting}}.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        runs=f"results/{STUDY.name}/runs/{{setting}}",
        ensembles=ensembles_in,  # not all of their files: a command has 128 KiB at most
        settings=gathering_of,
        code=code("gather"),
    shell:
        "python workflow/scripts/gather.py --runs {params.runs} --ensembles {params.ensembles} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
