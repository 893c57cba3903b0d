"""What a LiteLLM file says of the process itself: the admin key, and where traces go."""

import base64

from pydantic import SecretStr

from infra.settings import Settings
from services.cli.output import note
from services.portal.config import Parsed

LANGFUSE_CLOUD = "https://cloud.langfuse.com"
_HOSTS = ("LANGFUSE_OTEL_HOST", "LANGFUSE_HOST", "LANGFUSE_BASE_URL")
_ENVIRONMENT = "os.environ/"


def with_file(settings: Settings, parsed: Parsed) -> Settings:
    """The settings with what the file says besides; what the environment says (SLUICE_…) goes before it."""
    return _with_traces(_with_admin_key(settings, parsed.master_key), langfuse=parsed.langfuse)


def _with_admin_key(settings: Settings, given: str) -> Settings:
    if not given:
        return settings
    if settings.admin_key.get_secret_value():
        note("Note: general_settings.master_key: SLUICE_ADMIN_KEY is set, and that is the admin key")
        return settings
    key = settings.secret(given) if given.startswith(_ENVIRONMENT) else given
    if not key:
        name = given.removeprefix(_ENVIRONMENT)
        note(f"Warning: general_settings.master_key: {name} is not set, so the admin key is the one in DATA_DIR/admin.key")
        return settings
    note("Note: general_settings.master_key is the admin key; set SLUICE_ADMIN_KEY to it for `sluice` in other shells")
    return settings.model_copy(update={"admin_key": SecretStr(key)})


def _with_traces(settings: Settings, *, langfuse: bool) -> Settings:
    """Langfuse takes OpenTelemetry's traces, with its two keys as user and password."""
    if not langfuse:
        return settings
    if settings.otlp_endpoint:
        note("Note: litellm_settings: langfuse: SLUICE_OTLP_ENDPOINT is set, and traces go there")
        return settings
    public, secret = (settings.secret(f"{_ENVIRONMENT}LANGFUSE_{kind}_KEY") for kind in ("PUBLIC", "SECRET"))
    if not public or not secret:
        note(
            "Warning: litellm_settings: langfuse: no traces are sent: set LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY "
            f"(and LANGFUSE_HOST, unless it is {LANGFUSE_CLOUD}) where Sluice is started"
        )
        return settings
    host = next((found for name in _HOSTS if (found := settings.secret(f"{_ENVIRONMENT}{name}"))), LANGFUSE_CLOUD)
    basic = base64.b64encode(f"{public}:{secret}".encode()).decode()
    traces = {
        "otlp_endpoint": f"{host.rstrip('/')}/api/public/otel",
        "otlp_headers": SecretStr(f"authorization=Basic {basic}"),
    }
    return settings.model_copy(update=traces)
