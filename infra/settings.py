"""One typed object a process. Nobody else reads the environment."""

import os
from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, cast

from pydantic import AfterValidator, Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


def _long_enough(days: int) -> int:
    if 0 < days < LEAST_DAYS:
        raise ValueError(f"budgets and reports need the rows of the last {LEAST_DAYS} days: give that or more, or 0 for ever")
    return days


LEAST_DAYS = 35
Days = Annotated[int, Field(ge=0), AfterValidator(_long_enough)]


class Settings(BaseSettings):
    """Everything that can be set from outside, as `SLUICE_<NAME>`. Times carry their unit in the name."""

    model_config = SettingsConfigDict(env_prefix="SLUICE_", extra="ignore")

    data_dir: Path = Field(default=Path(".sluice"), description="folder of everything that is kept on this machine")

    kafka: str = Field(default="", description="bootstrap servers, host:port[,host:port]")
    redis: str = Field(default="", description="redis://[:password@]host:port/db, or host:port")
    clickhouse: str = Field(default="", description="http://[user:password@]host:port")
    clickhouse_default_user: bool = Field(
        default=True,
        description="of the embedded ClickHouse: let in whoever is on this machine, with all rights; off: with a password only",
    )
    clickhouse_cluster: str = Field(
        default="", description="as its servers' configuration names the cluster; empty: one server, or the embedded one"
    )
    clickhouse_quorum: str = Field(
        default="auto",
        pattern="auto|[0-9]+",
        description="replicas of a cluster that must have a row; auto: most, 0: one will do",
    )
    keep_usage_days: Days = Field(default=0, description="rows of usage; sums by hour and day stay. 0: for ever")
    keep_attempts_days: Days = Field(default=0, description="rows of attempts. 0: for ever")
    keep_events_days: Days = Field(default=0, description="who changed what. 0: for ever")
    qdrant: str = Field(default="", description="URL, or a folder for the local mode")

    url: str = Field(default="", description="base URL of a running system, for the command line")
    public_url: str = Field(default="", description="base URL at which people reach us, for links in alerts; empty: SLUICE_URL")
    smtp: str = Field(
        default="",
        description="server for alerts by e-mail: smtp://[user@]host[:587] (STARTTLS), smtps://…[:465], smtp+plain://… (no TLS)",
    )
    smtp_password: str = Field(default="", description="reference to its password: env:NAME, file:NAME or vault:PATH#FIELD")
    smtp_from: str = Field(default="", description="address that alerts by e-mail come from; empty: sluice@ our host name")
    admin_key: SecretStr = SecretStr("")
    key: SecretStr = Field(default=SecretStr(""), description="a virtual key, for the command line")
    itsm_secret: SecretStr = Field(
        default=SecretStr(""),
        description="whsec_…, signs what comes to /hooks/itsm (several, apart by spaces: any of them); empty: no hook",
    )
    signing_key: SecretStr = Field(default=SecretStr(""), description="shared by all services; signs jobs")

    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65_535)
    slot: str | None = Field(
        default=None,
        description="this process's place among its like (0, 1, …): static membership, back at work at once after a restart",
    )

    replication: int = Field(default=1, ge=1, description="of topics that we create")
    concurrency: int = Field(default=1024, ge=1, description="jobs at work at once, per stage")
    hand_over: bool = Field(default=True, description="in memory to the next stage, if that lives in the same process")
    max_body_bytes: int = Field(default=10 * 1024 * 1024, ge=1024)
    max_file_bytes: int = Field(default=200 * 1024 * 1024, ge=1024, description="of POST /v1/files")
    max_waiting: int = Field(default=4096, ge=1, description="requests that may wait for their answer, per ingress")
    interactive_timeout_s: float = Field(default=120, gt=0)
    batch_timeout_s: float = Field(default=86_400, gt=0)
    drain_s: float = Field(default=20, ge=0, description="how long running jobs may go on after SIGTERM")
    reconcile_s: float = Field(default=60, gt=0, description="how often Redis, the log and ClickHouse are compared")
    redis_timeout_s: float = Field(default=0.25, gt=0)

    auto_weights: Path | None = Field(
        default=None, description="classifier of models with `auto`, as services/router/auto/train.py writes it; none: ours"
    )

    objects: str = Field(
        default="", description="where the files of /v1/files lie: a folder, or a URL that fsspec takes (s3://bucket/prefix)"
    )

    trusted_proxies: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="networks (CIDR, apart by commas) of proxies whose x-forwarded-for is believed"
    )

    vault: str = Field(default="", description="URL of HashiCorp Vault or OpenBao, for credentials written as vault:PATH#FIELD")
    vault_auth: Literal["approle", "kubernetes", "token"] = "approle"
    vault_role: str = Field(default="", description="role id (approle), or name of the role (kubernetes)")
    vault_secret_id: SecretStr = Field(default=SecretStr(""), description="of the AppRole")
    vault_token: SecretStr = Field(default=SecretStr(""), description="for trying things out; it isn't renewed")
    vault_mount: str = Field(default="", description="where the auth method is mounted, if not under its name")
    vault_jwt_file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    vault_namespace: str = ""
    vault_ca: str = Field(default="", description="file with the certificate authority of Vault")

    metrics_key: SecretStr = Field(
        default=SecretStr(""), description="/metrics asks for it as `Authorization: Bearer`; empty: it answers everybody"
    )
    otlp_endpoint: str = Field(default="", description="OTLP over HTTP; empty: no spans are recorded")
    otlp_headers: SecretStr = Field(
        default=SecretStr(""), description="sent with spans: name=value,name=value, as in OTEL_EXPORTER_OTLP_HEADERS"
    )
    otel_semconv: Literal["v1.41", "latest"] = Field(
        default="v1.41",
        description="names of OpenTelemetry's GenAI conventions: the last that were published, or what is to come",
    )
    log_level: str = "INFO"

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _apart(cls, given: object) -> object:
        """Raises ValueError for what is no network."""
        networks = [part.strip() for part in given.split(",") if part.strip()] if isinstance(given, str) else given
        return tuple(str(ip_network(network, strict=False)) for network in cast("Sequence[str]", networks))

    def secret(self, reference: str) -> str | None:
        """The secret that a credential reference names in environment or files, or None if there is none.

        `env:NAME`, or LiteLLM's `os.environ/NAME`, names a variable of the environment; `file:NAME`, or `file/NAME`, a file (mode
        0600) in the folder `secrets` of the data folder, where `sluice config apply` puts a key that stood literally in a config
        file; `file:/PATH` any file, such as one that Kubernetes mounts.
        """
        for prefix in ("os.environ/", "env:"):
            if reference.startswith(prefix):
                return os.environ.get(reference.removeprefix(prefix))
        for prefix in ("file/", "file:"):
            if reference.startswith(prefix):
                path = self.secrets_dir / reference.removeprefix(prefix)
                try:
                    return path.read_text().strip() if path.is_file() else None
                except (OSError, UnicodeDecodeError):
                    # Somebody else's, or no text: as good as none, for whoever asks.
                    return None
        return None

    @property
    def public(self) -> str:
        return (self.public_url or self.url or f"http://{self.host}:{self.port}").rstrip("/")

    @property
    def secrets_dir(self) -> Path:
        return self.data_dir / "secrets"

    @property
    def files_dir(self) -> Path:
        return self.data_dir / "files"

    @property
    def objects_url(self) -> str:
        return self.objects or str(self.data_dir / "objects")

    @property
    def work_dir(self) -> Path:
        """Files that are being made; worthless after the process."""
        return self.data_dir / "work"

    @property
    def redis_url(self) -> str:
        return self.redis if "://" in self.redis else f"redis://{self.redis}"

    @property
    def clickhouse_url(self) -> str:
        return self.clickhouse if "://" in self.clickhouse else f"http://{self.clickhouse}"
