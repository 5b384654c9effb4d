"""Reads a recording by docs/recording.md alone: with Python's standard library, and nothing of observer.

    decode.py FILE           what is in it, as JSON
    decode.py FILE --bytes   its chunks, unpacked, one after the other
"""

import json
import struct
import sys
import zlib


def unpacked(block, size):
    """An LZ4 block: https://github.com/lz4/lz4/blob/dev/doc/lz4_Block_format.md"""
    out, at = bytearray(), 0

    def length(first):
        nonlocal at
        total = first
        if first == 15:
            while True:
                more = block[at]
                at += 1
                total += more
                if more != 255:
                    break
        return total

    while at < len(block):
        token = block[at]
        at += 1
        literals = length(token >> 4)
        out += block[at : at + literals]
        at += literals
        if at == len(block):
            break
        back = block[at] | block[at + 1] << 8
        at += 2
        match = length(token & 15) + 4
        assert 0 < back <= len(out), "a match before the beginning"
        while match > 0:
            piece = out[-back : len(out) - back + match] if match < back else out[-back:]
            out += piece
            match -= len(piece)
    assert len(out) == size, "another length than it says"
    return bytes(out)


def chunks(data):
    assert data[:8] == b"observer", "not a recording"
    at = 10
    while at + 12 <= len(data):
        packed, size, check = struct.unpack_from("<III", data, at)
        assert 0 < packed <= 4 << 20 and 0 < size <= 4 << 20, "a length that makes no sense"
        block = data[at + 12 : at + 12 + packed]
        if len(block) < packed:
            return
        assert zlib.crc32(data[at : at + 8] + block) == check, "damaged"
        yield unpacked(block, size)
        at += 12 + packed


