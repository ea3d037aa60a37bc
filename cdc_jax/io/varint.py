"""Varints: unsigned LEB128 integers of 1 to 4 bytes, in their shortest encoding only."""

from cdc_jax.errors import BitstreamError

MAX_VARINT = (1 << 28) - 1
_MAX_BYTES = 4


def pack_varint(value: int) -> bytes:
    """Encodes 0 to `MAX_VARINT`: 7 bits per byte, lowest first; all bytes except the last have their high bit set."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def unpack_varint(data: bytes, position: int) -> tuple[int, int]:
    """Decodes the varint at `position`. Returns its value and the position after it.

    Raises:
      BitstreamError: the varint is cut off, not in its shortest encoding, or longer than 4 bytes.
    """
    value = 0
    for i in range(_MAX_BYTES):
        if position + i >= len(data):
            raise BitstreamError("The file ends inside its header: it is corrupt.")
        byte = data[position + i]
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            if byte == 0 and i > 0:
                raise BitstreamError("The file's header is not in its shortest form: it is corrupt.")
            return value, position + i + 1
    raise BitstreamError(f"The file declares an implausible size, beyond {MAX_VARINT}: it is corrupt.")
