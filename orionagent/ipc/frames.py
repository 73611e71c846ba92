"""Owns the search for the end of a MessagePack message that arrives in pieces: each byte is looked at once.

Must not know what the message means, nor build its values.
"""

_ONE_BYTE = frozenset((*range(0x80), 0xC0, 0xC2, 0xC3, *range(0xE0, 0x100)))
_FIXED = {
    **dict.fromkeys((0xCC, 0xD0), 2),
    **dict.fromkeys((0xCD, 0xD1), 3),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 5),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 9),
    **{0xD4 + power: 2 + (1 << power) for power in range(5)},
}
"""Whole sizes in bytes of numbers and fixed extensions, by first byte."""

_COUNTED = {
    **{0xC4 + power: (1 << power, 0) for power in range(3)},
    **{0xC7 + power: (1 << power, 1) for power in range(3)},
    **{0xD9 + power: (1 << power, 0) for power in range(3)},
}
"""Size of the length field, and what follows it beside the bytes, of binaries, extensions, strings."""

_NESTED = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""Size of the count field and values per element of arrays and maps."""


class TooLong(ValueError):
    """The message is, or announces itself to be, longer than the limit."""


class FrameScanner:
    """The place up to which the message at the buffer's start is understood, and how many values it still lacks."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._position = 0
        self._missing = 1

    def find_end(self, data: bytes | bytearray) -> int | None:
        """Return where the first message of `data` ends, None when that has not arrived.

        After None call again with the same bytes and more behind them; after an end without the message.

        Raises:
            TooLong: over the limit, as far as can be told already.
            ValueError: a byte that MessagePack never uses.
        """
        position, missing, size = self._position, self._missing, len(data)
        while missing and position < size:
            byte = data[position]
            if byte in _ONE_BYTE:
                position += 1
            elif byte < 0x90:
                position, missing = position + 1, missing + 2 * (byte & 0x0F)
            elif byte < 0xA0:
                position, missing = position + 1, missing + (byte & 0x0F)
            elif byte < 0xC0:
                position += 1 + (byte & 0x1F)
            elif byte in _FIXED:
                position += _FIXED[byte]
            elif byte in _COUNTED:
                width, more = _COUNTED[byte]
                if position + 1 + width > size:
                    break
                position += 1 + width + more + int.from_bytes(data[position + 1 : position + 1 + width])
            elif byte in _NESTED:
                width, values = _NESTED[byte]
                if position + 1 + width > size:
                    break
                missing += values * int.from_bytes(data[position + 1 : position + 1 + width])
                position += 1 + width
            else:
                raise ValueError(f"MessagePack has no byte {byte:#04x} here")
            missing -= 1
            # Every missing value is at least one byte long.
            if position + missing > self._limit:
                raise TooLong(position + missing)
        if missing or position > size:
            self._position, self._missing = position, missing
            return None
        self._position, self._missing = 0, 1
        return position
