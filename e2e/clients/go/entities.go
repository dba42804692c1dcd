package main

import (
	"strconv"
	"strings"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Checks of exchanges, queues, bindings and routing.

type check struct {
	name string
	run  func(*broker)
}

var entityChecks = []check{
	{"exchange.declare", exchangeDeclare},
	{"exchange.predeclared", exchangePredeclared},
	{"exchange.missing", exchangeMissing},
	{"exchange.inequivalent", exchangeInequivalent},
	{"exchange.reserved", exchangeReserved},
	{"exchange.unknown-type", exchangeUnknownType},
	{"exchange.delete", exchangeDelete},
	{"exchange.auto-delete", exchangeAutoDelete},
	{"exchange.internal", exchangeInternal},
	{"queue.declare", queueDeclare},
	{"queue.server-named", queueServerNamed},
	{"queue.exclusive", queueExclusive},
	{"queue.auto-delete", queueAutoDelete},
	{"queue.missing", queueMissing},
	{"queue.inequivalent", queueInequivalent},
	{"queue.reserved", queueReserved},
	{"queue.argument-refused", queueArgumentRefused},
	{"queue.purge", queuePurge},
	{"queue.delete", queueDelete},
	{"binding.missing", bindingMissing},
	{"binding.unbind", bindingUnbind},
	{"route.default", routeDefault},
	{"route.direct", routeDirect},
	{"route.fanout", routeFanout},
	{"route.topic", routeTopic},
	{"route.headers", routeHeaders},
	{"route.exchange-to-exchange", routeExchangeToExchange},
	{"route.once", routeOnce},
}

type channelUse = func(*amqp.Channel) error

func exchangePassive(channel *amqp.Channel, name string) error {
	return channel.ExchangeDeclarePassive(name, "direct", false, false, false, false, nil)
}

func exchangeDeclare(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		for _, kind := range []string{"direct", "fanout", "topic", "headers"} {
			for _, durable := range []bool{true, false} {
				name := b.name(kind)
				for range 2 {
					must(channel.ExchangeDeclare(name, kind, durable, false, false, false, nil))
				}
				must(exchangePassive(channel, name))
				must(channel.ExchangeDelete(name, false, false))
			}
		}
	})
}

func exchangePredeclared(b *broker) {
	kinds := map[string]string{"direct": "direct", "fanout": "fanout", "topic": "topic", "headers": "headers", "match": "headers"}
	b.channel(func(channel *amqp.Channel) {
		for name, kind := range kinds {
			must(exchangePassive(channel, "amq."+name))
			must(channel.ExchangeDeclare("amq."+name, kind, true, false, false, false, nil))
		}
	})
}

func exchangeMissing(b *broker) {
	b.refused(404, []string{"NOT_FOUND", "no-such-exchange", "vhost '/'"}, func(channel *amqp.Channel) error { return exchangePassive(channel, "no-such-exchange") })
}

func exchangeInequivalent(b *broker) {
	name := b.name("exchange")
	b.channel(func(channel *amqp.Channel) {
		must(channel.ExchangeDeclare(name, "direct", true, false, false, false, nil))
	})
	for _, different := range []channelUse{
		func(channel *amqp.Channel) error {
			return channel.ExchangeDeclare(name, "fanout", true, false, false, false, nil)
		},
		func(channel *amqp.Channel) error {
			return channel.ExchangeDeclare(name, "direct", false, false, false, false, nil)
		},
		func(channel *amqp.Channel) error {
			return channel.ExchangeDeclare(name, "direct", true, true, false, false, nil)
		},
	} {
		b.refused(406, []string{"PRECONDITION_FAILED", "inequivalent arg", name}, different)
	}
	b.channel(func(channel *amqp.Channel) { must(channel.ExchangeDelete(name, false, false)) })
}

func exchangeReserved(b *broker) {
	b.refused(403, []string{"ACCESS_REFUSED", "amq.mine"}, func(channel *amqp.Channel) error {
		return channel.ExchangeDeclare("amq.mine", "direct", false, false, false, false, nil)
	})
}

func exchangeUnknownType(b *broker) {
	// RabbitMQ 4 closes the channel; 3.10 closed the connection with 503.
	code := 406
	if b.rabbitmq {
		code = 503
	}
	b.refused(code, []string{"x-odd"}, func(channel *amqp.Channel) error {
		return channel.ExchangeDeclare(b.name("odd"), "x-odd", false, false, false, false, nil)
	})
}

