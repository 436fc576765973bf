# archive.zip: all of a study but its runs, to be published and run again; only made when asked for
rule archive:
    input:
        targets("report.html"),
        targets("checks.txt"),
        rules.datasets.input,
        rules.tables.input,
        rules.figures.input,
    output:
        f"results/{STUDY.name}/archive.zip",
    log:
        f"results/{STUDY.name}/logs/archive.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/archive.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=lambda wildcards, attempt: 30 * attempt,
    params:
        settings=as_json({key: value for key, value in config.items() if key != "quoted"} | {"data_root": "data"}),
        code=code("archive"),
    shell:
        "python workflow/scripts/archive.py --results {input} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
