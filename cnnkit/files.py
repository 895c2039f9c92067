"""Files that are written whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from pathlib import Path

_PREFIX, _SUFFIX = ".cnnkit-", ".tmp"


def write_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to the file `path`, so that at every moment, a crash included, the old or the new file is there.

    The data goes to a new file in the same folder, is forced to the disk, and takes the name in one step. After any
    failure the new file is removed and the old one stands as it was. A link is followed; the permissions of a file
    that was there are kept. Raises `OSError`, which is `FileNotFoundError` where the folder does not exist and
    `IsADirectoryError` where `path` is a folder.
    """
    target = Path(os.path.realpath(path))
    mode = _mode_of(target)
    temporary = target.with_name(f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}")
    # O_EXCL: a name that somebody else has taken, or laid a link at, is an error and not a file to write into.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if mode is not None:
            temporary.chmod(mode)
        temporary.replace(target)
    except BaseException:  # Ctrl-C too must leave nothing behind
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def remove_leftovers(folder: Path) -> None:
    """Remove the new files of `write_whole` that a kill kept from getting their names. Nobody may be writing there."""
    for leftover in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _mode_of(target: Path) -> int | None:
    """The permissions of the file that will be replaced, None where there is none."""
    try:
        found = target.stat().st_mode
    except FileNotFoundError:
        return None
    if stat.S_ISDIR(found):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if not stat.S_ISREG(found):  # replacing /dev/null would harm everybody
        raise OSError(errno.EINVAL, "not a regular file", str(target))
    return stat.S_IMODE(found)


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk. A failure here leaves the new file, whole, under its name."""
    if os.name == "nt":  # Windows cannot open a folder, and keeps its own journal of names
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # EINVAL: this file system offers no such promise
            raise
    finally:
        os.close(descriptor)
