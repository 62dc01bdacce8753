"""The file system calls that durability hangs on, in one place so that tests can break them.

Everything here blocks; the driver calls it from its lane only.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
from pathlib import Path

_PRIVATE_FILE = 0o600
_PRIVATE_DIR = 0o700


class Files:
    """The real thing. A test or the simulator hands in a subclass that fails or forgets."""

    def open(self, path: Path, *, create: bool = False) -> int:
        """Open for reading and writing; `create` makes (and empties) a file of mode 0600."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return os.open(path, flags, _PRIVATE_FILE)

    def write(self, fd: int, data: bytes | bytearray, offset: int) -> None:
        """Write all of `data` at `offset`; raises OSError, perhaps after a part of it."""
        left = memoryview(data)
        while left:
            done = os.pwrite(fd, left, offset)
            left = left[done:]
            offset += done

    def sync(self, fd: int) -> None:
        """Wait until the file's data, and its size, are on the disk."""
        os.fdatasync(fd)

    def sync_dir(self, path: Path) -> None:
        """Wait until the directory's entries are on the disk."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def allocate(self, fd: int, size: int) -> None:
        """Reserve `size` bytes reading as zero, so that appends cannot run out of space.

        File systems without that ability get a file of that size with holes.
        """
        try:
            os.posix_fallocate(fd, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
                raise
            os.ftruncate(fd, size)

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file to `size` bytes."""
        os.ftruncate(fd, size)

    def rename(self, source: Path, target: Path) -> None:
        """Give a file its final name, at once."""
        os.rename(source, target)

    def remove(self, path: Path) -> None:
        """Delete a file; one that is gone already is fine."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)

    def make_dir(self, path: Path) -> None:
        """Make a private directory and its parents; existing ones are fine."""
        path.mkdir(mode=_PRIVATE_DIR, parents=True, exist_ok=True)

    def lock(self, fd: int) -> bool:
        """Take the lock a stock engine takes on a segment; False when another holds it.

        That is an open-file-description write lock over the whole file, so it follows the
        file through renames and ends with the descriptor. Where the kernel lacks it: flock.
        """
        whole = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, whole)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                return False
            if error.errno != errno.EINVAL:
                raise
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True


def last_data(fd: int, start: int, size: int) -> int:
    """Offset just past the last byte that is not zero in `start`..`size`; `start` if none.

    Skips holes and reserved space without reading them, where the file system tells.
    """
    end = start
    offset = start
    while offset < size:
        try:
            data = os.lseek(fd, offset, os.SEEK_DATA)
            stop = min(os.lseek(fd, data, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only holes up to the end
                break
            data, stop = offset, size
        while data < stop:
            block = os.pread(fd, min(1 << 20, stop - data), data)
            if not block:
                return end
            kept = len(block.rstrip(b"\0"))
            if kept:
                end = data + kept
            data += len(block)
        offset = stop
    return end
