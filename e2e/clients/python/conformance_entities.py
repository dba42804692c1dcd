"""Checks of exchanges, queues, bindings and routing."""

import pika
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker

from checks import drain, equal, fill, ready, refused, until, Deliveries


def exchange_declare(broker):
    with broker.channel() as channel:
        for kind in ("direct", "fanout", "topic", "headers"):
            for durable in (True, False):
                name = broker.name(kind)
                for _ in range(2):
                    channel.exchange_declare(name, kind, durable=durable)
                channel.exchange_declare(name, passive=True)
                channel.exchange_delete(name)


def exchange_predeclared(broker):
    with broker.channel() as channel:
        for name, kind in (("direct", "direct"), ("fanout", "fanout"), ("topic", "topic"), ("headers", "headers"), ("match", "headers")):
            channel.exchange_declare("amq." + name, passive=True)
            channel.exchange_declare("amq." + name, kind, durable=True)


def exchange_missing(broker):
    with broker.channel() as channel, refused(404, "NOT_FOUND", "no-such-exchange", "vhost '/'"):
        channel.exchange_declare("no-such-exchange", passive=True)


def exchange_inequivalent(broker):
    name = broker.name("exchange")
    with broker.channel() as channel:
        channel.exchange_declare(name, "direct", durable=True)
    for different in ({"exchange_type": "fanout", "durable": True}, {"durable": False}, {"durable": True, "auto_delete": True}):
        with broker.channel() as channel, refused(406, "PRECONDITION_FAILED", "inequivalent arg", name):
            channel.exchange_declare(name, **different)
    with broker.channel() as channel:
        channel.exchange_delete(name)


def exchange_reserved(broker):
    with broker.channel() as channel, refused(403, "ACCESS_REFUSED", "amq.mine"):
        channel.exchange_declare("amq.mine")


def exchange_unknown_type(broker):
    # RabbitMQ 4 closes the channel; 3.10 closed the connection with 503.
    with broker.channel() as channel:
        try:
            channel.exchange_declare(broker.name("odd"), "x-odd")
        except ChannelClosedByBroker as close:
            equal(close.reply_code, 406)
            assert "x-odd" in close.reply_text, close.reply_text
        except ConnectionClosedByBroker as close:
            assert broker.rabbitmq and close.reply_code == 503, close
        else:
            raise AssertionError("an exchange of an unknown type was accepted")


def exchange_delete(broker):
    exchange, queue = broker.name("exchange"), broker.name("queue")
    with broker.channel() as channel:
        channel.exchange_declare(exchange)
        channel.queue_declare(queue, exclusive=True)
        channel.queue_bind(queue, exchange, "k")
        with refused(406, "in use", exchange):
            channel.exchange_delete(exchange, if_unused=True)
    with broker.channel() as channel:
        channel.exchange_delete(exchange, if_unused=True)
        channel.exchange_delete(exchange)
        with refused(404, exchange):
            channel.exchange_declare(exchange, passive=True)


def exchange_auto_delete(broker):
    exchange, queue = broker.name("exchange"), broker.name("queue")
    with broker.channel() as channel:
        channel.exchange_declare(exchange, auto_delete=True)
        channel.queue_declare(queue, exclusive=True)
        channel.queue_bind(queue, exchange, "k")
        channel.exchange_declare(exchange, passive=True)
        channel.queue_unbind(queue, exchange, "k")
        with refused(404, exchange):
            channel.exchange_declare(exchange, passive=True)


def exchange_internal(broker):
    exchange = broker.name("exchange")
    with broker.channel(confirms=True) as channel:
        channel.exchange_declare(exchange, internal=True)
        with refused(403, "ACCESS_REFUSED", exchange, "internal"):
            channel.basic_publish(exchange, "k", b"x")
    with broker.channel() as channel:
        channel.exchange_delete(exchange)


def queue_declare(broker):
    name = broker.name("queue")
    with broker.channel(confirms=True) as channel:
        declared = channel.queue_declare(name, durable=True).method
        equal((declared.queue, declared.message_count, declared.consumer_count), (name, 0, 0))
        fill(channel, name, 3)
        equal(channel.queue_declare(name, durable=True).method.message_count, 3)
        equal(ready(channel, name), 3)
        channel.queue_delete(name)


def queue_server_named(broker):
    with broker.channel(confirms=True) as channel:
        first = channel.queue_declare("", exclusive=True).method.queue
        second = channel.queue_declare("", exclusive=True).method.queue
        assert first.startswith("amq.gen-") and first != second, (first, second)
        channel.basic_publish("", second, b"x")
        equal(channel.basic_get("", auto_ack=True)[2], b"x")  # the empty name means the queue that this channel declared last


