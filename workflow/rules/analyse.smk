# tables: what became of each arm, what goes with its loss of plasticity beyond a shared trend, and what arms were chosen by
rule analyse:
    input:
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
        tuned_on=targets("tuning/{ensemble}/outcomes.nc", ensemble=TUNED_ENSEMBLES),
        choices=targets("tuning/{tuned}/choice.json", tuned=TUNED),
    output:
        targets("tables/{table}.csv", table=TABLES),
    log:
        f"results/{STUDY.name}/logs/tables.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/tables.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        settings=STUDY.analysing(),
        code=code("analyse"),
    shell:
        "python workflow/scripts/analyse.py --datasets {input.datasets} --tuned_on {input.tuned_on} --choices {input.choices}"
        " --tables {output} --settings {params.settings:q} --code {params.code:q} --log {log}"
