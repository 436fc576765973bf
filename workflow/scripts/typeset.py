"""Typeset the tables of a paper: settings, methods and cost, as CSV and in LaTeX."""

import json

from plasticity import contracts, jobs, statistics, typesetting


def main(job: jobs.Job) -> None:
    tables = {path.stem: statistics.read_table(path) for path in job.paths["tables"]}
    made = {
        "settings": typesetting.settings({path.stem: json.loads(contracts.look(path).attrs["settings"]) for path in job.paths["datasets"]}),
        "methods": typesetting.methods(tables["outcomes"], tables["comparisons"]),
        "cost": typesetting.cost(job.path("benchmarks")),
    }
    for path, text in typesetting.written(made, job.paths["outputs"]).items():
        with contracts.whole(path) as part, contracts.explained(path):
            part.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["tables", "datasets"], outputs=["outputs"], others=["benchmarks"])