def queue_exclusive(broker):
    name = broker.name("queue")
    with broker.channel() as owner:
        owner.queue_declare(name, exclusive=True)
        for use in (
            lambda channel: channel.queue_declare(name, exclusive=True),
            lambda channel: channel.queue_declare(name, passive=True),
            lambda channel: channel.basic_consume(name, lambda *_: None),
            lambda channel: channel.basic_get(name),
            lambda channel: channel.queue_purge(name),
            lambda channel: channel.queue_delete(name),
            lambda channel: channel.queue_bind(name, "amq.direct", "k"),
        ):
            with broker.channel() as channel, refused(405, "RESOURCE_LOCKED", name):
                use(channel)
    with broker.channel() as channel, refused(404, name):
        channel.queue_declare(name, passive=True)


def queue_auto_delete(broker):
    name = broker.name("queue")
    with broker.channel() as channel:
        channel.queue_declare(name, auto_delete=True)
        first, second = Deliveries(channel, name), Deliveries(channel, name)
        channel.basic_cancel(first.tag)
        equal(channel.queue_declare(name, passive=True).method.consumer_count, 1)
        channel.basic_cancel(second.tag)
        with refused(404, name):
            channel.queue_declare(name, passive=True)


def queue_missing(broker):
    for use in (
        lambda channel: channel.queue_declare("no-such-queue", passive=True),
        lambda channel: channel.queue_purge("no-such-queue"),
        lambda channel: channel.basic_get("no-such-queue"),
        lambda channel: channel.basic_consume("no-such-queue", lambda *_: None),
    ):
        with broker.channel() as channel, refused(404, "NOT_FOUND", "no-such-queue", "vhost '/'"):
            use(channel)


def queue_inequivalent(broker):
    name = broker.name("queue")
    with broker.channel() as channel:
        channel.queue_declare(name, durable=True)
    for different in ({"durable": False}, {"durable": True, "auto_delete": True}):
        with broker.channel() as channel, refused(406, "PRECONDITION_FAILED", "inequivalent arg", name):
            channel.queue_declare(name, **different)
    with broker.channel() as channel:
        channel.queue_delete(name)


def queue_reserved(broker):
    with broker.channel() as channel, refused(403, "ACCESS_REFUSED", "amq.mine"):
        channel.queue_declare("amq.mine")


def queue_argument_refused(broker):
    # An argument that the broker does not honour is refused, not ignored. RabbitMQ honours this one.
    name = broker.name("queue")
    with broker.channel() as channel:
        if broker.rabbitmq:
            channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 60000})
            return
        with refused(406, "PRECONDITION_FAILED", "x-message-ttl"):
            channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 60000})
    with broker.channel() as channel, refused(404, name):
        channel.queue_declare(name, passive=True)


def queue_purge(broker):
    name = broker.name("queue")
    with broker.channel(confirms=True) as channel:
        channel.queue_declare(name, exclusive=True)
        fill(channel, name, 5)
        channel.basic_get(name)  # not acknowledged, so the purge leaves it
        equal(channel.queue_purge(name).method.message_count, 4)
        equal(channel.queue_purge(name).method.message_count, 0)
        equal(ready(channel, name), 0)


def queue_delete(broker):
    name = broker.name("queue")
    with broker.channel(confirms=True) as channel:
        channel.queue_declare(name)
        fill(channel, name, 2)
        with refused(406, "PRECONDITION_FAILED", name, "not empty"):
            channel.queue_delete(name, if_empty=True)
    with broker.channel() as other, broker.channel() as channel:
        consumer = Deliveries(other, name)
        consumer.take(2)
        with refused(406, "PRECONDITION_FAILED", name, "in use"):
            channel.queue_delete(name, if_unused=True)
    with broker.channel() as channel:
        until(channel, lambda: ready(channel, name) == 2, "both messages back")
        equal(channel.queue_delete(name, if_unused=True).method.message_count, 2)
        equal(channel.queue_delete(name).method.message_count, 0)


def binding_missing(broker):
    with broker.channel() as channel, refused(404, "no-such-exchange"):
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "no-such-exchange", "k")
    with broker.channel() as channel, refused(404, "no-such-queue"):
        channel.queue_bind("no-such-queue", "amq.direct", "k")
    with broker.channel() as channel, refused(404, "no-such-exchange"):
        channel.exchange_bind("amq.direct", "no-such-exchange", "k")
    with broker.channel() as channel, refused(403, "ACCESS_REFUSED", "default exchange"):
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, "", "k")


