"""Where the endpoints of responses are found."""

from starlette.routing import BaseRoute, Route

from infra.platform import Platform
from services.ingress.answers import Answers
from services.ingress.handler import Admissions
from services.ingress.http.completions import Completions
from services.ingress.http.jobs import Jobs
from services.ingress.http.responses_api import Responses
from services.ingress.http.responses_kept import Keeper
from services.ingress.http.responses_lookup import ResponseLookup


def response_routes(
    platform: Platform, admissions: Admissions, answers: Answers, completions: Completions, jobs: Jobs
) -> list[BaseRoute]:
    """/v1/responses and all below it."""
    keeper = Keeper(platform, answers, jobs)
    responses = Responses(platform, admissions, answers, completions, jobs, keeper)
    lookup = ResponseLookup(admissions, keeper)
    return [
        Route("/v1/responses", responses.create, methods=["POST"]),
        Route("/v1/responses/{id}", lookup.retrieve, methods=["GET"]),
        Route("/v1/responses/{id}", lookup.delete, methods=["DELETE"]),
        Route("/v1/responses/{id}/cancel", lookup.cancel, methods=["POST"]),
        Route("/v1/responses/{id}/input_items", lookup.input_items, methods=["GET"]),
    ]
