# figures: a rule each, so that each is a target and a change in one file redraws one figure
rule figures:
    input:
        targets("figures/{figure}.{format}", figure=FIGURES, format=FORMATS),
    localrule: True


for name in FIGURES:

    rule:
        name:
            f"figure_{name}"
        input:
            f"results/{STUDY.name}/checks.txt",
            datasets=targets("datasets/{setting}.nc", setting=STUDY.drawn(name)),
            tables=targets("tables/{table}.csv", table=registry.constant("figures", name, "TABLES")),
            style=STYLE,
        output:
            report(
                f"results/{STUDY.name}/figures/{name}.svg",
                caption=f"../report/figure_{name}.rst",
                category=registry.constant("figures", name, "CATEGORY"),
                labels={"figure": registry.constant("figures", name, "TITLE")},
            ),
            f"results/{STUDY.name}/figures/{name}.pdf",
            f"results/{STUDY.name}/figures/{name}.png",
        log:
            f"results/{STUDY.name}/logs/figures/{name}.log",
        benchmark:
            f"results/{STUDY.name}/benchmarks/figures/{name}.tsv"
        localrule: True
        conda:
            "../../envs/environment.yaml"
        resources:
            mem_mb=lambda wildcards, attempt: 4000 * attempt,
            runtime=lambda wildcards, attempt: 10 * attempt,
        params:
            settings=as_json({"figure": name}),
            code=code("draw", ("figures", name)),
        shell:
            "python workflow/scripts/draw.py --datasets {input.datasets} --tables {input.tables} --style {input.style} --outputs {output}"
            " --settings {params.settings:q} --code {params.code:q} --log {log}"
