# report.html: the result in sentences, figures with captions, and tables, in one file for reading
rule report:
    input:
        figures=figure_files(),
        tables=targets("tables/{table}.csv", table=contents.TABLES),
        captions=CAPTIONS,
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
        template=from_repository("workflow/report/report.html.j2"),
        stylesheet=from_repository("workflow/report/report.css"),
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
        settings=as_param(report_settings()),
        code=code("report"),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/report.py"'
        " --figures {input.figures} --tables {input.tables} --captions {input.captions}"
        " --datasets {input.datasets} --template {input.template}"
        " --stylesheet {input.stylesheet} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
