# report.html: figures and tables with captions, the workflow and its run times, by Snakemake
rule report:
    input:
        figure_files(),
        targets("tables/{page}.html", page=PAGES),
        CAPTIONS,
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
        stylesheet=from_repository("workflow/report/report.css"),
        statements=targets("tables/statements.csv"),
    output:
        result("report.html"),
    log:
        log_file("report"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=2000, minutes=10),
    params:
        records=result("benchmarks"),
        settings=as_param(config_without_paths()),
        code=code("report"),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/report.py"'
        " --statements {input.statements}"
        " --datasets {input.datasets} --stylesheet {input.stylesheet}"
        " --benchmarks {params.records} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
