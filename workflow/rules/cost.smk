# cost: estimate jobs, disk and time of a study before it runs; writes no result
rule cost:
    input:
        data=targets("data/{dataset}.nc", dataset=STUDY.datasets),
    log:
        log_file("cost"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=3000, minutes=30),
    params:
        settings=by_file(STUDY.cost_job()),
        code=code("cost", *plugins_of_study(), *plugins_of_operators()),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/cost.py"'
        " --data {input.data}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
