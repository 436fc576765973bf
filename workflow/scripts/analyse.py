"""Analyse the settings of a study: one tidy CSV per table."""

from plasticity import contracts, jobs, statistics

TABLES = {"outcomes": statistics.outcomes, "measures": statistics.measures, "correlations": statistics.correlations}


def main(job: jobs.Job) -> None:
    datasets = {path.stem: contracts.read(path) for path in job.paths["datasets"]}
    for name, make in TABLES.items():
        table, path = make(datasets), job.path(name)
        with contracts.whole(path) as part, contracts.explained(path):
            table.to_csv(part, index=False, float_format="%.6g")


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["datasets", *TABLES])
