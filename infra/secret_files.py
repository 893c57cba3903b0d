"""Secrets of an installation that are made on first use and lie in the data folder, readable by their owner only."""

import hashlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final

SERVICE: Final = "sluice"
"""The user of the embedded ClickHouse who has all rights."""


def made_once(path: Path, make: Callable[[], str]) -> str:
    """The text in the file at `path`, made on first use (mode 0600).

    Safe when several processes start at once: whoever links the file first wins.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(make())
        try:
            os.link(partial, path)
        except FileExistsError:
            pass
        finally:
            partial.unlink()
    return path.read_text().strip()


def shared_secret(data_dir: Path, given: str) -> bytes:
    """32 bytes that all services of an installation share: from what is given, else from `signing.key`."""
    text = given or made_once(data_dir / "signing.key", lambda: secrets.token_hex(32))
    return hashlib.sha256(text.encode()).digest()


def admin_key(data_dir: Path, given: str) -> str:
    """The key of the admin API: what is given, else `admin.key`."""
    return given or made_once(data_dir / "admin.key", lambda: f"sk-sl-admin-{secrets.token_urlsafe(32)}")


def password_file(data_dir: Path) -> Path:
    """Where the password of the embedded ClickHouse's user `sluice` lies."""
    return data_dir / "clickhouse.key"


def clickhouse_password(data_dir: Path) -> str:
    """The password of the embedded ClickHouse's user `sluice`, who has all rights."""
    return made_once(password_file(data_dir), lambda: secrets.token_urlsafe(32))
