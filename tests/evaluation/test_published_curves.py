"""Published curves are used only for the same data set and the same definition of a metric."""

import pytest

from cdc_jax.errors import ConfigError
from cdc_jax.evaluation.published_curves import data_set_of, load_published

ALL = ("psnr-rgb", "ssim", "ms-ssim-rgb", "lpips-alex", "lpips-vgg", "dists", "fid")
HEADER = "source,codec,dataset,bpp,psnr,ms_ssim,lpips,lpips_vgg,dists,fid,ssim\n"
TABLE = (
    HEADER
    + "tfc models/hific/data.csv,HiFiC,kodak,0.35,29.6,0.964,0.043,,,,\n"
    + "tfc models/hific/data.csv,HiFiC,kodak,0.18,27.5,0.937,0.069,,,,\n"
    + "tfc models/hific/data.csv,HiFiC,clic2020,0.13,30.8,0.95,0.1,,,7.0,\n"
    + "somebody,Other,kodak,0.2,28.0,,0.2,0.3,0.1,,0.8\n"
    + "somebody,Numbered [2],kodak,0.4,29.0,,,,,,\n"
    + "somebody,Numbered [1],kodak,0.1,25.0,,,,,,\n"
)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(TABLE)
    return path


def by_name(curves):
    return {curve.name: curve for curve in curves}


def test_same_data_set_and_metric_only(table):
    hific = by_name(load_published(table, data_set="kodak", metrics=ALL))["HiFiC"]
    assert hific.bpp == [0.18, 0.35] and hific.kind == "published"
    assert hific.scores == {"psnr-rgb": [27.5, 29.6], "ms-ssim-rgb": [0.937, 0.964], "lpips-alex": [0.069, 0.043]}
    assert load_published(table, data_set="tecnick", metrics=ALL) == []
    assert load_published(table, data_set="kodak", metrics=("lpips-vgg", "ssim")) == []
    clic = by_name(load_published(table, data_set="clic2020", metrics=ALL))["HiFiC"]
    assert clic.bpp == [0.13] and clic.scores["fid"] == [7.0]


def test_lpips_of_an_unknown_network_is_left_out(table):
    other = by_name(load_published(table, data_set="kodak", metrics=ALL, codecs=["other"]))["Other"]
    assert "lpips-alex" not in other.scores and other.scores["lpips-vgg"] == [0.3]
    assert "ssim" not in other.scores  # its definition varies


def test_numbered_points_form_one_curve(table):
    assert load_published(table, data_set="kodak", metrics=ALL, codecs=["Numbered"])[0].bpp == [0.1, 0.4]


def test_mistakes(table, tmp_path):
    with pytest.raises(ConfigError, match="no codec 'nobody'"):
        load_published(table, data_set="kodak", metrics=ALL, codecs=["nobody"])
    table.write_text("a,b\n1,2\n")
    with pytest.raises(ConfigError, match="no column 'source'"):
        load_published(table, data_set="kodak", metrics=ALL)
    with pytest.raises(ConfigError, match="none.csv"):
        load_published(tmp_path / "none.csv", data_set="kodak", metrics=ALL)


def test_kodak_is_all_24_images():
    names = [f"kodim{i:02}.png" for i in range(1, 25)]
    assert data_set_of(names) == "kodak"
    assert data_set_of(names[:-1]) is None and data_set_of([*names[:-1], "other.png"]) is None


def test_the_reference_table(shared_dir):
    curves = by_name(load_published(shared_dir / "published" / "rd_points.csv", data_set="kodak", metrics=ALL))
    assert curves["HiFiC"].scores["lpips-alex"] == pytest.approx([0.069, 0.043, 0.028], abs=5e-4)
    assert len(curves["MS-ILLM"].bpp) == 6 and "dists" in curves["MS-ILLM"].scores
    assert "lpips-alex" not in curves["vtm"].scores and not any("lpips-vgg" in c.scores for c in curves.values())


def test_published_curves_are_drawn_if_the_data_set_is_named(runs, table, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "cdc_jax.evaluation.evaluate.draw_plots", lambda folder, ours, theirs, metrics: drawn.append(theirs) or {}
    )
    result = runs(published=str(table), data_set="kodak", models=(), anchor="hific")
    assert [curve.name for curve in drawn[0]] == ["HiFiC"]
    assert {rate.anchor for rate in result.rates} == {"HiFiC"}
    assert "HiFiC (dashed) is published: tfc models/hific" in (runs.out / "report.html").read_text()
    runs(published=str(table), models=())
    assert drawn[1] == [] and "no known data set" in runs.logged[-1]
