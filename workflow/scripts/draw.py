"""Draw one figure from the study's datasets and tables, as SVG, PDF and PNG."""

from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config import registry
    from plasticity.report.style import Style, save
    from plasticity.statistics.table_files import read_table
    from plasticity.storage import netcdf

    style = Style.read(job.path("style"))
    datasets = {path.stem: netcdf.open_dataset(path) for path in job.paths["datasets"]}
    tables = {path.stem: read_table(path) for path in job.paths["tables"]}
    plugin = registry.load("figures", job.settings["figure"])
    with style.applied():
        figure = plugin.draw(datasets, tables, style)
        save(figure, job.paths["outputs"], job.label)


if __name__ == "__main__":
    start(main, __doc__, inputs=["datasets", "style"], outputs=["outputs"], optional=["tables"])
