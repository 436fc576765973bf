# tuning: all arms of a method on tuning seeds, by which one is chosen for the reporting seeds; nothing where a method has one arm
rule tune:
    input:
        targets("tuning/{tuned}/choice.json", tuned=TUNED),
    localrule: True


rule tune_ensemble:
    input:
        data=dataset_of,
    output:
        f"results/{STUDY.name}/tuning/{{setting}}/{{method}}/{{seeds}}/outcomes.nc",
    log:
        f"results/{STUDY.name}/logs/tuning/{{setting}}/{{method}}/{{seeds}}/tune.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/tuning/{{setting}}/{{method}}/{{seeds}}/tune.tsv"
    conda:
        "../../envs/environment.yaml"
    threads: 1  # Wasserstein's ranks take any further core that the job may use
    resources:
        **slurm.resources(SITE, gpu=True),
        mem_mb=lambda wildcards, attempt: 3000 * attempt,
        runtime=lambda wildcards, attempt: training_minutes(wildcards.setting, STUDY.arms(wildcards.method), wildcards.seeds, attempt),
    params:
        settings=tuning_of,
        code=lambda wildcards: code("tune", *files_of_method(wildcards.method), *files_of(wildcards.setting)),
    shell:
        "python workflow/scripts/tune.py --data {input.data} --outcomes {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log} --memory {resources.mem_mb}"


rule choose_arm:
    input:
        lambda wildcards: expand(
            f"results/{STUDY.name}/tuning/{wildcards.setting}/{wildcards.method}/{{seeds}}/outcomes.nc",
            seeds=STUDY.tuning_blocks(wildcards.setting, wildcards.method),
        ),
    output:
        f"results/{STUDY.name}/tuning/{{setting}}/{{method}}/choice.json",
    log:
        f"results/{STUDY.name}/logs/tuning/{{setting}}/{{method}}/choose.log",
    benchmark:
        f"results/{STUDY.name}/benchmarks/tuning/{{setting}}/{{method}}/choose.tsv"
    localrule: True
    conda:
        "../../envs/environment.yaml"
    resources:
        mem_mb=lambda wildcards, attempt: 2000 * attempt,
        runtime=lambda wildcards, attempt: 10 * attempt,
    params:
        settings=choosing_of,
        code=code("choose"),
    shell:
        "python workflow/scripts/choose.py --outcomes {input} --output {output}"
        " --settings {params.settings:q} --code {params.code:q} --log {log}"