func exchangeDelete(b *broker) {
	exchange := b.name("exchange")
	b.refused(406, []string{"in use", exchange}, func(channel *amqp.Channel) error {
		must(channel.ExchangeDeclare(exchange, "direct", false, false, false, false, nil))
		must(channel.QueueBind(exclusive(channel), "k", exchange, false, nil))
		return channel.ExchangeDelete(exchange, true, false)
	})
	b.channel(func(channel *amqp.Channel) {
		must(channel.ExchangeDelete(exchange, true, false))
		must(channel.ExchangeDelete(exchange, false, false))
	})
	b.refused(404, []string{exchange}, func(channel *amqp.Channel) error { return exchangePassive(channel, exchange) })
}

func exchangeAutoDelete(b *broker) {
	exchange := b.name("exchange")
	b.refused(404, []string{exchange}, func(channel *amqp.Channel) error {
		must(channel.ExchangeDeclare(exchange, "direct", false, true, false, false, nil))
		queue := exclusive(channel)
		must(channel.QueueBind(queue, "k", exchange, false, nil))
		must(exchangePassive(channel, exchange))
		must(channel.QueueUnbind(queue, "k", exchange, nil))
		return exchangePassive(channel, exchange)
	})
}

func exchangeInternal(b *broker) {
	exchange := b.name("exchange")
	b.refused(403, []string{"ACCESS_REFUSED", exchange, "internal"}, func(channel *amqp.Channel) error {
		must(channel.ExchangeDeclare(exchange, "direct", false, false, true, false, nil))
		return publish(channel, exchange, "k", false, amqp.Publishing{})
	})
	b.channel(func(channel *amqp.Channel) { must(channel.ExchangeDelete(exchange, false, false)) })
}

func queueDeclare(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		name := b.name("queue")
		equal(give(channel.QueueDeclare(name, true, false, false, false, nil)), amqp.Queue{Name: name})
		fill(channel, name, 3)
		equal(give(channel.QueueDeclare(name, true, false, false, false, nil)).Messages, 3)
		equal(ready(channel, name), 3)
		give(channel.QueueDelete(name, false, false, false))
	})
}

func queueServerNamed(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		first, second := exclusive(channel), exclusive(channel)
		if !strings.HasPrefix(first, "amq.gen-") || first == second {
			panic(first + " " + second)
		}
		send(channel, "", second, "x")
		equal(drain(channel, ""), []string{"x"}) // the empty name means the queue that this channel declared last
	})
}

func queueExclusive(b *broker) {
	name := b.name("queue")
	b.channel(func(owner *amqp.Channel) {
		give(owner.QueueDeclare(name, false, false, true, false, nil))
		for _, use := range []channelUse{
			func(channel *amqp.Channel) error {
				_, err := channel.QueueDeclare(name, false, false, true, false, nil)
				return err
			},
			func(channel *amqp.Channel) error { _, err := passive(channel, name); return err },
			func(channel *amqp.Channel) error { _, err := consumer(channel, name, "", false, false); return err },
			func(channel *amqp.Channel) error { _, _, err := channel.Get(name, false); return err },
			func(channel *amqp.Channel) error { _, err := channel.QueuePurge(name, false); return err },
			func(channel *amqp.Channel) error {
				_, err := channel.QueueDelete(name, false, false, false)
				return err
			},
			func(channel *amqp.Channel) error { return channel.QueueBind(name, "k", "amq.direct", false, nil) },
		} {
			b.refused(405, []string{"RESOURCE_LOCKED", name}, use)
		}
	})
	b.refused(404, []string{name}, func(channel *amqp.Channel) error { _, err := passive(channel, name); return err })
}

func queueAutoDelete(b *broker) {
	name := b.name("queue")
	b.refused(404, []string{name}, func(channel *amqp.Channel) error {
		give(channel.QueueDeclare(name, false, true, false, false, nil))
		give(consumer(channel, name, "first", false, false))
		give(consumer(channel, name, "second", false, false))
		must(channel.Cancel("first", false))
		equal(give(passive(channel, name)).Consumers, 1)
		must(channel.Cancel("second", false))
		_, err := passive(channel, name)
		return err
	})
}

