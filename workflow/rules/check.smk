# checks: run the tests in tests/results on the results of the study; figures wait for them
rule checks:
    input:
        targets("checks.txt"),
    localrule: True


rule check:
    input:
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
        tables=targets("tables/{table}.csv", table=TABLES),
    output:
        result("checks.txt"),
    log:
        log_file("checks"),
    benchmark:
        result("benchmarks/checks.tsv")
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=4000, minutes=10),
    params:
        code=code_of_checks(),
    shell:
        'python -m pytest -c "$PLASTICITY_ROOT/pyproject.toml" -p no:cacheprovider -q'
        ' "$PLASTICITY_ROOT/tests/results"'
        " --datasets {input.datasets} --tables {input.tables}"
        " --verdict {output} --code {params.code:q}"
        " > {log} 2>&1"
        " || (grep -E '^E  +[A-Za-z]*Error|^FAILED|^ERROR' {log} >&2; false)"