def binding_unbind(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        for _ in range(2):
            channel.queue_bind(queue, "amq.direct", queue)
        channel.basic_publish("amq.direct", queue, b"bound")
        for _ in range(2):  # the second one finds no binding, which is not an error
            channel.queue_unbind(queue, "amq.direct", queue)
        channel.basic_publish("amq.direct", queue, b"unbound")
        equal(drain(channel, queue), [b"bound"])


def route_default(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"x")
        equal(drain(channel, queue), [b"x"])


def _routed(channel, kind, broker, bindings, messages):
    """Checks which of the messages (key, headers) arrive in the queue of each binding (key, arguments)."""
    exchange = broker.name(kind)
    channel.exchange_declare(exchange, kind, auto_delete=True)
    queues = []
    for key, arguments in bindings:
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.queue_bind(queue, exchange, key, arguments)
        queues.append(queue)
    for number, (key, headers) in enumerate(messages):
        channel.basic_publish(exchange, key, str(number).encode(), pika.BasicProperties(headers=headers))
    return [[int(body) for body in drain(channel, queue)] for queue in queues]


def route_direct(broker):
    with broker.channel(confirms=True) as channel:
        got = _routed(channel, "direct", broker, [("a", None), ("a", None), ("b", None)], [("a", None), ("b", None), ("c", None)])
        equal(got, [[0], [0], [1]])


def route_fanout(broker):
    with broker.channel(confirms=True) as channel:
        got = _routed(channel, "fanout", broker, [("a", None), ("", None)], [("a", None), ("zzz", None)])
        equal(got, [[0, 1], [0, 1]])


def route_topic(broker):
    keys = ["stock.eur.nyse", "stock.eur", "stock", "", "eur.stock.nyse", "stock..nyse"]
    expected = {"stock.#": [0, 1, 2, 5], "stock.*": [1], "*.*.nyse": [0, 4, 5], "#": [0, 1, 2, 3, 4, 5], "#.stock.#": [0, 1, 2, 4, 5], "stock.eur": [1], "*": [2]}
    with broker.channel(confirms=True) as channel:
        got = _routed(channel, "topic", broker, [(pattern, None) for pattern in expected], [(key, None) for key in keys])
        equal(dict(zip(expected, got)), expected)


def route_headers(broker):
    bindings = [
        ("", {"x-match": "all", "a": 1, "b": "x"}),
        ("", {"x-match": "any", "a": 1, "b": "x"}),
        ("", {"a": 1, "b": "x"}),
        ("", {"x-match": "any", "c": None}),
    ]
    messages = [("", {"a": 1, "b": "x", "d": 9}), ("", {"a": 1}), ("", {"b": "y"}), ("", {"c": True}), ("", None)]
    with broker.channel(confirms=True) as channel:
        equal(_routed(channel, "headers", broker, bindings, messages), [[0], [0, 1], [0], [3]])


def route_exchange_to_exchange(broker):
    first, second = broker.name("first"), broker.name("second")
    with broker.channel(confirms=True) as channel:
        channel.exchange_declare(first, "topic")
        channel.exchange_declare(second, "fanout")
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.exchange_bind(second, first, "a.*")
        channel.exchange_bind(first, second, "")  # a cycle of bindings: each queue still gets one copy
        channel.queue_bind(queue, second, "")
        for key in ("a.b", "b.a"):
            channel.basic_publish(first, key, key.encode())
        equal(drain(channel, queue), [b"a.b"])
        channel.exchange_unbind(second, first, "a.*")
        channel.basic_publish(first, "a.c", b"a.c")
        equal(drain(channel, queue), [])
        channel.exchange_delete(first)
        channel.exchange_delete(second)


def route_once(broker):
    with broker.channel(confirms=True) as channel:
        queue = channel.queue_declare("", exclusive=True).method.queue
        for key in ("a.#", "#.b", "a.b"):
            channel.queue_bind(queue, "amq.topic", queue + "." + key)
        channel.queue_bind(queue, "amq.topic", "#.b")
        channel.basic_publish("amq.topic", queue + ".a.b", b"x")
        equal(drain(channel, queue), [b"x"])


CHECKS = [
    ("exchange.declare", exchange_declare),
    ("exchange.predeclared", exchange_predeclared),
    ("exchange.missing", exchange_missing),
    ("exchange.inequivalent", exchange_inequivalent),
    ("exchange.reserved", exchange_reserved),
    ("exchange.unknown-type", exchange_unknown_type),
    ("exchange.delete", exchange_delete),
    ("exchange.auto-delete", exchange_auto_delete),
    ("exchange.internal", exchange_internal),
    ("queue.declare", queue_declare),
    ("queue.server-named", queue_server_named),
    ("queue.exclusive", queue_exclusive),
    ("queue.auto-delete", queue_auto_delete),
    ("queue.missing", queue_missing),
    ("queue.inequivalent", queue_inequivalent),
    ("queue.reserved", queue_reserved),
    ("queue.argument-refused", queue_argument_refused),
    ("queue.purge", queue_purge),
    ("queue.delete", queue_delete),
    ("binding.missing", binding_missing),
    ("binding.unbind", binding_unbind),
    ("route.default", route_default),
    ("route.direct", route_direct),
    ("route.fanout", route_fanout),
    ("route.topic", route_topic),
    ("route.headers", route_headers),
    ("route.exchange-to-exchange", route_exchange_to_exchange),
    ("route.once", route_once),
]
