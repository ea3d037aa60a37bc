"""EXIF, XMP and color profiles: out of image files of every format, through chunks, and into files again."""

import io

import numpy as np
import pytest
from PIL import ExifTags
from PIL import Image as PILImage
from PIL.PngImagePlugin import PngInfo

from cdc_jax.errors import BitstreamError
from cdc_jax.io import cdc_file
from cdc_jax.io.chunks import Chunk
from cdc_jax.io.images import encode_image, lost_in, read_contents, read_image
from cdc_jax.io.metadata import MAX_BYTES, Metadata, metadata_chunks, metadata_in, read_metadata
from tests.io.image_files import BLUE, GREEN, RED, gray_profile, png, random_image, rgb_profile, saved, smooth

ORIENTATION, MAKER, EXIF_IFD, GPS_IFD = 0x0112, 0x010F, 0x8769, 0x8825
TAKEN, EXPOSURE, COMMENT = 0x9003, 0x829A, 0x9286
SWAPPED = rgb_profile(BLUE, GREEN, RED, gamma=1.0)  # a wide difference from sRGB
XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6" title="\xc3\xa9"/>'
    b"</rdf:RDF></x:xmpmeta>"
)
UPRIGHT_XMP = XMP.replace(b'tiff:Orientation="6"', b'tiff:Orientation="1"')


def exif(orientation=6):
    data = PILImage.Exif()
    data[ORIENTATION], data[MAKER] = orientation, "Maker"
    data[EXIF_IFD] = {TAKEN: "2026:01:02 03:04:05", EXPOSURE: (1, 250), COMMENT: b"ASCII\0\0\0a comment"}
    data[GPS_IFD] = {1: "N", 2: (1.0, 2.0, 3.5)}
    return data


def directories(data):
    """The tags of EXIF data, but for the offsets."""
    parsed = PILImage.Exif()
    parsed.load(data)
    main = {tag: value for tag, value in parsed.items() if tag not in (EXIF_IFD, GPS_IFD)}
    return main, parsed.get_ifd(EXIF_IFD), parsed.get_ifd(GPS_IFD)


KEPT = ({MAKER: "Maker"}, dict(exif()[EXIF_IFD]), dict(exif()[GPS_IFD]))


def photo(format, image=None, profile=SWAPPED):
    """A camera's file, on its side."""
    options = {"exif": exif(), "icc_profile": profile, "xmp": XMP}
    if format == "PNG":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_itxt("XML:com.adobe.xmp", options.pop("xmp"))
    if format == "TIFF":
        options["exif"] = PILImage.Exif()
        options["exif"].load(exif().tobytes())
        options["exif"][700] = options.pop("xmp")
    options |= {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}}.get(format, {})
    return saved(PILImage.fromarray(smooth() if image is None else image), format, **options)


@pytest.fixture(scope="module")
def contents():
    return read_contents(photo("PNG"), keep_metadata=True)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_metadata_is_read_from_every_format(format):
    read = read_contents(photo(format), keep_metadata=True)
    assert read.notes == ()
    assert directories(read.metadata.exif) == KEPT
    assert not read.metadata.exif.startswith(b"Exif")
    assert read.metadata.icc_profile == SWAPPED
    assert read.metadata.xmp in (UPRIGHT_XMP, XMP.replace(b'tiff:Orientation="6"', b""))
    assert read.pixels.shape == (56, 40, 3)  # upright
    assert read_contents(photo(format)).metadata == Metadata()


def test_pixels_stay_in_a_profile_that_is_kept_and_become_srgb_otherwise():
    turned = np.rot90(smooth(), -1)
    np.testing.assert_array_equal(read_contents(photo("PNG"), keep_metadata=True).pixels, turned)
    assert np.abs(read_image(photo("PNG")).astype(int) - turned).max() > 50


