"""Write a page of the report that shows some tables of a study, each with its caption."""

from plasticity.atomic import atomic_write, explain_write_errors
from plasticity.job import Job, start


def main(job: Job) -> None:
    from plasticity.config.titles import setting_titles
    from plasticity.report import captions, page
    from plasticity.statistics.table_files import read_table

    statements = read_table(job.path("statements"))
    config = job.settings["config"]
    config |= {"quoted": captions.quoted(config, statements)}
    titles = job.settings["tables"]
    sections = [
        page.Section(
            table.stem,
            titles[table.stem],
            captions.html(caption, config),
            read_table(table),
        )
        for table, caption in zip(job.paths["tables"], job.paths["captions"], strict=True)
    ]
    settings = config["settings"]
    chosen = {name: own["title"] for name, own in settings.items() if "title" in own}
    title = f"Study {config['study']}: {job.settings['page']}"
    path = job.path("page")
    with atomic_write(path) as part, explain_write_errors(path):
        part.write_text(
            page.page(title, sections, setting_titles(settings, chosen)), encoding="utf-8"
        )


if __name__ == "__main__":
    start(main, __doc__, inputs=["statements", "tables", "captions"], outputs=["page"])
