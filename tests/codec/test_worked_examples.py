"""The worked examples in docs/format.md: bytes, steps of the range decoder, numbers of the integer networks."""

import re

import numpy as np
import pytest

from cdc_jax.io import cdc_file
from tests.helpers import python_decoder, python_hyper_decoder, python_latents
from tests.helpers.golden_files import FOLDER, coding_lists, golden_file, golden_symbols, unpack_bundle

_STEP = r"^\| (\d+) \| `(\w{16})` \| `(\w{16})` \| (\d+) \| (\d+) \| (\d+) \| ([zy])\[(\d), (\d), (\d)\] = (.*?) \|$"
LISTED = {"v1": [1, 2, 3, 4, 5, 6, 7], "v2": [1, 2, 3, 4, 5, 6, 53]}


@pytest.fixture(scope="module", params=["v1", "v2"])
def version(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def page(version) -> str:
    """The section of one version's example, with plain minus signs."""
    text = (FOLDER.parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
    start = text.index(f"### 7.{version[1:]} Version")
    return re.split(r"^##", text[start + 3 :], flags=re.MULTILINE)[0].replace("−", "-")


@pytest.fixture(scope="module")
def model(version, tmp_path_factory) -> tuple[dict, list]:
    return coding_lists(unpack_bundle(version, tmp_path_factory.mktemp(version)))


def test_bytes(version, page):
    data = golden_file(version, "pixel")
    assert bytes.fromhex(re.search(r"```hex\n(.*?)```", page, flags=re.DOTALL).group(1)) == data
    fields = re.findall(r"^\| ((?:`[0-9a-f …]+`(?:, )?)+) \| (.*) \|$", page, flags=re.MULTILINE)
    parts = [part for field, _ in fields for part in re.findall(r"`(.*?)`", field)]
    position = 0
    for part in parts:
        first, _, last = part.partition(" … ")
        assert data[position:].startswith(bytes.fromhex(first))
        position = position + len(bytes.fromhex(first)) if not last else data.index(bytes.fromhex(last)) + 2
    assert position == len(data)
    stream = cdc_file.unpack(data).stream
    assert f"stream, {len(stream)} bytes" in page and f"{len(data)} bytes:" in page


class _Tracing(python_decoder.RangeDecoder):
    """Records range, point, q, entry and count of each step."""

    steps: list[tuple[int, int, int, int, int]] = []

    def entry(self, counts: list[int]) -> int:
        size, point = self.range, self.point
        entry = super().entry(counts)
        self.steps.append((size, point, point // (size >> 24), entry, counts[entry]))
        return entry


def _trace(version: str, model, monkeypatch) -> tuple[list, list[tuple]]:
    """(steps, [(step number, part, position, table)] of the entries of symbols), without escaped values."""
    coding, families = model
    file = python_decoder.read_container(golden_file(version, "pixel"))
    monkeypatch.setattr(_Tracing, "steps", [])
    monkeypatch.setattr(python_decoder, "RangeDecoder", _Tracing)
    shape = golden_symbols(version, "pixel")["y"].shape
    channels = len(coding["medians"])
    entries = [(c + 1, "z", (0, 0, c), families[0][c]) for c in range(channels)]

    def passes(z: list[int]) -> python_decoder.Passes:
        inner, symbols = python_latents.passes(coding, [[z]], file.level), None
        while True:
            try:
                indices = inner.send(symbols)
            except StopIteration as finished:
                return finished.value
            order = sorted(indices, key=lambda i: (indices[i], i))
            first = len(_Tracing.steps) + 1
            positions = [tuple(map(int, np.unravel_index(i, shape))) for i in order]
            entries.extend(
                (first + k, "y", position, families[1][indices[i]])
                for k, (i, position) in enumerate(zip(order, positions, strict=True))
            )
            symbols = yield indices

    python_decoder.read_symbols(file.stream, *families, (1, 1, channels), passes)
    return _Tracing.steps, entries


def test_steps_of_the_range_decoder(version, page, model, monkeypatch):
    steps, entries = _trace(version, model, monkeypatch)
    symbols = golden_symbols(version, "pixel")
    listed = [[*map(str.strip, row)] for row in re.findall(_STEP, page, flags=re.MULTILINE)]
    assert [int(row[0]) for row in listed] == LISTED[version]
    known = {number: rest for number, *rest in entries}
    for number, size, point, quantile, entry, count, part, *position, symbol in listed:
        assert steps[int(number) - 1] == (int(size, 16), int(point, 16), int(quantile), int(entry), int(count))
        expected_part, expected_position, (low, counts) = known[int(number)]
        assert (part, tuple(map(int, position))) == (expected_part, expected_position)
        assert symbols[part][expected_position] == int(symbol)
        assert int(entry) < len(counts) - 1 and int(symbol) == low + int(entry)
    assert f"After {'' if version == 'v1' else 'all '}{len(steps)} entries" in " ".join(page.split())


def _numbers(page: str, name: str) -> list[list[int]]:
    """The leading integers of each line that begins with this name."""
    matches = re.findall(rf"^    {re.escape(name)} +((?:-?\d+ +)*-?\d+)", page, flags=re.MULTILINE)
    return [[int(number) for number in line.split()] for line in matches]


def test_numbers_of_the_networks(version, page, model):
    """Checks the means, the scales and, in version 2, the gains and ŷ that the page gives."""
    coding, _ = model
    symbols, level = golden_symbols(version, "pixel"), cdc_file.unpack(golden_file(version, "pixel")).level
    features, output = python_hyper_decoder.decode_with_features(coding, symbols["z"].tolist())
    channels, bits = len(output[0][0]) // 2, coding["fractional_bits"][3]
    expected = [output[0][0]]
    if version == "v2":
        y_hat = np.rint(symbols["y_hat"] * 2.0**bits).astype(int)
        corrected = python_latents.correct(coding, output, features, y_hat.tolist(), symbols["y"].tolist(), level)
        expected.append(corrected[0][1])
        assert _numbers(page, "ŷ") == [y_hat[0, 0].tolist()]
        magnitudes = [python_latents.log2_magnitude(symbol, bits) for symbol in symbols["y"][0, 0].tolist()]
        assert _numbers(page, "log₂(1 + |y|)") == [magnitudes]
        assert f"(9536 << 16) // 25600 = {(level << bits) // 25600}" in page
        log2, inverse = python_latents.gains(coding, level)
        assert (_numbers(page, "L"), _numbers(page, "G")) == ([log2], [inverse])
        first, second = (coding["log2_gains"][row][0] for row in (1, 2))
        assert (first * 22592 + second * 3008 + 12800) // 25600 == log2[0]
        assert f"L = ({first} · 22592 + {second} · 3008 + 12800) // 25600 = {log2[0]}" in page
        exponent = (32 << 16) - log2[0]
        power = python_latents.fractional_power(exponent)
        assert f"{log2[0]} = {exponent}, n = {exponent >> 16}, power = {power}, G = {inverse[0]}" in page
        before = [", ".join(map(str, output[0][1][half])) for half in (slice(channels), slice(channels, None))]
        flat = " ".join(page.split())
        assert f"the means {before[0]} and the scales {before[1]}" in flat
        assert f"({', '.join(map(str, features[0][1]))})" in flat
        assert f"they are {', '.join(map(str, symbols['y'][0, 0].tolist()))}, so" in flat
    assert _numbers(page, "means") == [cell[:channels] for cell in expected]
    assert _numbers(page, "scales") == [cell[channels:] for cell in expected]
    for column in range(len(expected)):
        indices = ", ".join(map(str, symbols["scale_index"][0, column].tolist()))
        assert f"so the scale indices are {indices}" in page
