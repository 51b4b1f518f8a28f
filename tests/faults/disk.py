"""The disk after any number of calls of a logged run: as a kill leaves it, and as a power cut may.

interpose.cpp writes the log: a line "WHAT NUMBER BYTES LENGTH LENGTH", then two paths of those
lengths, then the bytes of a write.
"""

import os
import random
import shutil

PAGE, SECTOR = 4096, 512


class Call:
    def __init__(self, what, number, path, other, data):
        self.what, self.number, self.path, self.other, self.data = what, number, path, other, data


def read_log(path):
    with open(path, "rb") as file:
        text = file.read()
    calls, at = [], 0
    while at < len(text):
        end = text.index(b"\n", at)
        what, number, size, first, second = text[at:end].split()
        at = end + 1
        names = text[at : at + int(first) + int(second)].decode("utf-8", "surrogateescape")
        at += int(first) + int(second)
        data = text[at : at + int(size)]
        at += int(size)
        calls.append(
            Call(what.decode(), int(number), names[: int(first)], names[int(first) :], data)
        )
    return calls


class File:
    def __init__(self):
        self.bytes = bytearray()
        self.synced = b""  # what a sync has put on disk
        self.dirty = set()  # sectors written since

    def write(self, at, data):
        if at > len(self.bytes):
            self.bytes.extend(bytes(at - len(self.bytes)))
        self.bytes[at : at + len(data)] = data
        self.dirty.update(range(at // SECTOR, (at + len(data) + SECTOR - 1) // SECTOR))

    def resize(self, size):
        if size < len(self.bytes):
            del self.bytes[size:]
        else:
            self.bytes.extend(bytes(size - len(self.bytes)))

    def sync(self):
        self.synced = bytes(self.bytes)
        self.dirty.clear()

    def after_power_cut(self, draw, unit):
        """Each page or sector that no sync followed is there or is not; so is the last growth."""
        out = bytearray(self.bytes)
        for block in sorted({sector * SECTOR // unit for sector in self.dirty}):
            if draw.random() < 0.5:
                continue
            begin, end = block * unit, min((block + 1) * unit, len(out))
            old = self.synced[begin:end]
            out[begin:end] = old + bytes(end - begin - len(old))
        if len(self.bytes) > len(self.synced) and draw.random() < 0.5:
            del out[max(len(self.synced), draw.choice([0, len(out) // unit * unit])) :]
        return bytes(out)


class Disk:
    """Names are kept in order, as a journal does; bytes are lost by page, or by sector where a
    disk tears pages."""

    def __init__(self):
        self.names = {}  # path: File, or None of a folder

    def hold(self, files):
        """What tree_at() read, long on disk."""
        for path, data in files.items():
            if data is not None:
                file = File()
                file.write(0, data)
                file.sync()
            self.names[path] = None if data is None else file

    def apply(self, call):
        names = self.names
        if call.what in ("create", "truncate"):
            names[call.path] = File()
        elif call.what == "write" and names.get(call.path):
            names[call.path].write(call.number, call.data)
        elif call.what == "size" and names.get(call.path):
            names[call.path].resize(call.number)
        elif call.what == "sync" and names.get(call.path):
            names[call.path].sync()
        elif call.what == "folder":
            names[call.path] = None
        elif call.what == "remove":
            names.pop(call.path, None)
        elif call.what == "rename":
            self.rename(call.path, call.other, exchange=call.number == 2)

    def rename(self, old, new, exchange):
        def under(path, name):
            return path == name or path.startswith(name + "/")

        moved, back = {}, {}
        for path in list(self.names):
            if under(path, old):
                moved[new + path[len(old) :]] = self.names.pop(path)
            elif under(path, new):
                back[old + path[len(new) :]] = self.names.pop(path)
        self.names.update(moved)
        if exchange:
            self.names.update(back)

    def build(self, root, place=None, draw=None, unit=PAGE):
        """Makes the files below `root` anew, or the same tree at `place`."""
        target = place or root
        shutil.rmtree(target, ignore_errors=True)
        os.makedirs(target)
        for path in sorted(self.names):
            if not path.startswith(root):
                continue
            there = target + path[len(root) :]
            file = self.names[path]
            if file is None:
                os.makedirs(there, exist_ok=True)
                continue
            os.makedirs(os.path.dirname(there), exist_ok=True)
            with open(there, "wb") as out:
                out.write(file.after_power_cut(draw, unit) if draw else bytes(file.bytes))


def tree_at(root):
    """path: the bytes of every file below `root`, None of a folder."""
    found = {}
    for folder, _, names in os.walk(root):
        found[folder] = None
        for name in names:
            with open(os.path.join(folder, name), "rb") as file:
                found[os.path.join(folder, name)] = file.read()
    return found


def disk_after(calls, count, before=None):
    """After `count` calls of a run that found the files `before`, see tree_at()."""
    disk = Disk()
    disk.hold(before or {})
    for call in calls[:count]:
        disk.apply(call)
    return disk


def draws(seed, count):
    return [random.Random(f"{seed} {n}") for n in range(count)]
