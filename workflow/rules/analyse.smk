# tables: what became of each arm, and which measure goes with the error to come
rule tables:
    input:
        targets("tables/{table}.csv", table=TABLES),
    localrule: True


rule analyse:
    input:
        targets("datasets/{setting}.nc", setting=STUDY.settings),
    output:
        outcomes=report(
            f"results/{STUDY.name}/tables/outcomes.csv",
            caption="../report/table_outcomes.rst",
            category="Tables",
            labels={"table": "outcomes of every arm"},
        ),
        measures=report(
            f"results/{STUDY.name}/tables/measures.csv",
            caption="../report/table_measures.rst",
            category="Tables",
            labels={"table": "measures of every arm"},
        ),
        correlations=report(
            f"results/{STUDY.name}/tables/correlations.csv",
            caption="../report/table_correlations.rst",
            category="Tables",
            labels={"table": "correlation of every measure with the error to come"},
        ),
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
        code=code("analyse"),
    shell:
        "python workflow/scripts/analyse.py --datasets {input} --outcomes {output.outcomes} --measures {output.measures}"
        " --correlations {output.correlations} --code {params.code:q} --log {log}"