class Fields:
    """Values of postcard, one after the other."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def raw(self, count):
        self.at += count
        assert self.at <= len(self.data), "an entry that is cut off"
        return self.data[self.at - count : self.at]

    def byte(self):
        return self.raw(1)[0]

    def number(self):
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def signed(self):
        value = self.number()
        return value >> 1 ^ -(value & 1)

    def bytes(self):
        return self.raw(self.number())

    def text(self):
        return self.bytes().decode()

    def duration(self):
        return self.number() * 10**9 + self.number()

    def flag(self):
        value = self.byte()
        assert value < 2, "neither true nor false"
        return value == 1

    def option(self, read):
        return read() if self.flag() else None

    def list(self, read):
        return [read() for _ in range(self.number())]

    def numbers(self, count):
        return [self.number() for _ in range(count)]

    def options(self, count):
        return [self.option(self.number) for _ in range(count)]

    def end(self):
        return self.at == len(self.data)


class Recording:
    def __init__(self, data):
        (self.format,) = struct.unpack_from("<H", data, 8)
        assert self.format in (4, 5, 6), "another format"
        self.addresses, self.names, self.paths = set(), set(), set()
        self.inputs, self.records, self.times, self.losses = {}, {}, [], None
        found = chunks(data)
        header = Fields(next(found))
        self.header(header)
        assert header.end(), "more than a header"
        for chunk in found:
            entries = Fields(chunk)
            while not entries.end():
                self.times.append(entries.number())
                self.input(entries)

    def header(self, f):
        self.observer, self.arch, self.kernel = f.text(), f.text(), f.text()
        self.started_at = f.duration()
        self.hooks = f.list(lambda: self.hook(f))
        self.basis = [f.option(f.duration), f.flag(), f.number(), f.flag()]
        self.begins_at, self.losses_before = 0, [0, 0, 0, 0, None]
        if self.format > 4:
            self.begins_at, self.losses_before = f.duration(), self.read_losses(f)

    def hook(self, f):
        return [f.number(), f.option(f.number), f.list(lambda: [f.number(), f.text()])]

    def read_losses(self, f):
        return f.numbers(4) + f.options(1)

    def input(self, f):
        names = [
            "record",
            "begin_scan",
            "end_scan",
            "abandon_scan",
            "end_round",
            "begin_fd_scan",
            "end_fd_scan",
            "namespace",
            "forget_namespace",
            "host",
            "losses",
            "gaps",
            "tick",
            "restart_totals",
            "service",
            "stream_loss",
            "cost",
            "unchanged",
        ]
        kind = names[f.number()]
        self.inputs[kind] = self.inputs.get(kind, 0) + 1
        if kind == "record":
            self.record(f.bytes())
        elif kind in ("begin_scan", "forget_namespace", "unchanged"):
            f.number()
        elif kind == "end_round":
            f.duration(), f.duration(), f.number()
        elif kind == "namespace":
            f.number(), self.namespace(f)
        elif kind == "host":
            self.host(f)
        elif kind == "losses":
            self.losses = self.read_losses(f)
        elif kind == "gaps":
            f.number()
            for _ in range(6):
                f.number(), f.option(f.signed)
            f.number(), f.text(), f.option(f.signed), f.text()
        elif kind == "service":
            f.numbers(2), f.option(lambda: self.service(f))
        elif kind == "stream_loss":
            f.number(), f.list(f.number)
        elif kind == "cost":
            f.numbers(3), f.numbers(2), f.numbers(2)

    def name(self, f):
        self.names.add(f.bytes().decode(errors="replace"))

    def comm(self, raw):
        name = raw.split(b"\0")[0]
        if name:
            self.names.add(name.decode(errors="replace"))

    def namespace(self, f):
        if f.number() > 0:
            self.name(f)
        f.option(lambda: f.numbers(2))
        f.list(lambda: f.numbers(2))
        f.option(f.byte), f.option(f.duration)
        f.options(6)  # time_wait .. aborts_on_memory
        f.option(f.byte), f.option(f.byte)
        f.options(1 + 4)  # tcp_max_syn_backlog, what listeners dropped
        f.option(lambda: [f.numbers(2), f.option(f.duration), f.option(lambda: f.numbers(3))])
        f.options(5)  # shared
        f.list(lambda: [f.number(), self.comm(f.raw(16)), f.number()])
        f.option(f.flag), f.options(1)

    def host(self, f):
        f.text()
        f.option(lambda: f.numbers(2)), f.options(1)
        f.list(lambda: [f.number(), self.comm(f.raw(16)), f.number(), f.options(2)])
        f.option(lambda: f.numbers(2)), f.option(lambda: [f.duration(), f.number()])

    def service(self, f):
        f.option(lambda: self.paths.add(f.bytes().decode(errors="replace")))
        f.option(lambda: self.name(f))
        f.option(lambda: [self.name(f), f.option(lambda: self.name(f)), f.option(lambda: self.name(f))])
        f.option(lambda: [self.name(f), f.option(lambda: self.name(f)), f.options(1)])
        f.option(lambda: self.name(f))

    def record(self, raw):
        sock, _, netns, pid, local_port, remote_port, kind, *_ = struct.unpack_from("=QQIIHHBBBB", raw)
        sizes = {1: 72, 2: 88, 3: 88, 4: 88, 5: 32, 6: 72, 7: 56, 8: 48, 9: 104, 10: 80, 11: 72, 12: 40, 13: 32}
        assert len(raw) == sizes[kind], "a record of another length"
        self.records[kind] = self.records.get(kind, 0) + 1
        addresses = {1: [32, 48], 2: [32, 48], 3: [32, 48], 4: [32, 48], 6: [32, 48], 9: [32, 48], 11: [56]}
        for at in addresses.get(kind, []):
            self.addresses.add(raw[at : at + 16].hex())
        comms = {2: 72, 3: 72, 4: 72, 7: 32, 9: 64, 10: 32, 11: 32}
        if kind in comms:
            self.comm(raw[comms[kind] : comms[kind] + 16])

    def summary(self):
        times = [at - self.begins_at for at in self.times]
        assert times == sorted(times), "time that goes back"
        return {
            "format": self.format,
            "observer": self.observer,
            "arch": self.arch,
            "kernel": self.kernel,
            "started_at": self.started_at,
            "hooks": [[hook, method] for hook, method, _ in self.hooks],
            "inputs": self.inputs,
            "records": self.records,
            "first_at": times[0],
            "last_at": times[-1],
            "sum_of_times": sum(times),
            "losses": self.losses,
            "addresses": sorted(self.addresses),
            "names": sorted(self.names),
            "paths": sorted(self.paths),
        }


data = open(sys.argv[1], "rb").read()
if sys.argv[2:] == ["--bytes"]:
    sys.stdout.buffer.write(b"".join(chunks(data)))
else:
    json.dump(Recording(data).summary(), sys.stdout)
