# data: check the original files of each dataset, and write them to one described netCDF file
rule data:
    input:
        targets("data/{dataset}.nc", dataset=STUDY.datasets),
    localrule: True


rule prepare:
    output:
        result("data/{dataset}.nc"),
    log:
        log_file("data/{dataset}"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=4000, minutes=60),
    params:
        settings=lambda wildcards: by_file(STUDY.prepare_job(wildcards.dataset)),
        code=lambda wildcards: code("prepare", *plugins_of_dataset(wildcards.dataset)),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/prepare.py"'
        ' --root "$PLASTICITY_DATA" --output {output}'
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
