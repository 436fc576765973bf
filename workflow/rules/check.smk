# checks: the tests of tests/results on what this study made; figures wait for them
rule checks:
    input:
        targets("checks.txt"),
    localrule: True


rule check:
    input:
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
        tables=targets("tables/{table}.csv", table=TABLES),
    output:
        f"results/{STUDY.name}/checks.txt",
    log:
        f"results/{STUDY.name}/logs/checks.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/checks.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        code=checks_code(),
    shell:
        "python -m pytest -p no:cacheprovider -q tests/results --datasets {input.datasets} --tables {input.tables} --verdict {output} --code {params.code:q}"
        " > {log} 2>&1 || (grep -E '^E  +[A-Za-z]*Error|^FAILED|^ERROR' {log} >&2; false)"
