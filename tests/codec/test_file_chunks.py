"""Files with alpha and metadata, by whole codecs: of one rate and of every rate, the golden ones, corrupt ones."""

import hashlib
import re
import zlib

import numpy as np
import pytest
from PIL import Image as PILImage

import cdc_jax
from cdc_jax.codec.model_selection import Target, choose
from cdc_jax.errors import BitstreamError
from cdc_jax.io import cdc_file
from cdc_jax.io.alpha import read_alpha
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.images import ImageContents, read_contents
from cdc_jax.io.metadata import Metadata, metadata_in
from tests.golden_files.make_chunks import XMP, alpha
from tests.helpers import python_chunks, python_decoder
from tests.helpers.golden_files import CHUNK_FILES, FOLDER, golden_symbols, unpack_bundle

GOLDEN_DIGEST = "bd61e74c4536495c"  # the beginning of the SHA-256 of both files


@pytest.fixture(scope="module", params=["random", "compact"])
def bundle(request):
    return request.getfixturevalue(f"{request.param}_bundle")


@pytest.fixture(scope="module")
def codec(bundle):
    return cdc_jax.load_codec(bundle)


@pytest.fixture(scope="module")
def image():
    """uint8 [40, 60, 4], half of it transparent."""
    colors = np.add.outer(np.arange(40) * 3, np.arange(60) * 2)[:, :, None] + np.array([0, 20, 40])
    mask = np.where(np.arange(60) > 30, 255, np.arange(40)[:, None] * 6)
    return np.dstack([colors, mask]).astype(np.uint8)


def types(data):
    return [chunk.type for chunk in cdc_file.unpack(data).chunks]


def with_chunks(data, *chunks):
    header = cdc_file.unpack(data)
    fields = header.fingerprint, header.height, header.width, header.stream
    return cdc_file.pack(*fields, level=header.level, chunks=chunks)


def test_alpha_is_kept_and_the_colors_are_the_same(codec, image):
    with_alpha, without = codec.compress(image), codec.compress(image[..., :3])
    assert cdc_file.unpack(with_alpha).version == 2
    assert cdc_file.unpack(without).version == codec.config.format_version
    decoded, plain = codec.decompress(with_alpha, steps=1, return_alpha=True), codec.decompress(without, steps=1)
    np.testing.assert_array_equal(decoded, np.dstack([plain, image[..., 3]]))
    np.testing.assert_array_equal(codec.decompress(with_alpha, steps=1), plain)
    np.testing.assert_array_equal(codec.decompress_batch([with_alpha], steps=1)[0], plain)
    opaque = codec.decompress(without, steps=1, return_alpha=True)
    assert opaque.shape == (40, 60, 4) and (opaque[..., 3] == 255).all()
    both = codec.decompress_batch([with_alpha, without], steps=1, return_alpha=True)
    np.testing.assert_array_equal(both, [decoded, opaque])
    for read in zip(codec.read_symbols(with_alpha), codec.read_symbols(without), strict=True):
        np.testing.assert_array_equal(*read)


def test_files_and_pil_images_with_metadata(codec, image, tmp_path):
    exif = PILImage.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker"
    PILImage.fromarray(image).save(tmp_path / "a.png", exif=exif)
    pil_image = PILImage.open(tmp_path / "a.png")
    for source in (tmp_path / "a.png", pil_image):
        data = codec.compress(source, keep_metadata=True)
        assert types(data) == [b"ALPH", b"EXIF"]
        assert cdc_jax.read_metadata(data) == read_contents(tmp_path / "a.png", keep_metadata=True).metadata
        assert types(codec.compress(source)) == [b"ALPH"]
        assert codec.compress(source, drop_alpha=True) == codec.compress(np.rot90(image[..., :3], -1).copy())
        restored = codec.decompress(data, steps=1, return_alpha=True)
        cdc_jax.write_image(tmp_path / "b.png", restored, metadata=cdc_jax.read_metadata(data))
        back = PILImage.open(tmp_path / "b.png")
        assert back.mode == "RGBA" and dict(back.getexif()) == {0x010F: "Maker"}
        np.testing.assert_array_equal(np.asarray(back)[..., 3], np.rot90(image[..., 3], -1))


def test_a_target_counts_the_chunks(compact_codec, image):
    contents = ImageContents(image[..., :3], image[..., 3], Metadata(exif=b"MM" + bytes(400)))
    sizes = [len(compact_codec.compress(contents, quality=quality)) for quality in (0, 100)]
    limit = sum(sizes) // 2
    data = choose(["one"], lambda _: compact_codec, contents, Target(file_bytes=limit)).data
    assert types(data) == [b"ALPH", b"EXIF"] and 0.9 * limit < len(data) <= limit
    by_psnr = choose(["one"], lambda _: compact_codec, contents, Target(min_psnr_db=1, steps=0)).data
    assert types(by_psnr) == [b"ALPH", b"EXIF"]


