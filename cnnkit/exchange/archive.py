"""A zip archive from a stranger: which members it may have, and how large they may be, is said before it is opened."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self, final

from cnnkit.errors import CheckpointError

LARGEST_TEXT: Final = 16 << 20
"""Bytes of text that are read at most: far more than any model of ours needs."""

SMALL: Final = 64 << 20
"""Up to so many bytes it does not matter how much smaller a member is in the archive."""

EXPANSION: Final = 100
"""A larger member is at most so many times what it takes in the archive. Keras itself does not compress."""

_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    RuntimeError,  # an encrypted member, or what newer versions of the format have
    ValueError,  # among others, a place beyond any file
)
"""What `zipfile` raises for archives that are not as they should be."""


@final
class Archive:
    """The archive at `path`, opened for reading; a context manager. `sizes` has the size of each member when unpacked.

    Raises `CheckpointError` unless it has all `required` members, each once, and besides only `optional` ones.
    """

    def __init__(self, path: Path, required: Sequence[str], optional: Sequence[str]) -> None:
        self.path = path
        self._look()
        with self._reporting():
            self._file = zipfile.ZipFile(path)
        try:
            self.sizes = self._checked(required, optional)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def damage(self, what: str) -> CheckpointError:
        """The error that says what is wrong with the archive."""
        return CheckpointError(f"{self.path} cannot be imported: {what}. Save the model again with Keras 3, as .keras.")

    def read(self, name: str) -> bytes:
        """A member, unpacked, its checksum compared."""
        with self._reporting():
            return self._file.read(name)

    def read_text(self, name: str) -> bytes:
        """A member of text, which is no longer than `LARGEST_TEXT`."""
        if self.sizes[name] > LARGEST_TEXT:
            raise self.damage(f"its {name} has {self.sizes[name]:,} bytes, more than any model needs")
        return self.read(name)

    def _look(self) -> None:
        with self._reporting():
            if not self.path.is_file():
                what = "it is a folder" if self.path.is_dir() else "there is no such file"
                raise CheckpointError(f"cannot read {self.path}: {what}. Give a .keras file.")
            with self.path.open("rb") as file:
                start = file.read(8)
        if start.startswith(b"\x89HDF\r\n\x1a\n"):
            raise self.damage("it is an HDF5 file, the format of Keras before 3, or weights alone")
        if not start.startswith(b"PK\x03\x04"):
            raise self.damage("it is no zip archive, which a .keras file is")

    def _checked(self, required: Sequence[str], optional: Sequence[str]) -> dict[str, int]:
        sizes: dict[str, int] = {}
        for member in self._file.infolist():
            name = member.filename
            if name not in (*required, *optional):
                known = ", ".join((*required, *optional))
                raise self.damage(f"it holds {name[:60]!r}, and a .keras file of our layers has only {known}")
            if name in sizes:
                raise self.damage(f"it holds {name} twice")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise self.damage(f"its {name} is compressed in a way that no .keras file is")
            if member.file_size > SMALL and member.file_size > EXPANSION * member.compress_size:
                raise self.damage(
                    f"its {name} would grow from {member.compress_size:,} to {member.file_size:,} bytes when unpacked"
                )
            sizes[name] = member.file_size
        missing = [name for name in required if name not in sizes]
        if missing:
            raise self.damage(f"it lacks {' and '.join(missing)}")
        return sizes

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except _DAMAGE as error:
            raise self.damage(f"it is damaged ({error})") from error
        except OSError as error:
            raise CheckpointError(
                f"cannot read {self.path}: {error.strerror or error}. Check the file and its permissions."
            ) from error
