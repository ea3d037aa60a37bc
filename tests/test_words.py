"""One word for each concept: abandoned words do not come back."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

FORBIDDEN = {  # word → what to write
    r"(?<![a-z])picture": "image",
    r"(?<![a-z])held.?out": "validation",
    r"\btelling\b": "reraise_as, or another verb",
    r"\bsoft-max\b": "softmax",
    r"\bJAX'(?!s)": "JAX's",
}
SEARCHED = ("cdc_jax", "configs", "docs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")

# Lines that may contain such a word, as regular expressions by file: quotations, and names in stored files.
ALLOWED = {
    "cdc_jax/training/old_names.py": [
        r'^    "data\.held_out": ',  # OLD_NAMES: a setting of older runs
        r"^_OLD_METRIC_PREFIXES = ",  # metrics of older runs
        r"^_OLD_DATA_KEYS = ",  # the data's state in older checkpoints
    ],
}


def searched_files() -> list[str]:
    """Text files below the searched folders, relative to the root."""
    names = []
    for start in SEARCHED:
        path = ROOT / start
        below = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        names += [file.relative_to(ROOT).as_posix() for file in below if "__pycache__" not in file.parts]
    return [name for name in names if Path(name).suffix in (".py", ".md", ".html", ".js", ".css", ".csv", ".txt")]


def offences(text: str, word: str, allowed: list[str]) -> list[tuple[int, str]]:
    """(number, line) of the lines with the word, except for allowed lines."""
    lines = enumerate(text.splitlines(), start=1)
    hits = [(number, line) for number, line in lines if re.search(word, line, flags=re.IGNORECASE)]
    return [(number, line) for number, line in hits if not any(re.search(pattern, line) for pattern in allowed)]


@pytest.mark.parametrize("word", FORBIDDEN)
def test_abandoned_words(word):
    lines = []
    for name in searched_files():
        hits = offences((ROOT / name).read_text(encoding="utf-8"), word, ALLOWED.get(name, []))
        lines += [f"{name}:{number}: {line.strip()}" for number, line in hits]
    assert not lines, f"write {FORBIDDEN[word]!r}:\n" + "\n".join(lines)


@pytest.mark.parametrize(("name", "pattern"), [(name, p) for name, patterns in ALLOWED.items() for p in patterns])
def test_each_allowance_is_needed(name, pattern):
    lines = [line for line in (ROOT / name).read_text(encoding="utf-8").splitlines() if re.search(pattern, line)]
    assert any(offences(line, word, []) for line in lines for word in FORBIDDEN), "remove it from the list"


def test_words_are_found_as_words():
    text = "Pictures\nheld-out, held out, held_out\nJAX's\nJAX' own\ndepicture\nsoftmax\ntelling\nsoft-max\n_pictures"
    numbers = {word: [number for number, _ in offences(text, word, [])] for word in FORBIDDEN}
    assert list(numbers.values()) == [[1, 9], [2], [7], [8], [4]]
    assert offences(text, r"\bpicture", [r"^Pictures$"]) == []