func queueMissing(b *broker) {
	for _, use := range []channelUse{
		func(channel *amqp.Channel) error { _, err := passive(channel, "no-such-queue"); return err },
		func(channel *amqp.Channel) error { _, err := channel.QueuePurge("no-such-queue", false); return err },
		func(channel *amqp.Channel) error { _, _, err := channel.Get("no-such-queue", false); return err },
		func(channel *amqp.Channel) error {
			_, err := consumer(channel, "no-such-queue", "", false, false)
			return err
		},
	} {
		b.refused(404, []string{"NOT_FOUND", "no-such-queue", "vhost '/'"}, use)
	}
}

func queueInequivalent(b *broker) {
	name := b.name("queue")
	b.channel(func(channel *amqp.Channel) { give(channel.QueueDeclare(name, true, false, false, false, nil)) })
	for _, different := range []channelUse{
		func(channel *amqp.Channel) error {
			_, err := channel.QueueDeclare(name, false, false, false, false, nil)
			return err
		},
		func(channel *amqp.Channel) error {
			_, err := channel.QueueDeclare(name, true, true, false, false, nil)
			return err
		},
	} {
		b.refused(406, []string{"PRECONDITION_FAILED", "inequivalent arg", name}, different)
	}
	b.channel(func(channel *amqp.Channel) { give(channel.QueueDelete(name, false, false, false)) })
}

func queueReserved(b *broker) {
	b.refused(403, []string{"ACCESS_REFUSED", "amq.mine"}, func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclare("amq.mine", false, false, false, false, nil)
		return err
	})
}

func queueArgumentRefused(b *broker) {
	// An argument that the broker does not honour is refused, not ignored. RabbitMQ honours this one.
	name := b.name("queue")
	declare := func(channel *amqp.Channel) error {
		_, err := channel.QueueDeclare(name, false, false, true, false, amqp.Table{"x-message-ttl": 60000})
		return err
	}
	if b.rabbitmq {
		b.channel(func(channel *amqp.Channel) { must(declare(channel)) })
		return
	}
	b.refused(406, []string{"PRECONDITION_FAILED", "x-message-ttl"}, declare)
	b.refused(404, []string{name}, func(channel *amqp.Channel) error { _, err := passive(channel, name); return err })
}

func queuePurge(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		fill(channel, queue, 5)
		_, _, err := channel.Get(queue, false) // not acknowledged, so the purge leaves it
		must(err)
		equal(give(channel.QueuePurge(queue, false)), 4)
		equal(give(channel.QueuePurge(queue, false)), 0)
		equal(ready(channel, queue), 0)
	})
}

func queueDelete(b *broker) {
	name := b.name("queue")
	b.refused(406, []string{"PRECONDITION_FAILED", name, "not empty"}, func(channel *amqp.Channel) error {
		give(channel.QueueDeclare(name, true, false, false, false, nil))
		fill(channel, name, 2)
		_, err := channel.QueueDelete(name, false, true, false)
		return err
	})
	b.channel(func(other *amqp.Channel) {
		give(consumer(other, name, "", false, false)).take(2)
		b.refused(406, []string{"PRECONDITION_FAILED", name, "in use"}, func(channel *amqp.Channel) error {
			_, err := channel.QueueDelete(name, true, false, false)
			return err
		})
	})
	b.channel(func(channel *amqp.Channel) {
		until("both messages back", func() bool { return ready(channel, name) == 2 })
		equal(give(channel.QueueDelete(name, true, false, false)), 2)
		equal(give(channel.QueueDelete(name, false, false, false)), 0)
	})
}

func bindingMissing(b *broker) {
	b.refused(404, []string{"no-such-exchange"}, func(channel *amqp.Channel) error {
		return channel.QueueBind(exclusive(channel), "k", "no-such-exchange", false, nil)
	})
	b.refused(404, []string{"no-such-queue"}, func(channel *amqp.Channel) error {
		return channel.QueueBind("no-such-queue", "k", "amq.direct", false, nil)
	})
	b.refused(404, []string{"no-such-exchange"}, func(channel *amqp.Channel) error {
		return channel.ExchangeBind("amq.direct", "k", "no-such-exchange", false, nil)
	})
	b.refused(403, []string{"ACCESS_REFUSED", "default exchange"}, func(channel *amqp.Channel) error { return channel.QueueBind(exclusive(channel), "k", "", false, nil) })
}

func bindingUnbind(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		for range 2 {
			must(channel.QueueBind(queue, queue, "amq.direct", false, nil))
		}
		send(channel, "amq.direct", queue, "bound")
		for range 2 { // the second one finds no binding, which is not an error
			must(channel.QueueUnbind(queue, queue, "amq.direct", nil))
		}
		send(channel, "amq.direct", queue, "unbound")
		equal(drain(channel, queue), []string{"bound"})
	})
}

