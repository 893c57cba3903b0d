"""Audit records that are kept redacted."""

from schemas.audit import AuditRecord
from services.guard.audit import redact
from tests.contract.examples import EXAMPLES

CARD = "4111 1111 1111 1111"


def test_what_is_found_goes_from_prompt_context_and_completion_whatever_their_form() -> None:
    draft = EXAMPLES["audit"]
    assert isinstance(draft, AuditRecord)
    texts = {"prompt": f'{{"messages":[{{"content":"pay {CARD}"}}]}}', "context": f'["{CARD}"]', "completion": f"paid {CARD}"}
    clean = redact(draft.model_copy(update=texts))
    assert CARD not in clean.model_dump_json()
    assert clean.completion.startswith("paid ")
    assert clean.prompt.startswith('{"messages": [')
    assert clean.kinds == ()