@pytest.mark.parametrize(
    "data",
    [
        saved(PILImage.fromarray(smooth()[..., 0]), "PNG", icc_profile=gray_profile(1.0)),
        saved(PILImage.fromarray(smooth()).convert("CMYK"), "TIFF"),
        saved(PILImage.fromarray(smooth()), "PNG", icc_profile=b"not a profile"),
        saved(PILImage.fromarray(smooth()), "PNG", icc_profile=SWAPPED[:200]),
        saved(PILImage.fromarray(smooth()), "TIFF", icc_profile=SWAPPED + bytes(MAX_BYTES["icc_profile"])),
    ],
    ids=["gray", "CMYK", "corrupt", "cut off", "too large"],
)
@pytest.mark.filterwarnings("ignore")
def test_other_profiles_are_converted_as_ever(data):
    kept, plain = read_contents(data, keep_metadata=True), read_contents(data)
    assert kept.metadata.icc_profile == b"" and kept.notes == plain.notes
    np.testing.assert_array_equal(kept.pixels, plain.pixels)


def test_16_bits_and_gray_keep_their_metadata():
    gray = png(np.full((3, 5, 1), 257 * 9), 0, profile=SWAPPED)
    read = read_contents(gray, keep_metadata=True)
    assert (read.pixels == 9).all() and read.metadata.icc_profile == SWAPPED


@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_metadata_is_restored(contents, format):
    data = encode_image(contents.pixels, format, contents.metadata)
    assert lost_in(format, alpha=False, metadata=contents.metadata) == []
    read = read_contents(data, keep_metadata=True)
    assert directories(read.metadata.exif) == KEPT
    assert (read.metadata.icc_profile, read.metadata.xmp) == (SWAPPED, UPRIGHT_XMP)
    assert read.pixels.shape == contents.pixels.shape  # nothing turns it once more
    assert np.abs(read.pixels.astype(int) - contents.pixels).max() <= (8 if format == "jpeg" else 0)


@pytest.mark.parametrize("part", ["exif", "icc_profile", "xmp"])
@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff"])
def test_each_part_by_itself(contents, format, part):
    metadata = Metadata(**{part: getattr(contents.metadata, part)})
    read = read_contents(encode_image(contents.pixels, format, metadata), keep_metadata=True).metadata
    assert [bool(getattr(read, name)) for name in MAX_BYTES] == [name == part for name in MAX_BYTES]


def test_bmp_holds_none_of_it_and_gets_srgb(contents):
    [note] = lost_in("bmp", alpha=False, metadata=contents.metadata)
    assert note == "The EXIF data, color profile and XMP data were left out, since bmp cannot hold them."
    decoded = read_image(encode_image(contents.pixels, "bmp", contents.metadata))
    np.testing.assert_array_equal(decoded, read_image(photo("PNG")))


def test_jpeg_holds_64_kibibytes_of_exif():
    large = exif()
    large[EXIF_IFD] = {COMMENT: b"ASCII\0\0\0" + bytes(70_000)}
    data = saved(PILImage.fromarray(smooth()), "PNG", exif=large)
    metadata = read_contents(data, keep_metadata=True).metadata
    assert len(metadata.exif) > 70_000
    assert lost_in("jpeg", alpha=True, metadata=metadata) == [
        "The alpha channel was dropped, since jpeg has none.",
        "The EXIF data was left out, since jpeg cannot hold it.",
    ]
    assert read_contents(encode_image(smooth(), "jpeg", metadata), keep_metadata=True).metadata == Metadata()
    for room in (65527, 65528):
        fitting = Metadata(exif=b"x" * room, xmp=b"<x/>" + b" " * 65500)
        assert len(lost_in("jpeg", alpha=False, metadata=fitting)) == 1  # it is no EXIF data
    assert lost_in("jpeg", alpha=False, metadata=Metadata(xmp=b" " * 65504)) == []
    assert lost_in("jpeg", alpha=False, metadata=Metadata(xmp=b" " * 65505)) != []


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "bmp"])
@pytest.mark.parametrize("garbage", [b"garbage", b"II*\0\xff\xff\xff\xff", b"\0", bytes(range(256)) * 10])
def test_garbage_in_a_valid_file_does_not_stop_the_image(format, garbage):
    metadata = Metadata(exif=garbage, icc_profile=garbage, xmp=garbage)
    image = random_image()
    decoded = read_contents(encode_image(image, format, metadata))
    assert decoded.pixels.shape == image.shape
    if format != "jpeg":
        np.testing.assert_array_equal(decoded.pixels, image)


# --- out of image files: what is left out ----------------------------------------------------------------------------


