"""The documentation builds as a site, strictly, and its links work."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import unquote

import pytest

ROOT = Path(__file__).parents[2]
MKDOCS = ROOT / ".venv-docs/bin/mkdocs"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Build the site."""
    mkdocs = MKDOCS if MKDOCS.exists() else shutil.which("mkdocs")
    if mkdocs is None:
        pytest.skip("mkdocs is not installed: make docs installs it")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [mkdocs, "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_links_and_pictures_of_the_site_exist(site):
    missing = []
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue  # its links begin at the root of a server
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r'(?:href|src)="(?!\w+:|//)([^"#?]+)', text):
            target = page.parent / unquote(link)
            if not (target / "index.html" if target.is_dir() else target).exists():
                missing.append(f"{page.relative_to(site)}: {link}")
    assert missing == []


@pytest.mark.slow
def test_site_loads_nothing_from_other_hosts(site):
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(
            r"<(?:script|img)[^>]*src=\"(?:https?:)?//|<link[^>]*rel=\"stylesheet\""
            r"[^>]*href=\"(?:https?:)?//",
            text,
        )
        assert loaded == [], page


@pytest.mark.slow
def test_reference_has_signatures_and_docstrings(site):
    text = (site / "api/index.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="([\w.]+)"', text))
    for operator in ("Fisher", "GaussNewton", "Hessian", "NTK"):
        for method in ("spectra", "as_linear_operator", "product", "gradient", "blocks"):
            assert f"plasticity.curvature.{operator}.{method}" in anchors
    assert "plasticity.curvature.spectrum.Spectrum" in anchors
    assert ":::" not in text
