"""Test client with unmodified pika; scenarios: publish, consume, roundtrip, hold, conformance.

The clients in the sibling folders have the same command line and print the same lines; see ../README.md.
"""

import argparse
import signal
import sys

import pika
from pika.exceptions import ConnectionClosedByBroker, ConnectionClosedByClient, ConnectionWrongStateError

import conformance_entities
import conformance_messages
from checks import Broker, Deliveries, Tally, equal


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--rabbitmq", action="store_true", help="the broker is RabbitMQ 3.10: expect its behaviour where that differs")
    parser.add_argument("--queue", default="")
    parser.add_argument("--exchange", default="")
    parser.add_argument("--key")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("scenario", choices=["publish", "consume", "roundtrip", "hold", "conformance"])
    return parser.parse_args()


def publish(broker, options):
    """Publishes `count` numbered messages and waits for their confirms; a message that reaches no queue is an error."""
    key = options.queue if options.key is None else options.key
    with broker.channel(confirms=True) as channel:
        for number in range(options.count):
            channel.basic_publish(options.exchange, key, str(number).encode(), pika.BasicProperties(delivery_mode=2), mandatory=True)
    print(f"published {options.count}", flush=True)


def consume(broker, options):
    """Consumes exactly `count` messages, checks that their numbers have no gap or duplicate, and acknowledges each."""
    with broker.channel() as channel:
        channel.basic_qos(prefetch_count=100)
        consumer = Deliveries(channel, options.queue)
        for number in range(options.count):
            ((method, _, body),) = consumer.take(1)
            equal(body, str(number).encode())
            channel.basic_ack(method.delivery_tag)
        channel.basic_cancel(consumer.tag)
    print(f"consumed {options.count}", flush=True)


def roundtrip(broker, options):
    """Publishes and consumes at the same time, over a new exclusive queue unless one is named."""
    with broker.connection() as connection:
        publishing, consuming = connection.channel(), connection.channel()
        publishing.confirm_delivery()
        queue = options.queue or consuming.queue_declare("", exclusive=True).method.queue
        consuming.basic_qos(prefetch_count=10)
        consumer = Deliveries(consuming, queue)
        for number in range(options.count):
            publishing.basic_publish("", queue, str(number).encode(), mandatory=True)
            if number % 10 == 9 or number == options.count - 1:
                for expected in range(number - number % 10, number + 1):
                    ((method, _, body),) = consumer.take(1)
                    equal(body, str(expected).encode())
                    consuming.basic_ack(method.delivery_tag)
    print(f"roundtrip {options.count}", flush=True)


def hold(broker, options):
    """Consumes, acknowledges nothing, and stays connected until the broker closes the connection or SIGTERM arrives."""
    with broker.connection() as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=options.count)
        Deliveries(channel, options.queue)
        signal.signal(signal.SIGTERM, lambda *_: connection.add_callback_threadsafe(connection.close))
        print("holding", flush=True)
        try:
            while True:
                connection.process_data_events(time_limit=None)
        except ConnectionClosedByBroker as close:
            print(f"closed {close.reply_code} {close.reply_text}", flush=True)
        except (ConnectionClosedByClient, ConnectionWrongStateError):
            print("closed by itself", flush=True)


def conformance(tally, broker):
    for name, check in conformance_messages.CHECKS + conformance_entities.CHECKS:
        tally.run(name, check, broker)


def main():
    options = arguments()
    tally = Tally()
    broker = Broker(options.url, options.rabbitmq)
    if options.scenario == "conformance":
        conformance(tally, broker)
    else:
        scenario = {"publish": publish, "consume": consume, "roundtrip": roundtrip, "hold": hold}[options.scenario]
        tally.run(options.scenario, scenario, broker, options)
    return tally.close()


if __name__ == "__main__":
    sys.exit(main())
