"""Run a study and compare its tables and datasets with those published in docs/{study}.

    python workflow/scripts/reproduce.py --study digits
    python workflow/scripts/reproduce.py --study evidence --setting mnist_separable_relu

With --setting it runs only one setting, and compares only its dataset.

On the same kind of machine every bit must be equal. Elsewhere the command lists the numbers that
differ, and by how much.
"""

import argparse
import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from plasticity.config import layers, names
from plasticity.config.spelling import hint
from plasticity.config.study import read
from plasticity.errors import StudyError
from plasticity.provenance.code_digest import ROOT


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--study",
        default="default",
        metavar="NAME",
        help="name of a file in studies/, or a path (default: the default study)",
    )
    parser.add_argument(
        "--setting", metavar="NAME", help="a setting of the study (default: the whole study)"
    )
    parser.add_argument(
        "--publish",
        action="store_true",
        help="make these results the reference, and publish their figures",
    )
    arguments = parser.parse_args()
    if arguments.publish and arguments.setting:
        parser.error("--publish needs the whole study, so leave out --setting")

    from plasticity.report import reference

    os.chdir(ROOT)  # the reference is in the repository, and so are the results to compare
    try:
        config = ROOT / names.find(arguments.study)
        contents = layers.read_config([config])
        name, setting = contents["study"], arguments.setting
        results, published = ROOT / "results" / name, ROOT / "docs" / name
        if setting is not None and setting not in contents["settings"]:
            raise StudyError(
                f"the study has no setting {setting!r}. {hint(setting, list(contents['settings']))}"
            )
        if not arguments.publish:
            # without a reference, this fails now and not after the run
            reference.checksums(published, setting)
        targets = [f"results/{name}/datasets/{setting}.nc"] if setting else []
        command = run_study(config, targets)
        if arguments.publish:
            publish_study(config, results, published, command)
        else:
            compare(results, published, setting)
    except StudyError as mistake:
        sys.exit(str(mistake))


def run_study(config: Path, targets: Sequence[str]) -> str:
    """Run the study with Snakemake, or only some targets, and return the command without them.

    Raises:
        StudyError: the run failed.
    """
    command = ["snakemake", "--cores", "all", "--rerun-incomplete", "--quiet", "rules", "reason"]
    if config != ROOT / "config.yaml":
        command += ["--configfile", str(config.relative_to(ROOT))]
    process = subprocess.run([sys.executable, "-m", *command, "--", *targets], check=False)
    if process.returncode:
        raise StudyError(
            "The study did not finish. Fix what Snakemake reports above, then run this again."
        )
    return shlex.join(command)


def publish_study(config: Path, results: Path, published: Path, command: str) -> None:
    """Make the results the reference, and publish their figures."""
    from plasticity.report import publish, reference

    count = reference.publish(results, published)
    study = read(layers.read_config([config]), str(config))
    publish.publish(study, results, published, command)
    folder = published.relative_to(ROOT)
    print(f"The reference has {count} tables and datasets. Commit {folder}.")


def compare(results: Path, published: Path, setting: str | None) -> None:
    """Print how the results differ from the reference; exit with 1 if they should be equal."""
    from plasticity.report import reference

    is_equal, lines = reference.compare(results, published, setting)
    print("\n".join(lines))
    if not is_equal and reference.is_same_kind_of_machine(published):
        sys.exit(
            "on this kind of machine they should be the same. To see whether the code or the"
            " config changed, run: make why; make audit"
        )


if __name__ == "__main__":
    main()
