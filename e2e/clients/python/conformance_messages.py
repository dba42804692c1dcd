"""Checks of connections, publishes and confirms, message contents, and deliveries with their acknowledgements."""

import datetime
import decimal

import pika
from pika.exceptions import ConnectionClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError, UnroutableError

from checks import Deliveries, drain, equal, fill, numbers, ready, refused, until


def connection_open(broker):
    with broker.connection() as connection:
        server = connection._impl.server_properties
        equal(server["product"], "RabbitMQ")  # client libraries compare it
        for name in ("version", "platform", "information"):
            assert server.get(name), f"server-properties hold no {name}"
        for name in ("publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify",
                     "connection.blocked", "authentication_failure_close", "per_consumer_qos"):
            assert server["capabilities"].get(name) is True, f"capability {name} is missing"


def connection_tune(broker):
    with broker.connection() as connection:
        tuned = connection._impl.params
        equal((tuned.channel_max, tuned.frame_max, tuned.heartbeat), (2047, 131072, 60))
    with broker.connection(channel_max=7, frame_max=4096 if broker.rabbitmq else 8192, heartbeat=9) as connection:
        for _ in range(7):
            connection.channel()


def connection_wrong_password(broker):
    credentials = pika.PlainCredentials(pika.URLParameters(broker.url).credentials.username, "wrong")
    try:
        with broker.connection(credentials=credentials):
            raise AssertionError("a wrong password was accepted")
    except ProbableAuthenticationError as error:
        assert "403" in str(error) and "ACCESS_REFUSED" in str(error), error


def connection_wrong_vhost(broker):
    try:
        with broker.connection(virtual_host="no-such-vhost"):
            raise AssertionError("a missing vhost was accepted")
    except (ConnectionClosedByBroker, ProbableAccessDeniedError) as error:
        assert "530" in str(error) and "no-such-vhost" in str(error), error


def connection_heartbeat(broker):
    with broker.connection(heartbeat=1) as connection:
        channel = connection.channel()
        connection.process_data_events(time_limit=4)  # four heartbeat intervals without other traffic
        channel.queue_declare("", exclusive=True)


def connection_channels(broker):
    with broker.connection() as connection:
        channels = [connection.channel() for _ in range(200)]
        queue = channels[0].queue_declare("", exclusive=True).method.queue
        for channel in channels:
            channel.confirm_delivery()
            channel.basic_publish("", queue, str(channel.channel_number).encode())
        equal(drain(channels[0], queue), [str(channel.channel_number).encode() for channel in channels])
        with refused(404):
            channels[7].queue_declare("no-such-queue", passive=True)
        channels[8].basic_publish("", queue, b"still here")
        channels[9].close()
        reopened = connection.channel(channels[9].channel_number)
        equal(drain(reopened, queue), [b"still here"])


def connection_close(broker):
    with broker.connection() as connection:
        queue = connection.channel().queue_declare("", exclusive=True).method.queue
        connection.close()
        assert connection.is_closed
    with broker.channel() as channel, refused(404, queue):
        channel.queue_declare(queue, passive=True)


def publish_confirm(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 100)
        equal(drain(channel, queue), numbers(0, 100))
        channel.basic_publish("amq.fanout", "nobody", b"x")  # an unroutable message that is not mandatory is confirmed too


def publish_mandatory(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"routed", mandatory=True)
        try:
            channel.basic_publish("", "no-such-queue", b"lost", pika.BasicProperties(message_id="7"), mandatory=True)
        except UnroutableError as error:
            (returned,) = error.messages
            equal((returned.method.reply_code, returned.method.reply_text), (312, "NO_ROUTE"))
            equal((returned.method.exchange, returned.method.routing_key), ("", "no-such-queue"))
            equal((returned.properties.message_id, returned.body), ("7", b"lost"))
        else:
            raise AssertionError("a mandatory message without a queue was not returned")
        channel.basic_publish("", queue, b"after", mandatory=True)
        equal(drain(channel, queue), [b"routed", b"after"])


def publish_missing_exchange(broker):
    with broker.channel(confirms=True) as channel, refused(404, "NOT_FOUND", "no-such-exchange"):
        channel.basic_publish("no-such-exchange", "k", b"x")


def _echo(broker, properties, body):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, body, properties)
        _, got, got_body = channel.basic_get(queue, auto_ack=True)
        equal(got_body, body)
        return got


