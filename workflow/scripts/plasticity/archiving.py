"""A study as one file that says what is in it: an RO-Crate (https://w3id.org/ro/crate) of code, config, lock, results and their records."""

import json
import mimetypes
import subprocess
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from rocrate.rocrate import ROCrate

from plasticity.provenance import record as records
from plasticity.provenance.code_digest import ROOT, commit
from plasticity.report.reference import publish

LEFT_OUT = {
    ".venv",
    ".snakemake",
    "results",
}  # top folders, where git cannot be asked what belongs to the repository
TEXT = """Directions of curvature and the loss of plasticity, study {study}: code (commit {commit}), config, hash-pinned lock, datasets,
tables, figures, report, and a record of how each was made with checksums back to the original data. Unpacked, `make env` installs what
it was made with; `make audit ARGS=--adopt CONFIG=results/{study}/config.yaml` has Snakemake know the results, so that only what you
change is made anew; `make reproduce STUDY={study}` trains everything again and compares the numbers."""


def crate(config: dict[str, Any], results: Sequence[Path], scratch: Path) -> ROCrate:
    """The archive of a study, to be written.

    Args:
        config: of the study.
        results: files to go in, below its folder of results.
        scratch: a folder for what is made for the archive alone, which must last until it is written.
    """
    study, (name, changed) = config["study"], commit()
    made = ROCrate(gen_preview=True)
    made.name = f"Directions of curvature and the loss of plasticity: study {study}"
    made.description = TEXT.format(
        study=study, commit=f"{name or 'unknown'}{', and changes' if changed else ''}"
    )
    made.license = "https://spdx.org/licenses/MIT"
    reference = Path("docs") / study
    workflow = made.add_workflow(ROOT / "Snakefile", "Snakefile", main=True, lang="snakemake")
    for path in repository():
        if path != Path("Snakefile") and reference not in path.parents:
            made.add_file(ROOT / path, str(path))
    publish(ROOT / "results" / study, scratch / reference)
    (scratch / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    made.add_file(
        scratch / "config.yaml",
        f"results/{study}/config.yaml",
        properties={"description": "the study"},
    )
    for path in sorted((scratch / reference).rglob("*.*")):
        made.add_file(
            path,
            str(path.relative_to(scratch)),
            properties={"description": "what another run is compared with"},
        )
    entities, jobs = {}, defaultdict(list)
    for path in results:
        record, called = records.read(path), records.name(path)
        kind = {"encodingFormat": mimetypes.guess_type(path.name)[0] or "application/octet-stream"}
        entities[called] = made.add_file(
            path,
            f"results/{study}/{called}",
            properties=kind | ({"sha256": record.sha256} if record else {}),
        )
        if record:
            jobs[
                record.source, json.dumps(record.settings, sort_keys=True), tuple(record.inputs)
            ].append(called)
    for (source, settings, inputs), outputs in jobs.items():
        about = {"@type": "CreateAction", "name": source, "description": f"settings {settings}"}
        objects = [entities[one] for one in inputs if one in entities]
        made.add_action(
            workflow, object=objects, result=[entities[one] for one in outputs], properties=about
        )
    for path in sorted((ROOT / "results" / study / records.FOLDER).rglob("*.json")):
        made.add_file(path, str(path.relative_to(ROOT)))
    return made


def repository() -> Iterator[Path]:
    """Files of the repository, relative to it: what git knows or would add, else all but results and what is installed."""
    try:
        asked = ["git", "ls-files", "-coz", "--exclude-standard"]
        listed = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        names = sorted(filter(None, listed.split("\0")))
    except (OSError, subprocess.SubprocessError):
        found = (path.relative_to(ROOT) for path in sorted(ROOT.rglob("*")))
        names = [
            str(path)
            for path in found
            if (path.parts[0] not in LEFT_OUT and path.suffix != ".pyc")
            or path == Path("results/README.md")
        ]
    yield from (Path(name) for name in names if (ROOT / name).is_file())
