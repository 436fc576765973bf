# tables for readers: LaTeX tables for a paper, and pages to sort and search tables
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


for page in PAGES:

    rule:
        name:
            f"page_{page}"
        input:
            statements=targets("tables/statements.csv"),
            tables=targets("tables/{table}.csv", table=PAGES[page]),
            captions=expand(from_repository("workflow/report/table_{table}.rst"), table=PAGES[page]),
        output:
            report(
                result(f"tables/{page}.html"),
                caption="../report/tables.rst",
                category="6 Tables",
                labels={"tables": page},
            ),
        log:
            log_file(f"tables/{page}"),
        localrule: True
        conda:
            ENVIRONMENT
        resources:
            **local_resources(memory=2000, minutes=10),
        params:
            settings=as_param(
                {"config": config_without_paths(), "page": page, "tables": PAGES[page]}
            ),
            code=code("page"),
        shell:
            'python "$PLASTICITY_ROOT/workflow/scripts/page.py"'
            " --statements {input.statements}"
            " --tables {input.tables} --captions {input.captions} --page {output}"
            " --settings {params.settings:q} --code {params.code:q} --log {log}"