def message_properties(broker):
    user = pika.URLParameters(broker.url).credentials.username
    sent = pika.BasicProperties(
        content_type="text/plain", content_encoding="utf-8", headers={"k": "v"}, delivery_mode=2, priority=3,
        correlation_id="c1", reply_to="r1", message_id="m1", timestamp=1700000000, type="t1", user_id=user, app_id="a1", cluster_id="cl1")
    got = _echo(broker, sent, b"x")
    equal(vars(got), vars(sent))
    with broker.channel(confirms=True) as channel, refused(406, "PRECONDITION_FAILED", "somebody-else"):
        channel.basic_publish("", "q", b"x", pika.BasicProperties(user_id="somebody-else"))


def message_header_types(broker):
    headers = {
        "true": True, "false": False, "int": 42, "negative": -42, "long": 2**40, "decimal": decimal.Decimal("3.14"), "string": "häuser",
        "empty": "", "bytes": b"\x00\xff", "time": datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.timezone.utc), "none": None,
        "list": [1, "two", [3, None], {"four": 4}], "table": {"a": {"b": {"c": [True]}}}, "no-items": [], "no-entries": {},
    }
    got = _echo(broker, pika.BasicProperties(headers=headers), b"x").headers
    if got["time"].tzinfo is None:
        got["time"] = got["time"].replace(tzinfo=datetime.timezone.utc)
    equal(got, headers)


def message_empty(broker):
    _echo(broker, pika.BasicProperties(), b"")


def message_big(broker):
    _echo(broker, pika.BasicProperties(), bytes(range(256)) * 20000)  # 5 MB, some forty frames


def message_frame_edges(broker):
    for size in (131072 - 9, 131072 - 8, 131072 - 7, 2 * (131072 - 8), 2 * (131072 - 8) + 1):
        _echo(broker, pika.BasicProperties(), b"e" * size)


