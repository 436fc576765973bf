# tables: outcomes of each arm, explanations of its loss of plasticity, and the scores of tuned arms
rule analyse:
    input:
        datasets=targets("datasets/{setting}.nc", setting=STUDY.settings),
        tuned_on=all_compared_outcomes(),
        choices=targets("tuning/{tuned}/choice.json", tuned=TUNED),
    output:
        targets("tables/{table}.csv", table=TABLES),
    log:
        log_file("tables"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=4000, minutes=10),
    params:
        settings=by_file(STUDY.analyse_job()),
        code=code("analyse"),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/analyse.py"'
        " --datasets {input.datasets}"
        " --tuned_on {input.tuned_on} --choices {input.choices} --tables {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