func routeDefault(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		send(channel, "", queue, "x")
		equal(drain(channel, queue), []string{"x"})
	})
}

// keyed is a binding key with arguments, or a routing key with headers.
type keyed struct {
	key   string
	table amqp.Table
}

// routed checks which of the messages, by number, arrive in the queue of each binding.
func routed(b *broker, kind string, bindings, messages []keyed, expected []string) {
	b.channel(func(channel *amqp.Channel) {
		exchange := b.name(kind)
		must(channel.ExchangeDeclare(exchange, kind, false, true, false, false, nil))
		queues := []string{}
		for _, binding := range bindings {
			queue := exclusive(channel)
			must(channel.QueueBind(queue, binding.key, exchange, false, binding.table))
			queues = append(queues, queue)
		}
		for number, message := range messages {
			must(publish(channel, exchange, message.key, false, amqp.Publishing{Headers: message.table, Body: []byte(strconv.Itoa(number))}))
		}
		got := []string{}
		for _, queue := range queues {
			got = append(got, strings.Join(drain(channel, queue), " "))
		}
		equal(got, expected)
	})
}

func keys(names ...string) []keyed {
	list := []keyed{}
	for _, name := range names {
		list = append(list, keyed{key: name})
	}
	return list
}

func routeDirect(b *broker) {
	routed(b, "direct", keys("a", "a", "b"), keys("a", "b", "c"), []string{"0", "0", "1"})
}

func routeFanout(b *broker) {
	routed(b, "fanout", keys("a", ""), keys("a", "zzz"), []string{"0 1", "0 1"})
}

func routeTopic(b *broker) {
	routed(b, "topic", keys("stock.#", "stock.*", "*.*.nyse", "#", "#.stock.#", "stock.eur", "*"),
		keys("stock.eur.nyse", "stock.eur", "stock", "", "eur.stock.nyse", "stock..nyse"),
		[]string{"0 1 2 5", "1", "0 4 5", "0 1 2 3 4 5", "0 1 2 4 5", "1", "2"})
}

func routeHeaders(b *broker) {
	bindings := []keyed{
		{"", amqp.Table{"x-match": "all", "a": 1, "b": "x"}},
		{"", amqp.Table{"x-match": "any", "a": 1, "b": "x"}},
		{"", amqp.Table{"a": 1, "b": "x"}},
		{"", amqp.Table{"x-match": "any", "c": nil}},
	}
	messages := []keyed{{"", amqp.Table{"a": 1, "b": "x", "d": 9}}, {"", amqp.Table{"a": 1}}, {"", amqp.Table{"b": "y"}}, {"", amqp.Table{"c": true}}, {}}
	routed(b, "headers", bindings, messages, []string{"0", "0 1", "0", "3"})
}

func routeExchangeToExchange(b *broker) {
	first, second := b.name("first"), b.name("second")
	b.channel(func(channel *amqp.Channel) {
		must(channel.ExchangeDeclare(first, "topic", false, false, false, false, nil))
		must(channel.ExchangeDeclare(second, "fanout", false, false, false, false, nil))
		queue := exclusive(channel)
		must(channel.ExchangeBind(second, "a.*", first, false, nil))
		must(channel.ExchangeBind(first, "", second, false, nil)) // a cycle of bindings: each queue still gets one copy
		must(channel.QueueBind(queue, "", second, false, nil))
		send(channel, first, "a.b", "a.b")
		send(channel, first, "b.a", "b.a")
		equal(drain(channel, queue), []string{"a.b"})
		must(channel.ExchangeUnbind(second, "a.*", first, false, nil))
		send(channel, first, "a.c", "a.c")
		equal(drain(channel, queue), []string{})
		must(channel.ExchangeDelete(first, false, false))
		must(channel.ExchangeDelete(second, false, false))
	})
}

func routeOnce(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		for _, key := range []string{"a.#", "#.b", "a.b"} {
			must(channel.QueueBind(queue, queue+"."+key, "amq.topic", false, nil))
		}
		must(channel.QueueBind(queue, "#.b", "amq.topic", false, nil))
		send(channel, "amq.topic", queue+".a.b", "x")
		equal(drain(channel, queue), []string{"x"})
	})
}
