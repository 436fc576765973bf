"""Write a page of the report that shows some tables of a study, each with its caption."""

from plasticity import captions, contracts, jobs, pages, statistics


def main(job: jobs.Job) -> None:
    config, titles = job.settings["config"], job.settings["tables"]
    config |= {"said": captions.said(config, statistics.read_table(job.path("statements")))}
    sections = [
        pages.Section(table.stem, titles[table.stem], captions.html(caption, config), statistics.read_table(table))
        for table, caption in zip(job.paths["tables"], job.paths["captions"], strict=True)
    ]
    with contracts.whole(job.path("page")) as part, contracts.explained(job.path("page")):
        part.write_text(pages.page(f"Study {config['study']}: {job.settings['page']}", sections), encoding="utf-8")


if __name__ == "__main__":
    jobs.start(main, __doc__, inputs=["statements", "tables", "captions"], outputs=["page"])
