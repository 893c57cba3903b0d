"""Kafka's jars: fetched once a user from Maven Central by `jgo`, checked against `kafka.lock`, kept in a cache folder.

`kafka.lock` names each jar and its SHA-256, so that a start needs neither the network nor a resolver. It was made by
`jgo.resolve("org.apache.kafka:kafka_2.13:4.3.1")` and slf4j-simple, the one logger that needs no configuration.
"""

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests
from jgo.config import GlobalSettings
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext

from infra.embedded.process import PartFailed

CACHE = Path.home() / ".cache" / "sluice"
LOCK = Path(__file__).with_name("kafka.lock")
DOWNLOADS_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class Jar:
    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        return f"{self.artifact}-{self.version}.jar"


def kafka_jars(cache: Path = CACHE) -> list[Path]:
    """The jars of Kafka, in the order of the lock. Blocks: the first time for some seconds of download (45 MB).

    Raises PartFailed when they are not there and can't be fetched.
    """
    jars = _locked()
    folder = cache / f"kafka-{hashlib.sha256(LOCK.read_bytes()).hexdigest()[:12]}"
    if not folder.exists():
        try:
            with _one_at_a_time(cache):
                if not folder.exists():
                    _fill(folder, jars)
        except (OSError, RuntimeError, requests.RequestException) as error:
            raise PartFailed(
                f"Kafka's jars could not be fetched: {error}. They are needed once: run `make setup` where Maven "
                "Central (or the mirror named in ~/.config/jgo.conf) can be reached, or point SLUICE_KAFKA at a broker."
            ) from error
    return [folder / jar.file_name for jar in jars]


def _locked() -> list[Jar]:
    fields = (line.replace(":", " ").split() for line in LOCK.read_text().splitlines())
    return [Jar(group, artifact, version, sha256) for group, artifact, version, sha256 in fields]


@contextmanager
def _one_at_a_time(cache: Path) -> Generator[None]:
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fill(folder: Path, jars: list[Jar]) -> None:
    """All jars or no folder: they are gathered beside it, and the rename is the last step."""
    settings = GlobalSettings.load()
    repositories = settings.repositories or {"central": MAVEN_CENTRAL_URL}
    context = MavenContext(repo_cache=settings.repo_cache, remote_repos=repositories, timeout=30)

    def fetch(jar: Jar) -> Path:
        return _fetch(context, jar)

    staging = Path(tempfile.mkdtemp(dir=folder.parent))
    try:
        with ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
            for jar, path in zip(jars, pool.map(fetch, jars), strict=True):
                shutil.copyfile(path, staging / jar.file_name)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _fetch(context: MavenContext, jar: Jar) -> Path:
    """Path of the checked jar in Maven's own cache. A jar there that is cut short or strange is fetched again, once."""
    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    path = artifact.resolve()
    if not _is_intact(path, jar):
        path.unlink()
        path = artifact.resolve()
    if not _is_intact(path, jar):
        raise RuntimeError(f"{path} is not the file that {LOCK.name} names; the repository or a proxy changed it")
    return path


def _is_intact(path: Path, jar: Jar) -> bool:
    return hashlib.sha256(path.read_bytes()).hexdigest() == jar.sha256