def test_verify_reads_the_chunks(codec, bundle, image):
    data = codec.compress(image)
    assert [chunk.type for chunk in cdc_jax.verify(data, bundle).header.chunks] == [b"ALPH"]
    with pytest.raises(BitstreamError, match="alpha channel"):
        cdc_jax.verify(with_chunks(data, Chunk(b"ALPH", b"nonsense")), bundle)
    with pytest.raises(BitstreamError, match="EXIF data is too large"):
        cdc_jax.verify(with_chunks(data, Chunk(b"EXIF", bytes(2**20 + 1))), bundle)


def test_a_corrupt_chunk_stops_only_those_who_read_it(codec, image):
    good = codec.compress(image)
    [chunk] = cdc_file.unpack(good).chunks
    other_size = codec.compress(np.ascontiguousarray(image[:, :50]))
    for alpha_data in (b"", b"nonsense", chunk.data[:-2], cdc_file.unpack(other_size).chunks[0].data):
        data = with_chunks(good, Chunk(b"ALPH", alpha_data))
        with pytest.raises(BitstreamError, match="alpha channel .* corrupt"):
            codec.decompress(data, steps=1, return_alpha=True)
        assert codec.decompress(data, steps=1).shape == (40, 60, 3)
        results = dict(codec.decompress_each([data, good], steps=1, return_alpha=True))
        assert isinstance(results[0], BitstreamError)
        np.testing.assert_array_equal(results[1], codec.decompress(good, steps=1, return_alpha=True))


def test_a_wrong_checksum_stops_all(codec, image):
    data = bytearray(codec.compress(image))
    data[data.index(b"ALPH") + 10] ^= 1
    data[-4:] = cdc_file.pack(b"abcd", 1, 1, b"")[-4:]
    with pytest.raises(BitstreamError, match="checksum"):
        codec.decompress(bytes(data), steps=1)
    data[-4:] = zlib.crc32(data[:-4]).to_bytes(4, "big")  # the file's, but not the chunk's
    with pytest.raises(BitstreamError, match="checksum of the file's chunk ALPH is wrong: it is corrupt"):
        codec.decompress(bytes(data), steps=1)


# --- golden files ----------------------------------------------------------------------------------------------------


def chunk_file(name):
    return (FOLDER / "chunks" / f"{name}.cdc").read_bytes()


def test_they_are_the_released_ones():
    digest = hashlib.sha256(b"".join(chunk_file(name) for name in sorted(CHUNK_FILES)))
    assert digest.hexdigest()[:16] == GOLDEN_DIGEST


@pytest.mark.parametrize("name", CHUNK_FILES)
def test_golden_chunks_are_read(name, tmp_path):
    codec = cdc_jax.load_codec(unpack_bundle(CHUNK_FILES[name], tmp_path))
    data, expected = chunk_file(name), golden_symbols(CHUNK_FILES[name], "odd_size")
    z, y = codec.read_symbols(data)
    assert np.array_equal(z, expected["z"]) and np.array_equal(y, expected["y"])
    decoded = codec.decompress(data, steps=1, return_alpha=True)
    np.testing.assert_array_equal(decoded[..., 3], alpha())
    metadata = cdc_jax.read_metadata(data)
    exif = PILImage.Exif()
    exif.load(metadata.exif)
    assert dict(exif) == {0x010F: "Maker"}
    if name == "every_rate":
        assert metadata.xmp == XMP and metadata.icc_profile[36:40] == b"acsp"
    else:
        assert (metadata.xmp, metadata.icc_profile) == (b"", b"")


@pytest.mark.parametrize("name", CHUNK_FILES)
def test_a_decoder_in_plain_python_reads_their_chunks(name):
    file, container = python_decoder.read_container(chunk_file(name)), cdc_file.unpack(chunk_file(name))
    assert (file.version, file.level) == (2, container.level)
    assert list(file.chunks.items()) == [(chunk.type, chunk.data) for chunk in container.chunks]
    if name == "one_rate":
        assert python_chunks.read_png(file.chunks[b"ALPH"]) == alpha().tolist()
    else:
        assert python_chunks.webp_size(file.chunks[b"ALPH"]) == (37, 53)
    np.testing.assert_array_equal(read_alpha(container.chunks, 37, 53), alpha())
    assert metadata_in(container.chunks).exif == file.chunks[b"EXIF"]


def test_the_page_shows_the_bytes_of_one():
    text = (FOLDER.parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
    section = re.split(r"^##", text[text.index("## 8. Chunk types") + 2 :], flags=re.MULTILINE)[0]
    data = chunk_file("one_rate")
    start = bytes.fromhex(re.search(r"```hex\n(.*?)```", section, flags=re.DOTALL).group(1))
    assert data.startswith(start) and f"{len(data)} bytes, is the image" in section
    position = 0
    for part in re.findall(r"`((?:[0-9a-f]{2} ?)+)(?:…)?`", section):
        found = data.index(bytes.fromhex(part), position)
        position = found + len(bytes.fromhex(part))
    assert data[position:].startswith(b"MM\0*")