def test_the_thumbnail_and_a_tiff_file_s_own_tags_are_left_out():
    data = saved(PILImage.fromarray(smooth()), "TIFF", exif=exif().tobytes(), compression="raw")
    kept = read_contents(data, keep_metadata=True).metadata.exif
    assert directories(kept) == KEPT
    with_thumbnail = add_thumbnail(exif(1).tobytes())
    jpeg = saved(PILImage.fromarray(smooth()), "JPEG", exif=with_thumbnail)
    assert PILImage.open(io.BytesIO(jpeg)).getexif().get_ifd(ExifTags.IFD.IFD1)
    kept = read_contents(jpeg, keep_metadata=True).metadata.exif
    assert b"thumbnail's bytes" not in kept and directories(kept) == KEPT


def add_thumbnail(data: bytes) -> bytes:
    """A second directory, as cameras write it."""
    prefix, body = data[:6], bytearray(data[6:])
    order = "little" if body[:2] == b"II" else "big"
    count = int.from_bytes(body[8:10], order)
    end = 10 + 12 * count
    body[end : end + 4] = len(body).to_bytes(4, order)
    thumbnail = b"thumbnail's bytes"

    def entry(tag, value):
        return b"".join(number.to_bytes(size, order) for number, size in ((tag, 2), (4, 2), (1, 4), (value, 4)))

    start = len(body) + 2 + 2 * 12 + 4
    body += (2).to_bytes(2, order) + entry(513, start) + entry(514, len(thumbnail)) + bytes(4) + thumbnail
    return prefix + bytes(body)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_corrupt_exif_is_left_out_with_a_note():
    data = saved(
        PILImage.fromarray(smooth()), "PNG", exif=b"Exif\0\0garbage that is no TIFF header", icc_profile=SWAPPED
    )
    read = read_contents(data, keep_metadata=True)
    assert read.metadata == Metadata(icc_profile=SWAPPED)
    assert read.notes == ("The EXIF data is corrupt and was left out.",)
    assert read_contents(data).notes == ()


def test_what_is_larger_than_a_chunk_may_be_is_left_out_with_a_note():
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", b" " * (MAX_BYTES["xmp"] + 1))
    read = read_contents(saved(PILImage.fromarray(smooth()), "PNG", pnginfo=info), keep_metadata=True)
    assert read.metadata.xmp == b"" and read.notes == ("The XMP data is larger than 1048576 bytes and was left out.",)


@pytest.mark.parametrize(
    "before, after",
    [
        (b"<a tiff:Orientation='8'/>", b"<a tiff:Orientation='1'/>"),
        (b"<tiff:Orientation>3</tiff:Orientation>", b"<tiff:Orientation>1</tiff:Orientation>"),
        (b'<a xmp:Rating="5"/>', b'<a xmp:Rating="5"/>'),
    ],
)
def test_xmp_loses_its_orientation(before, after):
    data = saved(PILImage.fromarray(smooth()), "WEBP", lossless=True, xmp=before)
    assert read_contents(data, keep_metadata=True).metadata.xmp == after


# --- chunks ----------------------------------------------------------------------------------------------------------


def test_chunks_there_and_back(contents, tmp_path):
    chunks = metadata_chunks(contents.metadata)
    assert [chunk.type for chunk in chunks] == [b"EXIF", b"ICCP", b"XMPP"]
    assert metadata_in((*chunks, Chunk(b"ALPH", b"?"))) == contents.metadata
    assert metadata_chunks(Metadata()) == () and not Metadata()
    data = cdc_file.pack(b"abcd", 5, 7, b"stream", chunks=chunks)
    (tmp_path / "a.cdc").write_bytes(data)
    assert read_metadata(data) == read_metadata(tmp_path / "a.cdc") == contents.metadata
    assert read_metadata(cdc_file.pack(b"abcd", 5, 7, b"stream")) == Metadata()


@pytest.mark.parametrize("part, kind", [("exif", b"EXIF"), ("icc_profile", b"ICCP"), ("xmp", b"XMPP")])
def test_chunks_that_are_too_large_are_corrupt(part, kind):
    metadata_in((Chunk(kind, bytes(MAX_BYTES[part])),))
    with pytest.raises(BitstreamError, match="too large: the file is corrupt"):
        metadata_in((Chunk(kind, bytes(MAX_BYTES[part] + 1)),))
