"""Which files a command line reads and writes: folders, `-o`, names that clash, outputs that exist already."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdc_jax.cli.planning import Naming, Task, list_files, plan_tasks
from tests.cli.fake_codec import fails, put, tree

COMPRESS = Naming((".png", ".jpg"), ".cdc")
DECOMPRESS = Naming((".cdc",), ".png")
letters = st.text("ab.", min_size=1, max_size=6).filter(lambda name: name.strip("."))


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Makes empty files."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).touch()

    return make


@pytest.mark.parametrize(
    "naming, path, target",
    [
        (COMPRESS, "a/photo.png", "a/photo.cdc"),
        (COMPRESS, "PHOTO.JPG", "PHOTO.cdc"),
        (COMPRESS, "scan.2024", "scan.2024.cdc"),
        (COMPRESS, "folder.png/a", "folder.png/a.cdc"),
        (Naming((".png",), ".cdc", keep_suffix=True), "a/photo.png", "a/photo.png.cdc"),
        (DECOMPRESS, "a/photo.cdc", "a/photo.png"),
        (DECOMPRESS, "photo.png.cdc", "photo.png"),
        (DECOMPRESS, "photo.jpg.cdc", "photo.jpg.png"),
        (DECOMPRESS, "photo.png", "photo.png.png"),
    ],
)
def test_names(naming, path, target):
    assert naming.target(path) == target


@given(st.lists(letters, unique=True, max_size=6), st.sampled_from([".png", ".jpg"]))
def test_kept_suffixes_never_clash_and_come_back(names, suffix):
    keep = Naming((".png", ".jpg"), ".cdc", keep_suffix=True)
    targets = [keep.target(name + suffix) for name in names]
    assert len(set(targets)) == len(names)
    assert [Naming((".cdc",), suffix).target(target) for target in targets] == [name + suffix for name in names]


@pytest.mark.parametrize("output", ["out", "out/", "new/", "new/deep/"])
@pytest.mark.parametrize("inputs", [["in/a.png"], ["in/a.png", "in/b.png"], ["in"]])
def test_a_folder_is_what_ends_in_a_slash_or_is_there(files, inputs, output):
    files("in/a.png", "in/b.png", "out/kept")
    plan = plan_tasks(inputs, output, COMPRESS)
    names = ["a"] if inputs == ["in/a.png"] else ["a", "b"]
    assert plan.folder == output
    assert plan.tasks == [Task(f"in/{name}.png", os.path.join(output, f"{name}.cdc")) for name in names]


def test_any_other_output_of_one_file_is_a_file(files):
    files("a.png")
    plan = plan_tasks(["a.png"], "new", COMPRESS)
    assert (plan.tasks, plan.folder) == ([Task("a.png", "new")], None)


def test_commands_make_the_folder(cdc, photo):
    assert cdc("compress", "photo.png", "-o", "new/deep/", "--model=b", "--quiet") == (0, "", [])
    assert cdc("decompress", "new/deep/photo.cdc", "-o", "back/", "--model=b", "--quiet") == (0, "", [])
    assert tree() == ["back/photo.png", "new/deep/photo.cdc", "photo.png"]


@pytest.mark.parametrize(
    "inputs",
    [["in/a.png", "in/a.png"], ["in/a.png", "in/../in/a.png"], ["in", "in/a.png"], ["in/a.png", "in"], ["in", "in"]],
)
@pytest.mark.parametrize("output", [None, "out"])
def test_a_file_given_twice_is_one_file(files, inputs, output):
    files("in/a.png")
    plan = plan_tasks(inputs, output, COMPRESS)
    assert [task.source for task in plan.tasks] == ["in/a.png"] and plan.problems == []


def test_two_names_of_one_file_are_two_files(files):
    files("a.png")
    Path("b.png").symlink_to("a.png")
    assert len(plan_tasks(["a.png", "b.png"], None, COMPRESS).tasks) == 2


@pytest.mark.parametrize(
    "inputs, output, clash",
    [
        (["in"], None, "in/photo.cdc; --keep-suffix"),
        (["in"], "out", "out/photo.cdc; --keep-suffix"),
        (["in/photo.png", "other/photo.png", "in/b.png"], "out", "out/photo.cdc."),
        (["in/photo.png", "in/photo.jpg", "in/b.png"], None, "in/photo.cdc; --keep-suffix"),
    ],
)
def test_only_the_files_of_a_clash_fail(cdc, inputs, output, clash):
    put("in/photo.png"), put("in/photo.jpg"), put("in/b.png"), put("other/photo.png")
    words = [] if output is None else ["-o", output]
    code, _, err = cdc("compress", *inputs, *words, "--model=b", "--quiet")
    assert code == 1 and len(err) == 2 and all("would all be written to" in line and clash in line for line in err)
    assert [name for name in tree() if name.endswith(".cdc")] == [os.path.join(output or "in", "b.cdc")]
    assert "1 of 3 files done" in cdc("compress", *inputs, *words, "--model=b", "--force")[2][-1]


def test_keep_suffix_compresses_what_would_clash_and_decompresses_to_the_old_names(cdc):
    put("in/photo.png", 1), put("in/photo.bmp", 2)
    assert cdc("compress", "in", "--keep-suffix", "-o", "out", "--model=b", "--quiet") == (0, "", [])
    assert tree("out") == ["photo.bmp.cdc", "photo.png.cdc"]
    assert cdc("decompress", "out", "-o", "back", "--model=b", "--quiet") == (0, "", [])
    assert tree("back") == ["photo.bmp.png", "photo.png"]


def test_an_output_that_is_an_input_fails_alone(files):
    files("a.png.cdc", "a.png", "b.png")
    Path("b.cdc").symlink_to("b.png")
    plan = plan_tasks(["a.png", "b.png"], None, COMPRESS)
    assert [task.source for task in plan.tasks] == ["a.png"]
    assert plan.problems == ["b.png: Its output b.cdc is also an input (b.png)."]


def test_skip_existing(cdc, bundles):
    for name in "abc":
        put(f"in/{name}.png")
    Path("in/b.cdc").write_bytes(b"precious")
    code, _, err = cdc("compress", "in", "--skip-existing", "--model=b")
    assert code == 0 and "2 of 2 files done, 1 skipped, since their output exists, " in err[-1]
    assert Path("in/b.cdc").read_bytes() == b"precious"
    bundles.loaded.clear()
    code, _, err = cdc("compress", "in", "--skip-existing", "--model=b")
    assert (code, err) == (0, ["cdc: 0 of 0 files done, 3 skipped, since their output exists"])
    assert cdc("compress", "in", "--skip-existing", "--model=b", "--quiet") == (0, "", [])
    code, _, err = cdc("compress", "in/a.png", "--skip-existing", "--model=b")
    assert (code, err) == (0, ["cdc: in/a.png: skipped, since its output exists."])
    assert bundles.loaded == []
    assert cdc("compress", "in", "--model=b")[0] == 1  # as ever without the option
    fails(cdc("compress", "in", "--skip-existing", "--force", "--model=b"), 2, "--skip-existing", "--force")
    Path("in/b.cdc").unlink()
    assert cdc("compress", "in/b.png", "--model=b", "--quiet")[0] == 0
    put("in/a.png")
    code, _, err = cdc("decompress", "in", "-o", "out", "--skip-existing", "--model=b", "--quiet")
    assert code == 0 and tree("out") == ["a.png", "b.png", "c.png"]
    code, _, err = cdc("decompress", "in", "-o", "out", "--skip-existing", "--model=b")
    assert (code, err) == (0, ["cdc: 0 of 0 files done, 3 skipped, since their output exists"])


def test_listing_files(files):
    files("in/b.cdc", "in/sub/a.CDC", "in/x.png", "c.cdc", "empty/x.png")
    assert list_files(["c.cdc", "in", "-", "missing"], ".cdc") == (
        ["c.cdc", "in/b.cdc", "in/sub/a.CDC", "-", "missing"],
        [],
    )
    assert list_files(["empty"], ".cdc") == ([], ["empty: There is no .cdc file in this folder."])


def test_info_and_verify_take_folders(cdc, random_bundle, tmp_path):
    put("in/a.cdc"), put("in/sub/b.cdc"), put("in/c.png")
    code, out, err = cdc("info", "in")
    assert (code, err) == (0, []) and [line.split(":")[0] for line in out.splitlines()] == ["in/a.cdc", "in/sub/b.cdc"]
    Path("empty").mkdir()
    code, out, err = cdc("info", "in/a.cdc", "empty")
    assert code == 1 and out.startswith("in/a.cdc: ") and err == ["cdc: empty: There is no .cdc file in this folder."]
    fails(cdc("verify", "empty", "--model", str(random_bundle)), 1, "empty", "no .cdc file in this folder")
    code, out, err = cdc("verify", "in", "--model", str(random_bundle))
    assert code == 3 and [line.split(":")[1].strip() for line in err] == ["in/a.cdc", "in/sub/b.cdc"]
