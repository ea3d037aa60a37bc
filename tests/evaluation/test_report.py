"""The report is complete and self-contained; if there is a browser, it is also tested in it."""

import base64
import html
import html.parser
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from cdc_jax.evaluation.report import inline_svg
from cdc_jax.evaluation.tables import number
from cdc_jax.io.images import read_image, write_image

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Page(html.parser.HTMLParser):
    """Tags with their attributes, and text by tag."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.data, self._inside = [], {}, []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._inside.append(tag)

    def handle_data(self, data):
        if self._inside:
            self.data.setdefault(self._inside[-1], []).append(data)

    def handle_endtag(self, tag):
        while tag in self._inside and self._inside.pop() != tag:
            pass

    def ids(self):
        return [attributes["id"] for _, attributes in self.tags if "id" in attributes]


@pytest.fixture(scope="module")
def page(finished):
    return Page((finished[1] / "report.html").read_text("utf-8"))


def test_nothing_comes_from_elsewhere(page, finished):
    for tag, attributes in page.tags:
        assert tag not in ("link", "iframe", "base", "object", "embed")
        for name in ("src", "href", "xlink:href", "srcset", "action", "poster"):
            assert re.match(r"#|data:|$", attributes.get(name, "")), (tag, attributes)
    text = (finished[1] / "report.html").read_text("utf-8")
    assert not re.search(r"@import|url\((?!#)", text)
    assert not re.search(r"fetch\(|XMLHttpRequest|WebSocket|import\(", text)
    policy = next(a["content"] for _, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_plots_tables_and_names_are_there(page, finished):
    evaluation, folder = finished
    assert len(page.ids()) == len(set(page.ids()))
    for kind in ("rd", "steps", "seconds"):
        assert {f"plot-{kind}-psnr-rgb", f"plot-{kind}-lpips-alex"} <= set(page.ids())
    assert sum(tag == "svg" for tag, _ in page.tags) == 6
    words = {text.strip() for texts in page.data.values() for text in texts}
    for curve in evaluation.curves:
        assert curve.name in words and set(curve.settings) <= words
        assert {f"{bpp:.4f}" for bpp in curve.bpp} <= words
        assert {number(score, "psnr-rgb") for score in curve.scores["psnr-rgb"]} <= words
    for rate in evaluation.rates:
        assert (f"{rate.percent:+.1f} %" if rate.percent is not None else f"none: {rate.reason}") in words


def test_each_image_beside_the_nearest_file_sizes(page, finished):
    evaluation, folder = finished
    data = json.loads(next(text for text in page.data["script"] if text.startswith('{"images"')))
    assert [image["name"] for image in data["images"]] == ["image0.png", "image1.png"]
    for image in data["images"]:
        records = evaluation.measured.records[image["name"]].values()
        assert len(image["groups"]) == 3  # one for each of our files
        for group in image["groups"]:
            views = [image["views"][i] for i in group["views"]]
            kinds = [view["kind"] for view in views]
            assert kinds == ["original", "ours", "ours", "baseline", "baseline"]
            ours = int(dict(views[1]["numbers"])["bytes"].replace(",", ""))
            for view in views[3:]:
                name, setting = view["label"].split(", ")
                sizes = [record.file_bytes for record in records if record.curve == name]
                shown = int(dict(view["numbers"])["bytes"].replace(",", ""))
                assert shown == min(sizes, key=lambda size: abs(size - ours))
                with Image.open(io.BytesIO(base64.b64decode(view["data"]))) as file:
                    assert file.format == name.upper()
            original = read_image(base64.b64decode(views[0]["data"]))
            np.testing.assert_array_equal(original, read_image(folder.parent / "images" / image["name"]))
            assert {"PSNR (dB)", "LPIPS-ALEX", "bits per pixel"} < set(dict(views[1]["numbers"]))


def test_controls_have_names(page):
    labeled, inside_label = [], False
    for tag, attributes in page.tags:
        if tag in ("input", "select"):
            labeled.append("aria-label" in attributes or inside_label)
        inside_label = tag == "label"
    assert len(labeled) == 7 and all(labeled)
    assert ("html", {"lang": "en"}) in page.tags
    assert any(attributes.get("name") == "viewport" for _, attributes in page.tags)


def test_names_of_files_cannot_become_markup(runs):
    name = "<b>&amp;'</script><script>alert(1).png"
    folder, _, file = name.rpartition("/")
    (runs.images / folder).mkdir(parents=True)
    write_image(runs.images / folder / file, np.full((64, 64, 3), 9, np.uint8))
    (runs.images / "<i>corrupt.png").write_text("no image")
    runs(models=(), codecs=("webp",), codec_qualities=(20,), report_images=None)
    text = (runs.out / "report.html").read_text("utf-8")
    assert "alert(1)" in text and "<script>alert" not in text and "<i>corrupt" not in text
    assert name in {image["name"] for image in json.loads(re.search(r'id="data">(.*?)</script>', text)[1])["images"]}


def test_svgs_do_not_share_names():
    svg = '<?xml version="1.0"?><svg width="3pt" height="2pt" viewBox="0 0 3 2"><metadata>x</metadata>'
    svg += '<g id="a" style="fill: #1b1d21"/><use xlink:href="#a"/><path clip-path="url(#a)"/></svg>'
    inlined = inline_svg(svg, "p", "label")
    assert 'id="p-a"' in inlined and 'xlink:href="#p-a"' in inlined and "url(#p-a)" in inlined
    assert inlined.startswith('<svg role="img" aria-label="label" viewBox') and "metadata" not in inlined
    assert "currentColor" in inlined


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs the browser chromium")
class TestInABrowser:
    """The page in headless Chromium: its script and its appearance."""

    @staticmethod
    def browse(folder, *arguments, page="report.html"):
        command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--user-data-dir={folder / 'browser'}", "--virtual-time-budget=5000", *arguments]
        finished = subprocess.run(
            [*command, (folder / page).resolve().as_uri()], capture_output=True, text=True, timeout=300
        )
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def test_the_script_runs_and_the_slider_answers_to_keys(self, finished):
        folder = finished[1]
        # The browser turns keys into "input" events of a range input; the script handles these.
        probe = """<script>
        const slider = document.getElementById("slider");
        slider.focus(); slider.stepDown(40); slider.dispatchEvent(new Event("input"));
        document.getElementById("strip").children[1].click();
        document.getElementById("right").value = 3;
        document.getElementById("right").dispatchEvent(new Event("change"));
        const wait = Promise.all([...document.images].map((image) => image.decode()));
        wait.then(() => document.title = JSON.stringify({
          requests: performance.getEntriesByType("resource").map((e) => e.name).filter((n) => !/^(data|blob):/.test(n)),
          focus: document.activeElement.id,
          position: document.getElementById("stage").style.getPropertyValue("--position"),
          cards: document.querySelectorAll(".card").length,
          right: document.getElementById("tag-right").textContent,
          wide: document.documentElement.scrollWidth - innerWidth,
          plots: [...document.querySelectorAll("svg")].map((svg) => svg.getBoundingClientRect().height),
          sizes: [...document.images].map((image) => image.naturalWidth),
        }));
        </script></body>"""
        text = (folder / "report.html").read_text("utf-8").replace("</body>", probe)
        (folder / "probed.html").write_text(text, "utf-8")
        for width in (1280, 390):
            shown = self.browse(folder, "--dump-dom", f"--window-size={width},900", page="probed.html")
            assert 'data-ready="yes"' in shown
            seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", shown)[1]))
            assert seen["requests"] == [] and seen["focus"] == "slider" and seen["position"] == "30%"
            assert seen["cards"] == 5 and seen["right"].startswith("JPEG")
            assert seen["wide"] <= 0, "the page is wider than the screen"
            assert len(seen["plots"]) == 6 and min(seen["plots"]) > 150
            assert min(seen["sizes"]) > 0, "an image was not shown"

    def test_it_can_be_seen(self, finished):
        folder = finished[1]
        self.browse(folder, f"--screenshot={folder / 'seen.png'}", "--window-size=1280,1000")
        seen = read_image(folder / "seen.png")
        assert seen.shape == (1000, 1280, 3)
        stage = seen[420:900, 300:1000].astype(int)
        assert stage.std() > 15, "no image under the slider"
