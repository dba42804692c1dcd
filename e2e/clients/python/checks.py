"""Shared by all checks: the broker under test, unique names, short forms of the operations, and the tally of results."""

import time
import traceback
import uuid
from contextlib import contextmanager

import pika
from pika.exceptions import ChannelClosedByBroker

WAIT_SECONDS = 15


class Tally:
    """Runs checks and prints `ok NAME` or `FAIL NAME: why` for each; the last line is the totals."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def run(self, name, check, *args):
        try:
            check(*args)
        except Exception as error:  # a check may raise any exception of its client library
            self.failed += 1
            where = traceback.extract_tb(error.__traceback__)[-1]
            why = f"{type(error).__name__}: {error}".replace("\n", " ")
            print(f"FAIL {name}: {why} ({where.filename.rsplit('/', 1)[-1]}:{where.lineno})", flush=True)
        else:
            self.passed += 1
            print(f"ok {name}", flush=True)

    def close(self):
        print(f"{self.passed} passed, {self.failed} failed", flush=True)
        return 1 if self.failed else 0


class Broker:
    """The broker under test. `rabbitmq` says that it is RabbitMQ 3.10: checks then expect its behaviour where that differs."""

    def __init__(self, url, rabbitmq=False):
        self.url = url
        self.rabbitmq = rabbitmq
        self.run = uuid.uuid4().hex[:8]
        self.count = 0

    def name(self, what):
        self.count += 1
        return f"check.{self.run}.{self.count}.{what}"

    @contextmanager
    def connection(self, **overrides):
        parameters = pika.URLParameters(self.url)
        for key, value in overrides.items():
            setattr(parameters, key, value)
        connection = pika.BlockingConnection(parameters)
        try:
            yield connection
        finally:
            if connection.is_open:
                connection.close()

    @contextmanager
    def channel(self, confirms=False):
        with self.connection() as connection:
            channel = connection.channel()
            if confirms:
                channel.confirm_delivery()
            yield channel


class Deliveries:
    """A consumer with its deliveries: `take(n)` waits for the next n, in the order of arrival."""

    def __init__(self, channel, queue, **options):
        self.channel = channel
        self.got = []
        self.tag = channel.basic_consume(queue, self._deliver, **options)

    def _deliver(self, _channel, method, properties, body):
        self.got.append((method, properties, body))

    def take(self, count):
        until(self.channel, lambda: len(self.got) >= count, f"{count} deliveries, got {len(self.got)}")
        taken, self.got = self.got[:count], self.got[count:]
        return taken

    def bodies(self, count):
        return [body for _, _, body in self.take(count)]


def until(channel, condition, what):
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {WAIT_SECONDS} s for {what}"
        channel.connection.process_data_events(time_limit=0.05)


@contextmanager
def refused(code, *words):
    """Checks that the broker closes the channel with this code and a reply text that contains the words."""
    try:
        yield
    except ChannelClosedByBroker as close:
        assert close.reply_code == code, f"closed with {close.reply_code} {close.reply_text}, expected {code}"
        for word in words:
            assert word in close.reply_text, f"text {close.reply_text!r} does not name {word!r}"
    else:
        raise AssertionError(f"the operation was accepted, expected a close with {code}")


def equal(got, expected):
    assert got == expected, f"got {got!r}, expected {expected!r}"


def fill(channel, queue, count):
    """Publishes b"0", b"1", ... to the queue on a channel with confirms."""
    for number in range(count):
        channel.basic_publish("", queue, str(number).encode())


def numbers(first, last):
    return [str(number).encode() for number in range(first, last)]


def ready(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def drain(channel, queue):
    """Returns the bodies of all messages that are in the queue now, taken with basic.get."""
    bodies = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return bodies
        bodies.append(body)
