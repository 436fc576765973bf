"""Draw all pages of one figure from the study's datasets and tables, as SVG, PDF and PNG."""

from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.report import pages
    from plasticity.report.drawing import draw_pages
    from plasticity.report.style import Style, save
    from plasticity.statistics.table_files import read_table
    from plasticity.storage import netcdf

    style = Style.read(job.path("style"))
    datasets = {path.stem: netcdf.open_dataset(path) for path in job.paths["datasets"]}
    tables = {path.stem: read_table(path) for path in job.paths["tables"]}
    name = job.settings["figure"]
    stems = pages.stems(name, list(datasets))
    with style.applied():
        figures = draw_pages(name, datasets, tables, style)
        for stem, figure in zip(stems, figures, strict=True):
            save(figure, [path for path in job.paths["outputs"] if path.stem == stem], job.label)


if __name__ == "__main__":
    start(main, __doc__, inputs=["datasets", "style"], outputs=["outputs"], optional=["tables"])
