"""Unsigned integers in 1 to 4 bytes: LEB128, shortest form only."""

from cdc_jax.errors import BitstreamError

MAX_VARINT = (1 << 28) - 1
_MAX_BYTES = 4


def pack_varint(value: int) -> bytes:
    """7 bits a byte, lowest first, the high bit set in all bytes but the last."""
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def unpack_varint(data: bytes, position: int) -> tuple[int, int]:
    """The value of the varint at `position`, and the position after it.

    Raises:
      BitstreamError: it is cut off, longer than need be, or longer than 4 bytes.
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
