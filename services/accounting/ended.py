"""How a record of `sluice.completions` is read by whoever looks at money: settlement, rebuild, reconciliation."""

from infra.files import FileStore
from infra.kafka.carriage import fetched
from infra.kafka.envelope import Poison
from infra.kafka.log import Incoming
from services.accounting.sums import Ended


async def read_ended(record: Incoming, files: FileStore) -> Ended | None:
    """None for what is no completion: accounting reads the same record, and puts it aside."""
    resolved = await fetched(record, files)
    try:
        return None if isinstance(resolved, Poison) else Ended.model_validate_json(resolved.value or b"")
    except ValueError:
        return None
