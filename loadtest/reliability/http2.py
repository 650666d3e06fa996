"""As much of HTTP/2 as clients need that behave as no gRPC library does: RFC 9113's frames, HPACK's literal fields."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
END_STREAM, ACK, END_HEADERS = 1, 1, 4
INITIAL_WINDOW_SIZE = 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CONNECT_S = 10.0


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """One frame on the wire."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header_block(fields: Mapping[str, str]) -> bytes:
    """HPACK: literal fields that are never indexed, without Huffman's code. Names and values below 127 bytes."""
    block = b""
    for pair in fields.items():
        block += b"\x00"
        for text in pair:
            assert len(text) < 127
            block += bytes([len(text)]) + text.encode()
    return block


def grpc_headers(path: str) -> bytes:
    """Those of a gRPC call."""
    return header_block(
        {
            ":method": "POST", ":scheme": "http", ":path": path, ":authority": "samgate",
            "content-type": "application/grpc", "te": "trailers",
        }
    )  # fmt: skip


def message(data: bytes, claimed: int | None = None) -> bytes:
    """A gRPC message, or one that claims another length."""
    return struct.pack(">BI", 0, len(data) if claimed is None else claimed) + data


@dataclass(slots=True)
class Wire:
    """One connection. It answers pings and settings, so that the server finds it alive; ``ended`` holds the streams
    that the server has ended, ``closed`` is set when the whole connection is."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    ended: set[int] = field(default_factory=set)
    closed: asyncio.Event = field(default_factory=asyncio.Event)
    told_to_go: bool = False
    _reading: asyncio.Task[None] | None = None

    @classmethod
    async def connect(cls, target: str, settings: Mapping[int, int] | None = None) -> Wire:
        """Raises OSError and TimeoutError."""
        host, _, port = target.rpartition(":")
        async with asyncio.timeout(_CONNECT_S):
            reader, writer = await asyncio.open_connection(host, int(port))
        wire = cls(reader, writer)
        payload = b"".join(struct.pack(">HI", key, value) for key, value in (settings or {}).items())
        wire.write(PREFACE + frame(SETTINGS, payload=payload))
        wire._reading = asyncio.create_task(wire._read())
        return wire

    def write(self, data: bytes) -> None:
        """Queue ``data``; what a closed connection would take is dropped."""
        if not self.closed.is_set():
            self.writer.write(data)

    async def close(self) -> None:
        """Go away."""
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()
        if self._reading is not None:
            await asyncio.wait([self._reading])

    async def _read(self) -> None:
        try:
            while True:
                head = await self.reader.readexactly(9)
                length, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
                stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
                payload = await self.reader.readexactly(length)
                if kind == SETTINGS and not flags & ACK:
                    self.write(frame(SETTINGS, ACK))
                elif kind == PING and not flags & ACK:
                    self.write(frame(PING, ACK, payload=payload))
                elif kind == GOAWAY:
                    self.told_to_go = True
                elif kind == RST_STREAM or (kind in (DATA, HEADERS) and flags & END_STREAM):
                    self.ended.add(stream)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()
