# tables of a paper, in LaTeX too
rule tables:
    input:
        targets("tables/{table}.csv", table=TABLES + TYPESET),
        targets("tables/{table}.tex", table=TYPESET),
    localrule: True


rule typeset:
    input:
        tables=targets("tables/{table}.csv", table=["outcomes", "comparisons"]),
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
    output:
        targets("tables/{table}.{format}", table=TYPESET, format=["csv", "tex"]),
    log:
        log_file("typeset"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=2000, minutes=10),
    params:
        # not an input, because a result without a benchmark must not be recomputed for it
        records=result("benchmarks"),
        code=code("typeset"),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/typeset.py"'
        " --tables {input.tables} --datasets {input.datasets}"
        " --benchmarks {params.records} --outputs {output} --code {params.code:q} --log {log}"
