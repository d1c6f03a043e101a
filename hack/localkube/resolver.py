"""The two messages of an IPv4 name query (RFC 1035, section 4). Pure."""

import struct

_TYPE_A = 1
_CLASS_IN = 1
_RECURSION_DESIRED = 0x0100
_RESPONSE_CODE = 0x000F
_POINTER = 0xC0
_IPV4_BYTES = 4


def query(identifier: int, name: str) -> bytes:
    """Return the query for the IPv4 addresses of a name."""
    header = struct.pack("!6H", identifier, _RECURSION_DESIRED, 1, 0, 0, 0)
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    return header + labels + b"\0" + struct.pack("!2H", _TYPE_A, _CLASS_IN)


def addresses(identifier: int, answer: bytes) -> list[str]:
    """Return the addresses in the answer; none for another query or an error code.

    Raises `ValueError` when the message ends too early.
    """
    try:
        return _addresses(identifier, answer)
    except (struct.error, IndexError) as error:
        raise ValueError("the name server's answer is cut off") from error


def _addresses(identifier: int, answer: bytes) -> list[str]:
    got, flags, questions, records, _, _ = struct.unpack_from("!6H", answer)
    if got != identifier or flags & _RESPONSE_CODE:
        return []
    at = 12
    for _ in range(questions):
        at = _after_name(answer, at) + 4
    found = []
    for _ in range(records):
        at = _after_name(answer, at)
        kind, _, _, length = struct.unpack_from("!2HIH", answer, at)
        data = answer[at + 10 : at + 10 + length]
        if kind == _TYPE_A and length == _IPV4_BYTES:
            found.append(".".join(str(byte) for byte in data))
        at += 10 + length
    return found


def _after_name(message: bytes, at: int) -> int:
    while message[at]:
        if message[at] & _POINTER == _POINTER:
            return at + 2
        at += 1 + message[at]
    return at + 1
