# tables to be read: those of a paper in LaTeX, and pages on which they can be sorted and searched
rule tables:
    input:
        targets("tables/{table}.csv", table=TABLES + TYPESET),
        targets("tables/{table}.tex", table=TYPESET),
        targets("tables/{page}.html", page=PAGES),
    localrule: True


rule typeset:
    input:
        tables=targets("tables/{table}.csv", table=["outcomes", "comparisons"]),
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
    output:
        targets("tables/{table}.{format}", table=TYPESET, format=["csv", "tex"]),
    log:
        f"results/{STUDY.name}/logs/typeset.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/typeset.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        records=f"results/{STUDY.name}/benchmarks",  # read as they are: a result that came without its record is not made anew for it
        code=code("typeset"),
    shell:
        "python workflow/scripts/typeset.py --tables {input.tables} --datasets {input.datasets} --benchmarks {params.records}"
        " --outputs {output} --code {params.code:q} --log {log}"


for page in PAGES:

    rule:
        name:
            f"page_{page}"
        input:
            statements=targets("tables/statements.csv"),
            tables=targets("tables/{table}.csv", table=PAGES[page]),
            captions=expand("workflow/report/table_{table}.rst", table=PAGES[page]),
        output:
            report(
                f"results/{STUDY.name}/tables/{page}.html",
                caption="../report/tables.rst",
                category="5 Tables",
                labels={"tables": page},
            ),
        log:
            f"results/{STUDY.name}/logs/tables/{page}.log",
        benchmark:
            f"results/{STUDY.name}/benchmarks/tables/{page}.tsv"
        localrule: True
        conda:
            "../../envs/environment.yaml"
        resources:
            mem_mb=lambda wildcards, attempt: 2000 * attempt,
            runtime=lambda wildcards, attempt: 10 * attempt,
        params:
            settings=as_json({"config": config | {"data_root": "data"}, "page": page, "tables": PAGES[page]}),
            code=code("page"),
        shell:
            "python workflow/scripts/page.py --statements {input.statements} --tables {input.tables} --captions {input.captions}"
            " --page {output} --settings {params.settings:q} --code {params.code:q} --log {log}"