def get(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        equal(channel.basic_get(queue), (None, None, None))
        fill(channel, queue, 3)
        method, _, body = channel.basic_get(queue)
        equal((body, method.message_count, method.redelivered, method.exchange, method.routing_key), (b"0", 2, False, "", queue))
        channel.basic_nack(method.delivery_tag, requeue=True)
        method, _, body = channel.basic_get(queue)
        equal((body, method.redelivered), (b"0", True))
        channel.basic_ack(method.delivery_tag)
        equal(drain(channel, queue), numbers(1, 3))


def consume_order(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 50)
        consumer = Deliveries(channel, queue)
        fill(channel, queue, 50)
        got = consumer.take(100)
        equal([body for _, _, body in got], numbers(0, 50) * 2)
        equal([method.delivery_tag for method, _, _ in got], list(range(1, 101)))
        assert all(method.consumer_tag == consumer.tag and not method.redelivered for method, _, _ in got)
        channel.basic_ack(0, multiple=True)
        equal(channel.queue_declare(queue, passive=True).method.consumer_count, 1)


def consume_prefetch(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 10)
        channel.basic_qos(prefetch_count=3)
        consumer = Deliveries(channel, queue)
        first = consumer.take(3)
        equal(ready(channel, queue), 7)
        channel.basic_ack(first[0][0].delivery_tag)
        equal(consumer.bodies(1), [b"3"])
        equal(ready(channel, queue), 6)
        channel.basic_ack(first[2][0].delivery_tag, multiple=True)
        equal(consumer.bodies(2), [b"4", b"5"])
        equal(ready(channel, queue), 4)


def consume_nack_requeue(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 4)
        channel.basic_qos(prefetch_count=4)
        consumer = Deliveries(channel, queue)
        got = consumer.take(4)
        channel.basic_nack(got[2][0].delivery_tag, multiple=True, requeue=True)
        again = consumer.take(3)
        equal([(body, method.redelivered) for method, _, body in again], [(b"0", True), (b"1", True), (b"2", True)])
        channel.basic_nack(0, multiple=True, requeue=False)
        equal(ready(channel, queue), 0)


def consume_reject(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 2)
        channel.basic_qos(prefetch_count=1)
        consumer = Deliveries(channel, queue)
        channel.basic_reject(consumer.take(1)[0][0].delivery_tag, requeue=True)
        ((method, _, body),) = consumer.take(1)
        equal((method.redelivered, body), (True, b"0"))
        channel.basic_reject(method.delivery_tag, requeue=False)
        ((method, _, body),) = consumer.take(1)
        equal((method.redelivered, body), (False, b"1"))


def consume_recover(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 3)
        consumer = Deliveries(channel, queue)
        consumer.take(3)
        channel.basic_recover(requeue=True)
        equal([(body, method.redelivered) for method, _, body in consumer.take(3)], [(b"0", True), (b"1", True), (b"2", True)])


def consume_cancel(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 1)
        consumer = Deliveries(channel, queue, consumer_tag="mine")
        equal(consumer.tag, "mine")
        ((method, _, _),) = consumer.take(1)
        channel.basic_cancel("mine")
        fill(channel, queue, 1)
        equal(ready(channel, queue), 1)  # no consumer takes it
        channel.basic_ack(method.delivery_tag)  # an earlier delivery may still be acknowledged
        equal(ready(channel, queue), 1)
        assert Deliveries(channel, queue).tag


def consume_exclusive(broker):
    name = broker.name("queue")
    with broker.channel() as owner:
        owner.queue_declare(name)
        consumer = Deliveries(owner, name, exclusive=True)
        with broker.channel() as channel, refused(403, "ACCESS_REFUSED", name, "exclusive"):
            Deliveries(channel, name)
        owner.basic_cancel(consumer.tag)
        with broker.channel() as channel:
            Deliveries(channel, name)
            with refused(403, "ACCESS_REFUSED", name):
                Deliveries(channel, name, exclusive=True)
        owner.queue_delete(name)


def consume_queue_deleted(broker):
    name = broker.name("queue")
    with broker.channel() as channel, broker.channel() as other:
        cancelled = []
        channel.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
        other.queue_declare(name)
        consumer = Deliveries(channel, name)
        other.queue_delete(name)
        until(channel, lambda: cancelled == [consumer.tag], "the broker's basic.cancel")


def consume_no_ack(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_qos(prefetch_count=1)  # does not limit a consumer without acknowledgements
        fill(channel, queue, 20)
        consumer = Deliveries(channel, queue, auto_ack=True)
        equal(consumer.bodies(20), numbers(0, 20))
        channel.basic_cancel(consumer.tag)
        equal(channel.queue_delete(queue).method.message_count, 0)


def consume_requeue_on_close(broker):
    name = broker.name("queue")
    with broker.channel(confirms=True) as channel:
        channel.queue_declare(name)
        fill(channel, name, 5)
        consuming = channel.connection.channel()
        Deliveries(consuming, name).take(5)
        consuming.close()
        until(channel, lambda: ready(channel, name) == 5, "5 messages back after the channel closed")
    with broker.channel() as channel:
        Deliveries(channel, name).take(5)
    with broker.channel() as channel:  # the same after the connection has closed
        got = Deliveries(channel, name).take(5)
        equal([(body, method.redelivered) for method, _, body in got], [(body, True) for body in numbers(0, 5)])
        channel.queue_delete(name)


def ack_unknown_tag(broker):
    for settle in (
        lambda channel: channel.basic_ack(99),
        lambda channel: channel.basic_nack(99),
        lambda channel: channel.basic_reject(99),
    ):
        with broker.channel() as channel, refused(406, "PRECONDITION_FAILED", "unknown delivery tag 99"):
            settle(channel)
            channel.basic_qos(prefetch_count=1)


def ack_twice(broker):
    with broker.channel(confirms=True) as channel, refused(406, "PRECONDITION_FAILED", "unknown delivery tag 1"):
        queue = channel.queue_declare("", exclusive=True).method.queue
        fill(channel, queue, 1)
        method, _, _ = channel.basic_get(queue)
        channel.basic_ack(method.delivery_tag)
        channel.basic_ack(method.delivery_tag)
        channel.basic_qos(prefetch_count=1)


CHECKS = [
    ("connection.open", connection_open),
    ("connection.tune", connection_tune),
    ("connection.wrong-password", connection_wrong_password),
    ("connection.wrong-vhost", connection_wrong_vhost),
    ("connection.heartbeat", connection_heartbeat),
    ("connection.channels", connection_channels),
    ("connection.close", connection_close),
    ("publish.confirm", publish_confirm),
    ("publish.mandatory", publish_mandatory),
    ("publish.missing-exchange", publish_missing_exchange),
    ("message.properties", message_properties),
    ("message.header-types", message_header_types),
    ("message.empty", message_empty),
    ("message.big", message_big),
    ("message.frame-edges", message_frame_edges),
    ("get", get),
    ("consume.order", consume_order),
    ("consume.prefetch", consume_prefetch),
    ("consume.nack-requeue", consume_nack_requeue),
    ("consume.reject", consume_reject),
    ("consume.recover", consume_recover),
    ("consume.cancel", consume_cancel),
    ("consume.exclusive", consume_exclusive),
    ("consume.queue-deleted", consume_queue_deleted),
    ("consume.no-ack", consume_no_ack),
    ("consume.requeue-on-close", consume_requeue_on_close),
    ("ack.unknown-tag", ack_unknown_tag),
    ("ack.twice", ack_twice),
]
