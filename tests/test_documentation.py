"""The Python snippets of README.md and docs/api.md run as printed; the links of all pages lead somewhere."""

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
    """The working directory; a tiny model takes the place of the one inside the package."""
    monkeypatch.setattr(bundle_folder, "_SHIPPED", compact_bundle)
    monkeypatch.chdir(tmp_path)
    PILImage.fromarray(photograph[:64, :100]).save("photo.jpg")
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/api.md", "docs/files.md"])
def test_snippets_run_as_printed(page, folder_with_a_photo):
    found = snippets(ROOT / page)
    assert found
    names = {}
    for number, snippet in enumerate(found):
        exec(compile(snippet, f"{page}, snippet {number}", "exec"), names)
    with PILImage.open(folder_with_a_photo / "decoded.png") as decoded:
        assert decoded.size == (100, 64)


def anchors(page: Path) -> set[str]:
    """What GitHub calls a page's headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
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
