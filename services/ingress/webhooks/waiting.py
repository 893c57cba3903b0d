"""Events that wait for their next try, in topics of fixed delays (as jobs do in infra/kafka/delay.py)."""

import logging

from infra.clock import Clock
from infra.kafka.delay import until_due
from infra.kafka.envelope import Poison
from infra.kafka.log import Incoming
from infra.kafka.post import Post, delay_for
from infra.kafka.stage import Work
from schemas.topics import Delay
from services.ingress.webhooks.handler import read

log = logging.getLogger(__name__)


def waiting(delay: Delay, post: Post, clock: Clock) -> Work:
    """The work of the stage over a topic of this delay: a record keeps its place until the event was sent on."""

    async def work(record: Incoming, _: bool) -> None:
        delivery = read(record)
        if isinstance(delivery, Poison):
            log.warning("webhook: %s from %s: %s", delivery.reason, record.topic, delivery.detail)
            await post.dead(record, delivery)
            return
        await until_due(record, delay, delivery.not_before_ms, clock)
        await post.webhook(delivery, delay_for(delivery.not_before_ms - clock()))

    return work
