"""Jobs that the workflow forks give the same results as jobs of new interpreters."""

import csv

import pytest

from plasticity import fork_server

OUTCOMES = "results/tiny/runs/digits_labels_relu/l2/0/outcomes.nc"
MEASURES = "results/tiny/runs/digits_labels_relu/l2/0/measures.nc"
FIGURE = "results/tiny/figures/scatter.svg"


@pytest.mark.slow
def test_forked_jobs_give_the_bytes_of_new_interpreters(new_project, tiny_study):
    forked, new = new_project(), new_project()
    forked.unforked.build(OUTCOMES, MEASURES)
    new.unforked.build(OUTCOMES, MEASURES, env={fork_server.VARIABLE: ""})
    digests = [project.reproducible_digests() for project in (forked, new)]
    assert digests[0] == digests[1]
    known = tiny_study.reproducible_digests()
    assert digests[0].items() <= known.items()
    assert len(digests[0]) > 2


@pytest.mark.slow
def test_benchmark_is_that_of_the_job_and_not_of_the_process_that_waits(built_copy):
    (built_copy.root / FIGURE).unlink()
    built_copy.unforked.build(FIGURE)
    path = built_copy.results / "benchmarks" / "figures" / "scatter.tsv"
    with path.open() as file:
        benchmark = next(csv.DictReader(file, delimiter="\t"))
    assert float(benchmark["cpu_time"]) > 0
    assert float(benchmark["max_rss"]) > 100  # MB; matplotlib needs more, the waiting process less
