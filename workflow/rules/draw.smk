# figures: one rule per figure, so each is a target, and a change in its file redraws it alone.
# A figure with many settings has several pages.
rule figures:
    input:
        figure_files(),
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
            [
                report(
                    result(f"figures/{stem}.svg"),
                    caption=f"../report/figure_{name}.rst",
                    category=registry.constant("figures", name, "CATEGORY"),
                    labels={"figure": label_of_page(name, page)},
                )
                for page, stem in enumerate(figure_pages(name), 1)
            ],
            targets("figures/{stem}.{format}", stem=figure_pages(name), format=["pdf", "png"]),
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
