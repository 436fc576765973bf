"""Analyse the settings of a study: one tidy CSV per table."""

from plasticity import contracts, jobs, statistics


def main(job: jobs.Job) -> None:
    datasets = {path.stem: contracts.read(path) for path in job.paths["datasets"]}
    for name, table in {"outcomes": statistics.outcomes(datasets), "correlations": statistics.correlations(datasets)}.items():
        with contracts.whole(job.path(name)) as part:
            table.to_csv(part, index=False, float_format="%.6g")


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["datasets", "outcomes", "correlations"])
