"""Test images, and image files that Pillow cannot write: profiles, 16-bit PNG, raw TIFF."""

import io
import struct
import zlib

import numpy as np

from cdc_jax.io.images import load_image

# Values that are no image of uint8 [h, w, 3 or 4].
NOT_IMAGES = [
    np.zeros((4, 4), np.uint8),
    np.zeros((4, 4, 2), np.uint8),
    np.zeros((4, 4, 5), np.uint8),
    np.zeros((4, 4, 3), np.float32),
    np.zeros((0, 4, 3), np.uint8),
]


def random_image(height=17, width=33, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def smooth(height=40, width=56):
    y, x = np.mgrid[:height, :width]
    return np.stack([4 * x, 6 * y, 2 * (x + y)], -1).astype(np.uint8)


def saved(image, format, **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def quietly(data, bits=8):
    """Reads an image; asserts that it causes no warning, but for that of more than 8 bits a sample."""
    image, notes = load_image(data)
    assert notes == ([] if bits == 8 else [f"{bits} bits a sample were rounded to 8."])
    assert image.dtype == np.uint8 and image.flags.c_contiguous
    return image


def icc_profile(space, tags):
    """A minimal display profile of ICC version 2 with these tags."""
    body, table = b"", struct.pack(">I", len(tags))
    offset = 128 + 4 + 12 * len(tags)
    for signature, data in tags:
        table += signature + struct.pack(">II", offset + len(body), len(data))
        body += data + b"\0" * (-len(data) % 4)
    size = offset + len(body)
    white = struct.pack(">iii", 63190, 65536, 54061)  # D50 in 16.16
    header = struct.pack(">I4sI4s4s4s", size, b"\0" * 4, 0x02100000, b"mntr", space, b"XYZ ")
    header += struct.pack(">6H", 2020, 1, 1, 0, 0, 0) + b"acsp" + b"\0" * 28 + white + b"\0" * 48
    assert len(header) == 128
    return header + table + body


def xyz(x, y, z):
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(v * 65536) for v in (x, y, z)))


def gamma_curve(gamma):
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))


DESCRIPTION = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + b"\0" * 78
WHITE = xyz(0.9642, 1.0, 0.8249)
# sRGB's primaries, adapted to D50.
RED, GREEN, BLUE = xyz(0.4361, 0.2225, 0.0139), xyz(0.3851, 0.7169, 0.0971), xyz(0.1431, 0.0606, 0.7141)


def rgb_profile(red, green, blue, gamma, curve=None):
    colorants = [(b"rXYZ", red), (b"gXYZ", green), (b"bXYZ", blue)]
    curves = [(name, curve or gamma_curve(gamma)) for name in (b"rTRC", b"gTRC", b"bTRC")]
    return icc_profile(b"RGB ", [(b"desc", DESCRIPTION), (b"wtpt", WHITE), *colorants, *curves])


def gray_profile(gamma):
    return icc_profile(b"GRAY", [(b"desc", DESCRIPTION), (b"wtpt", WHITE), (b"kTRC", gamma_curve(gamma))])


def srgb_of_linear(linear):
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * np.maximum(linear, 1e-9) ** (1 / 2.4) - 0.055)


def png(samples, color_type, profile=None, transparent=None):
    """A 16-bit PNG of samples [h, w, channels], which Pillow cannot write in color."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = samples.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    header = struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)
    between = chunk(b"iCCP", b"test\0\0" + zlib.compress(profile)) if profile else b""
    between += chunk(b"tRNS", np.array(transparent, ">u2").tobytes()) if transparent is not None else b""
    image = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + between + image


def tiff(data, width, height, *, bits, photometric=1, channels=1, order="<", sample_format=1):
    """An uncompressed TIFF of one strip."""
    tags = {
        **{256: (4, width), 257: (4, height), 258: (3, bits), 259: (3, 1), 262: (3, photometric), 273: (4, 0)},
        **{277: (3, channels), 278: (4, height), 279: (4, len(data)), 339: (3, sample_format)},
    }
    end = 8 + 2 + 12 * len(tags) + 4
    extra, entries = b"", struct.pack(order + "H", len(tags))
    strip = end + 2 * 2 * channels * (channels > 1)
    for tag, (kind, value) in tags.items():
        if tag in (258, 339) and channels > 1:
            entries += struct.pack(order + "HHII", tag, kind, channels, end + len(extra))
            extra += struct.pack(order + f"{channels}H", *[value] * channels)
        elif kind == 3:
            entries += struct.pack(order + "HHIHH", tag, kind, 1, value, 0)
        else:
            entries += struct.pack(order + "HHII", tag, kind, 1, strip if tag == 273 else value)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(order + "I", 8) + entries + struct.pack(order + "I", 0) + extra + data
