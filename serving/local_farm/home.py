"""What is known of the farm of one home: its lock, its state file and its folders.

A farm holds the lock for as long as its supervisor lives, and the kernel gives it back however that dies. So who
has the lock may clear what an earlier farm of the same home left, and nobody else's.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from serving.errors import Fault, UserError

MAX_RAY_FOLDER_CHARS = 36
"""Characters of the folder that Ray puts its sockets under: a socket's path may have 107, and Ray adds up to 71."""


PRIVATE = 0o700
"""Mode of folders that only their owner may enter."""

OTHERS = 0o077
"""What others may do with a file: the umask of a farm."""

RAY_INNER_FOLDER = "r"
"""Ray opens its own folder to everybody, so it lies in one that is private."""


@dataclass(frozen=True)
class FarmRecord:
    """farm.json: the farm that was started last on a home and not ended since. It may be dead."""

    pid: int
    """Process id of the supervisor."""
    pid_created_at: float
    """When that process began, unix seconds: another process may get its number later."""
    state: Literal["starting", "ready"]
    address: str
    ray_folder: str
    """Folder of this farm's Ray session: every process of it can be told by it."""
    scratch: str
    started_at: float
    """Unix seconds."""
    prometheus: str = ""
    """Address of the Prometheus that was started beside it; empty if none was."""
    database: str = ""
    """File of its SQLite database; empty if it has another."""

    @property
    def is_alive(self) -> bool:
        """True if the supervisor runs."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.pid_created_at) < 1
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True)
class FarmHome:
    """The folder of one farm, LONGTAKE_HOME."""

    folder: Path

    @property
    def log(self) -> Path:
        """What a detached farm writes; that of the farm before is beside it."""
        return self.folder / "logs" / "farm.log"

    @property
    def ray_logs(self) -> Path:
        """Logs of the last Ray session that ended."""
        return self.folder / "logs" / "ray"

    @property
    def ray_token(self) -> Path:
        """The secret that processes of this farm's Ray show to one another."""
        return self.folder / "ray_token"

    @property
    def admin_key(self) -> str | None:
        """The API key that `longtake up` made for this home; None if no key is needed."""
        try:
            return self.admin_key_file.read_text().strip() or None
        except OSError:
            return None

    @property
    def admin_key_file(self) -> Path:
        """Where that key lies, readable by its owner alone."""
        return self.folder / "admin_key"

    def prepare(self) -> None:
        """Makes the folders, closed to others: jobs, keys and films lie in them. A home of ours that is open is closed.
        Raises UserError if they cannot be made."""
        try:
            self.folder.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
            found = self.folder.stat()
            if found.st_uid == os.getuid() and stat.S_IMODE(found.st_mode) & OTHERS:
                self.folder.chmod(stat.S_IMODE(found.st_mode) & ~OTHERS)
            self.log.parent.mkdir(mode=PRIVATE, exist_ok=True)
        except OSError as error:
            raise UserError(f"LONGTAKE_HOME: {self.folder} cannot be written to: {error.strerror}") from error

    @property
    def is_open(self) -> bool:
        """Whether other users of this machine can enter it: it belongs to somebody else, so `prepare` left it."""
        return bool(stat.S_IMODE(self.folder.stat().st_mode) & OTHERS)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the home for the block. Raises UserError if a farm has it, with its address."""
        self.prepare()
        with (self.folder / "farm.lock").open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(self._taken()) from None
            yield

    def _taken(self) -> str:
        state = self.read()
        where = f" at {state.address}" if state is not None else ""
        return f"a farm already runs on {self.folder}{where}; `longtake down` ends it"

    def read(self) -> FarmRecord | None:
        """The state as last written; None if no farm was started, or it was ended properly."""
        try:
            return FarmRecord(**json.loads(self._state_file.read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, TypeError) as error:
            raise Fault(f"{self._state_file} is damaged ({error}); remove it if no farm runs") from error

    def write(self, state: FarmRecord) -> None:
        """Replaces the state file, whole or not at all."""
        with tempfile.NamedTemporaryFile("w", dir=self.folder, prefix="farm.json.", delete=False) as file:
            json.dump(asdict(state), file, indent=2)
        Path(file.name).replace(self._state_file)

    def forget(self) -> None:
        """Removes the state file: no farm runs and nothing of one is left."""
        self._state_file.unlink(missing_ok=True)

    @property
    def _state_file(self) -> Path:
        return self.folder / "farm.json"

    def make_ray_folder(self) -> Path:
        """A folder for Ray, private, of this home alone, and short: sockets lie in it.

        Raises Fault if somebody else has put a folder of that name there.
        """
        name = "lt-" + hashlib.sha256(str(self.folder.absolute()).encode()).hexdigest()[:10]
        root = Path(tempfile.gettempdir())
        if len(str(root / name)) > MAX_RAY_FOLDER_CHARS:
            root = Path("/tmp")
        folder = root / name
        folder.mkdir(mode=PRIVATE, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid != os.getuid():
            raise Fault(f"{folder} belongs to somebody else; set TMPDIR to a folder of your own")
        return folder

    def keep_ray_logs(self, ray_folder: Path) -> None:
        """Moves the logs of the Ray session that has ended here, in place of older ones, and removes its folder."""
        sessions = sorted(
            path for path in ray_folder.glob(f"{RAY_INNER_FOLDER}/session_*/logs") if not path.parent.is_symlink()
        )
        if sessions:
            shutil.rmtree(self.ray_logs, ignore_errors=True)
            with contextlib.suppress(OSError):
                shutil.move(sessions[-1], self.ray_logs)
        shutil.rmtree(ray_folder, ignore_errors=True)


def write_secret(path: Path, secret: str) -> None:
    """Writes a file that only its owner can read, from the first byte on."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f"{path.name}.", delete=False) as file:  # mode 0600
        file.write(secret)
    Path(file.name).replace(path)
