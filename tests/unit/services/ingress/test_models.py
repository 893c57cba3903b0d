"""How models are listed: in pages, and with the day on which the first of their deployments is no more."""

from datetime import UTC, date, datetime

from anthropic.types import ModelInfo
from hypothesis import given
from hypothesis import strategies as st

from schemas.control import Deployment, Model
from services.ingress.http.models import card, info, page


def model(name: str, *deployments: Deployment) -> Model:
    return Model(name=name, deployments=deployments, created_ms=1_800_000_000_000)


def deployment(name: str, **more: object) -> Deployment:
    return Deployment.model_validate({"id": name, "provider": "openai", "model": "x", **more})


def test_a_model_ends_with_the_first_of_its_deployments_and_takes_what_all_of_them_take() -> None:
    short = deployment("a", shutdown_date=date(2027, 3, 1), max_input_tokens=8000)
    found = model("small", short, deployment("b", shutdown_date="2027-02-01"), deployment("c", max_input_tokens=128_000))
    told = info(found)
    assert card(found).shutdown_date == "2027-02-01"
    assert (told.lifecycle, told.retires_at) == ("deprecated", datetime(2027, 2, 1, tzinfo=UTC))
    assert (told.max_input_tokens, told.max_tokens) == (8000, None)
    ModelInfo.model_validate_json(told.model_dump_json())


def test_a_model_that_stays_says_so() -> None:
    found = model("small", deployment("a"))
    assert (card(found).shutdown_date, info(found).lifecycle, info(found).retires_at) == (None, "active", None)


NAMES = st.lists(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), unique=True, max_size=12).map(sorted)


@given(names=NAMES, limit=st.integers(1, 5))
def test_page_by_page_each_is_listed_once_in_either_direction(names: list[str], limit: int) -> None:
    models = [model(name) for name in names]
    for cursor, last_of in (("after_id", "last_id"), ("before_id", "first_id")):
        seen: list[str] = []
        query = {"limit": str(limit)} if cursor == "after_id" else {"limit": str(limit), "before_id": names[-1] if names else ""}
        while True:
            found = page(models, query)
            ids = [one.id for one in found.data]
            seen = seen + ids if cursor == "after_id" else ids + seen
            if not found.has_more:
                break
            query |= {cursor: str(getattr(found, last_of))}
        assert seen == (names if cursor == "after_id" else names[:-1])
