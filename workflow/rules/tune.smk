# tuning: train all arms of a method on the tuning seeds, add arms beyond an end of the grid, and
# select one for the reporting seeds; methods with one arm are not tuned
rule tune:
    input:
        targets("tuning/{tuned}/choice.json", tuned=TUNED),
    localrule: True


rule tune_ensemble:
    input:
        data=dataset_of,
    output:
        result("tuning/{setting}/{method}/{seeds}/outcomes.nc"),
    log:
        log_file("tuning/{setting}/{method}/{seeds}/tune"),
    conda:
        ENVIRONMENT
    threads: 1  # the sorting of the Wasserstein penalty uses every further core that it may
    resources:
        **slurm_resources("tune_ensemble", memory=3000, trains=True),
    params:
        settings=tuning_of,
        code=lambda wildcards: code(
            "tune",
            *plugins_of_method(wildcards.method),
            *plugins_of_setting(wildcards.setting),
        ),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/tune.py"'
        " --data {input.data} --outcomes {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
        " --memory {resources.mem_mb}"


rule lengthen_grid:
    input:
        data=dataset_of,
        tuned_on=tuning_outcomes_of,
    output:
        result("tuning/{setting}/{method}/lengthened/outcomes.nc"),
    log:
        log_file("tuning/{setting}/{method}/lengthen"),
    conda:
        ENVIRONMENT
    threads: 1
    resources:
        **slurm_resources("lengthen_grid", memory=3000, trains=True),
    params:
        settings=lengthening_of,
        code=lambda wildcards: code(
            "lengthen",
            *plugins_of_method(wildcards.method),
            *plugins_of_setting(wildcards.setting),
        ),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/lengthen.py"'
        " --data {input.data} --tuned_on {input.tuned_on}"
        " --outcomes {output} --settings {params.settings:q} --code {params.code:q} --log {log}"
        " --memory {resources.mem_mb}"


rule choose_arm:
    input:
        compared_outcomes_of,
    output:
        result("tuning/{setting}/{method}/choice.json"),
    log:
        log_file("tuning/{setting}/{method}/choose"),
    localrule: True
    conda:
        ENVIRONMENT
    resources:
        **local_resources(memory=2000, minutes=10),
    params:
        settings=choosing_of,
        code=code("choose"),
    shell:
        'python "$PLASTICITY_ROOT/workflow/scripts/choose.py"'
        " --outcomes {input} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
