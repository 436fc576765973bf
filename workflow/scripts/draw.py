"""Draw one figure from the study's datasets and tables, as SVG, PDF and PNG."""

from plasticity import contracts, figures, jobs, registry, statistics


def main(job: jobs.Job) -> None:
    datasets = {path.stem: contracts.read(path) for path in job.paths["datasets"]}
    tables = {path.stem: statistics.read_table(path) for path in job.paths["tables"]}
    with figures.style(job.path("style")):
        figure = registry.load("figures", job.settings["figure"]).draw(datasets, tables)
        figures.save(figure, job.paths["outputs"], job.stamp)


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["datasets", "tables", "style", "outputs"])
