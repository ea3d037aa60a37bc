"""The Python snippets of README.md and docs/api.md run as printed, and the links of all pages have targets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image as PILImage

from cdc_jax.codec import bundle_folder

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("launch/*.md")])


def snippets(page: Path) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder_with_a_photo(tmp_path, photograph, compact_bundle, monkeypatch):
    """The working directory, with a tiny model in place of the shipped one."""
    monkeypatch.setattr(bundle_folder, "_SHIPPED", compact_bundle)
    monkeypatch.chdir(tmp_path)
    PILImage.fromarray(photograph[:64, :100]).save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/api.md", "docs/files.md"])
def test_snippets_run_as_printed(page, folder_with_a_photo):
    printed = snippets(ROOT / page)
    assert printed
    names = {}
    for number, snippet in enumerate(printed):
        exec(compile(snippet, f"{page}, snippet {number}", "exec"), names)
    with PILImage.open(folder_with_a_photo / "decoded.png") as decoded:
        assert decoded.size == (100, 64)


def anchors(page: Path) -> set[str]:
    """GitHub's anchors of a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_have_targets(page):
    text = page.read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_takes_two_minutes():
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
