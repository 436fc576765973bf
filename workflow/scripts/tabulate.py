"""Write the page that shows all tables of a study, each with its caption."""

from pathlib import Path

from plasticity import captions, contracts, jobs, pages, statistics


def main(job: jobs.Job) -> None:
    tables = {path.stem: statistics.read_table(path) for path in job.paths["tables"]}
    config = job.settings["config"]
    config |= {"said": captions.said(config, tables["statements"])}
    captions_of = {path.stem.removeprefix("table_"): path for path in job.paths["captions"]}
    sections = [
        pages.Section(name, title, captions.html(Path(captions_of[name]), config), tables[name])
        for name, title in job.settings["tables"].items()
    ]
    with contracts.whole(job.path("page")) as part, contracts.explained(job.path("page")):
        part.write_text(pages.page(f"Tables of the study {config['study']}", sections), encoding="utf-8")


if __name__ == "__main__":
    jobs.start(main, __doc__, paths=["tables", "captions", "page"])
