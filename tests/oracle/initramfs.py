"""A newc cpio archive in memory: all that the guest has for a disk."""

import os


def _entry(number, name, mode, data=b"", device=(0, 0)):
    path = name.encode() + b"\0"
    fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(path), 0)
    head = b"070701" + b"".join(b"%08X" % f for f in fields) + path
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


def archive(init, files, programs=()):
    """An initramfs with /init and other files, given by path without the first slash; those of `programs` can be run."""
    folders = {"dev", "proc", "sys"}
    for path in files:
        while path := os.path.dirname(path):
            folders.add(path)
    entries = [(f, 0o40755, b"", (0, 0)) for f in sorted(folders)]
    entries.append(("dev/console", 0o20600, b"", (5, 1)))
    entries.append(("init", 0o100755, init, (0, 0)))
    entries += [(path, 0o100755 if path in programs else 0o100644, data, (0, 0)) for path, data in files.items()]
    parts = [_entry(number, *entry) for number, entry in enumerate(entries, 1)]
    return b"".join(parts) + _entry(0, "TRAILER!!!", 0)
