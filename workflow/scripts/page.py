"""Write a page of the report that shows some tables of a study, each with its caption."""

from plasticity.job import Job, start
from plasticity.report import captions, page
from plasticity.statistics.table_files import read_table
from plasticity.storage import netcdf


def main(job: Job) -> None:
    config, titles = job.settings["config"], job.settings["tables"]
    config |= {"said": captions.said(config, read_table(job.path("statements")))}
    sections = [
        page.Section(
            table.stem,
            titles[table.stem],
            captions.html(caption, config),
            read_table(table),
        )
        for table, caption in zip(job.paths["tables"], job.paths["captions"], strict=True)
    ]
    with netcdf.atomic_write(job.path("page")) as part, netcdf.explained(job.path("page")):
        part.write_text(
            page.page(f"Study {config['study']}: {job.settings['page']}", sections),
            encoding="utf-8",
        )


if __name__ == "__main__":
    start(main, __doc__, inputs=["statements", "tables", "captions"], outputs=["page"])
