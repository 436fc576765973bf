# report.html: figures and tables with their captions, the workflow and its run statistics, by Snakemake
rule report:
    input:
        targets("figures/{figure}.{format}", figure=FIGURES, format=FORMATS),
        targets("tables/{page}.html", page=PAGES),
        CAPTIONS,
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
        stylesheet="workflow/report/report.css",
        statements=targets("tables/statements.csv"),
    output:
        f"results/{STUDY.name}/report.html",
    log:
        f"results/{STUDY.name}/logs/report.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        records=f"results/{STUDY.name}/benchmarks",
        settings=as_json(config | {"data_root": "data"}),  # where the data lie is in no result
        code=code("report"),
    shell:
        "python workflow/scripts/report.py --statements {input.statements} --datasets {input.datasets} --stylesheet {input.stylesheet} --benchmarks {params.records} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
