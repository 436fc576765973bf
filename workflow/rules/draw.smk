# figures: one rule per figure, so each is a target, and a change in its file redraws it alone
rule figures:
    input:
        targets("figures/{figure}.{format}", figure=FIGURES, format=FORMATS),
    localrule: True


for name in FIGURES:

    rule:
        name:
            f"figure_{name}"
        input:
            result("checks.txt"),
            datasets=targets("datasets/{setting}.nc", setting=STUDY.drawn(name)),
            tables=tables_of_figure(name),
            style=STYLE,
        output:
            report(
                result(f"figures/{name}.svg"),
                caption=f"../report/figure_{name}.rst",
                category=registry.constant("figures", name, "CATEGORY"),
                labels={"figure": registry.constant("figures", name, "TITLE")},
            ),
            result(f"figures/{name}.pdf"),
            result(f"figures/{name}.png"),
        log:
            log_file(f"figures/{name}"),
        localrule: True
        conda:
            ENVIRONMENT
        resources:
            **local_resources(memory=4000, minutes=10),
        params:
            settings=as_param({"figure": name}),
            code=code("draw", ("figures", name)),
        shell:
            'python "$PLASTICITY_ROOT/workflow/scripts/draw.py"'
            " --datasets {input.datasets} --tables {input.tables}"
            " --style {input.style} --outputs {output}"
            " --settings {params.settings:q} --code {params.code:q} --log {log}"
