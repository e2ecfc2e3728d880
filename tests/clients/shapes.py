"""What several vendors' tests ask for."""

import base64
import struct
import zlib
from typing import Literal

from pydantic import BaseModel, ConfigDict

HOTEL = "You are the porter of the Hotel Meridian. Breakfast is from seven to ten. The pool closes at nine."


class Verdict(BaseModel):
    # As strict schemas have it: without this, other keys may follow, and a small model never stops.
    model_config = ConfigDict(extra="forbid")

    sentiment: Literal["good", "bad"]
    stars: Literal[1, 2, 3, 4, 5]


REVIEW = "A guest writes: the breakfast was wonderful. Rate the review."


def picture() -> bytes:
    """A red square, 8 by 8 pixels, as PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + b"\xff\0\0" * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


PDF = b"%PDF-1.7\n%%EOF\n"
PICTURE = base64.b64encode(picture()).decode()
