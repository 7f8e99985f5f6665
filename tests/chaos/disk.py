"""What a folder is after the power went: rebuilt from the changes made to it, as a strict disk would leave it.

A strict disk keeps the bytes of a file as of its last ``fsync`` or ``fdatasync``, and names (creations, renames,
unlinks, folders) as of the last ``fsync`` of the folder that they are in. Nothing else is promised to a program, so
each unsynced write may as well have been kept, dropped or torn, and of each folder's unsynced names the first few kept.
"""

import shutil
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from random import Random

from tests.chaos.journal import Change, Kind

Tree = dict[str, bytes | None]
"""Content of files by path; None for folders."""

SHARED_MEMORY = "-shm"
"""Ending of SQLite's mapped file, which nobody syncs or needs."""


@dataclass
class _File:
    now: bytearray
    synced: bytearray
    unsynced: list[Change] = field(default_factory=list)

    def change(self, change: Change) -> None:
        _make(self.now, change)
        self.unsynced.append(change)

    def sync(self) -> None:
        for change in self.unsynced:
            _make(self.synced, change)
        self.unsynced.clear()

    def after_power_loss(self, luck: Random | None) -> bytes:
        if luck is None:
            return bytes(self.synced)
        content = bytearray(self.synced)
        for change in self.unsynced:
            fate = luck.choice(("kept", "dropped", "torn"))
            if fate == "kept":
                _make(content, change)
            elif fate == "torn" and change.kind is Kind.WRITE:
                _make(content, change, luck.randrange(len(change.other) + 1))
        return bytes(content)


def _make(content: bytearray, change: Change, most: int | None = None) -> None:
    """Make a change, of a write the first ``most`` bytes."""
    if change.kind is Kind.WRITE:
        written = change.other[:most]
        content.extend(bytes(max(0, change.offset + len(written) - len(content))))
        content[change.offset : change.offset + len(written)] = written
    else:
        content.extend(bytes(max(0, change.offset - len(content))))
        del content[change.offset :]


_Naming = list[tuple[str, _File | None, bool]]
"""Path, the file it names or None for a folder, and whether it names it from then on or no more."""


class Disk:
    """A folder, seen twice: as programs see it, and what the disk is bound to keep of it."""

    def __init__(self, root: Path) -> None:
        self._files: dict[int, _File] = {}
        self._now: dict[str, _File | None] = {}
        for path in sorted(root.rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_dir():
                self._now[name] = None
            else:
                content = path.read_bytes()
                self._now[name] = self._files[path.stat().st_ino] = _File(bytearray(content), bytearray(content))
        self._kept = dict(self._now)
        self._unsynced: dict[str, list[_Naming]] = {}

    def change(self, change: Change) -> None:
        """Follow one change."""
        match change.kind:
            case Kind.CREATE:
                # An inode number is used again when its file is gone.
                self._files[change.inode] = created = _File(bytearray(), bytearray())
                self._name(change.path, [(change.path, created, True)])
            case Kind.MKDIR:
                self._name(change.path, [(change.path, None, True)])
            case Kind.UNLINK:
                self._name(change.path, [(change.path, self._now[change.path], False)])
            case Kind.RENAME | Kind.LINK:
                named, other = self._now[change.path], change.other.decode()
                if _folder(other) != _folder(change.path):
                    raise ValueError(f"{change.path} to {other}: names that move between folders are not followed")
                moved: _Naming = [(change.path, named, False)] if change.kind is Kind.RENAME else []
                self._name(change.path, [*moved, (other, named, True)])
            case Kind.SYNC_FOLDER:
                for naming in self._unsynced.pop(change.path.rstrip("/") or ".", []):
                    _rename(self._kept, naming)
            case Kind.SYNC:
                self._files[change.inode].sync()
            case Kind.SYNC_FAILED:
                self._files[change.inode].unsynced.clear()
            case Kind.WRITE | Kind.TRUNCATE:
                self._files[change.inode].change(change)

    def now(self) -> Tree:
        """The folder as programs see it."""
        return _reachable({path: bytes(file.now) if file else None for path, file in self._now.items()})

    def after_power_loss(self, luck: Random | None = None) -> Tree:
        """The folder as the disk may have it when the power comes back.

        Parameters
        ----------
        luck : decides about what was not synced; without it nothing of that is kept.
        """
        kept = dict(self._kept)
        for _, namings in sorted(self._unsynced.items()):
            for naming in namings[: luck.randrange(len(namings) + 1) if luck else 0]:
                _rename(kept, naming)
        return _reachable({path: file.after_power_loss(luck) if file else None for path, file in sorted(kept.items())})

    def _name(self, path: str, naming: _Naming) -> None:
        _rename(self._now, naming)
        self._unsynced.setdefault(_folder(path), []).append(naming)


def read_tree(root: Path) -> Tree:
    """A folder as it is."""
    paths = {path.relative_to(root).as_posix(): path for path in root.rglob("*")}
    return _reachable({name: None if path.is_dir() else path.read_bytes() for name, path in paths.items()})


def write_tree(root: Path, tree: Tree) -> None:
    """Put a folder in place of what is there."""
    for path in root.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, content in sorted(tree.items()):
        if content is None:
            (root / name).mkdir(mode=0o750)
        else:
            (root / name).write_bytes(content)


def _folder(path: str) -> str:
    return PurePosixPath(path).parent.as_posix()


def _rename(names: dict[str, _File | None], naming: _Naming) -> None:
    for path, file, there in naming:
        if there:
            names[path] = file
        else:
            names.pop(path, None)


def _reachable(tree: Tree) -> Tree:
    """Without what lies in folders that are not there, and without mapped memory."""
    there: Tree = {}
    for path in sorted(tree):
        if _folder(path) in (".", *there) and not path.endswith(SHARED_MEMORY):
            there[path] = tree[path]
    return there
