package main

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Checks of connections, publishes and confirms, message contents, and deliveries with their acknowledgements.

var messageChecks = []check{
	{"connection.open", connectionOpen},
	{"connection.tune", connectionTune},
	{"connection.wrong-password", connectionWrongPassword},
	{"connection.wrong-vhost", connectionWrongVhost},
	{"connection.heartbeat", connectionHeartbeat},
	{"connection.channels", connectionChannels},
	{"connection.close", connectionClose},
	{"publish.confirm", publishConfirm},
	{"publish.mandatory", publishMandatory},
	{"publish.missing-exchange", publishMissingExchange},
	{"message.properties", messageProperties},
	{"message.header-types", messageHeaderTypes},
	{"message.empty", func(b *broker) { echo(b, amqp.Publishing{Body: []byte{}}) }},
	{"message.big", func(b *broker) { echo(b, amqp.Publishing{Body: bytes.Repeat([]byte("abcdefgh"), 640_000)}) }},
	{"message.frame-edges", messageFrameEdges},
	{"get", get},
	{"consume.order", consumeOrder},
	{"consume.prefetch", consumePrefetch},
	{"consume.nack-requeue", consumeNackRequeue},
	{"consume.reject", consumeReject},
	{"consume.recover", consumeRecover},
	{"consume.cancel", consumeCancel},
	{"consume.exclusive", consumeExclusive},
	{"consume.queue-deleted", consumeQueueDeleted},
	{"consume.no-ack", consumeNoAck},
	{"consume.requeue-on-close", consumeRequeueOnClose},
	{"ack.unknown-tag", ackUnknownTag},
	{"ack.twice", ackTwice},
}

func connectionOpen(b *broker) {
	b.connection(amqp.Config{}, func(connection *amqp.Connection) {
		equal(connection.Properties["product"], "RabbitMQ") // client libraries compare it
		for _, name := range []string{"version", "platform", "information"} {
			if connection.Properties[name] == nil {
				panic("server-properties hold no " + name)
			}
		}
		capabilities, _ := connection.Properties["capabilities"].(amqp.Table)
		for _, name := range []string{"publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
			"authentication_failure_close", "per_consumer_qos"} {
			equal(fmt.Sprint(name, capabilities[name]), name+"true")
		}
	})
}

func connectionTune(b *broker) {
	serversHeartbeat := time.Millisecond // below a second the library uses the server's interval
	b.connection(amqp.Config{Heartbeat: serversHeartbeat}, func(connection *amqp.Connection) {
		equal(connection.Config.ChannelMax, uint16(2047))
		equal(connection.Config.FrameSize, 131072)
		equal(connection.Config.Heartbeat, 60*time.Second)
	})
	b.connection(amqp.Config{ChannelMax: 7, FrameSize: 8192, Heartbeat: 9 * time.Second}, func(connection *amqp.Connection) {
		for range 7 {
			open(connection)
		}
	})
}

func dialRefused(b *broker, config amqp.Config, code int, words ...string) {
	connection, err := amqp.DialConfig(b.url, config)
	if err == nil {
		_ = connection.Close()
		panic("the connection was accepted")
	}
	var reason *amqp.Error
	if !errors.As(err, &reason) || reason.Code != code {
		panic(fmt.Sprintf("refused with %v, expected %d", err, code))
	}
	for _, word := range words {
		if !strings.Contains(reason.Reason, word) {
			panic(fmt.Sprintf("text %q does not name %q", reason.Reason, word))
		}
	}
}

func connectionWrongPassword(b *broker) {
	uri := give(amqp.ParseURI(b.url))
	dialRefused(b, amqp.Config{SASL: []amqp.Authentication{&amqp.PlainAuth{Username: uri.Username, Password: "wrong"}}, Vhost: uri.Vhost}, 403)
}

func connectionWrongVhost(b *broker) {
	dialRefused(b, amqp.Config{Vhost: "no-such-vhost"}, 530, "no-such-vhost")
}

func connectionHeartbeat(b *broker) {
	b.connection(amqp.Config{Heartbeat: time.Second}, func(connection *amqp.Connection) {
		channel := open(connection)
		time.Sleep(4 * time.Second) // four heartbeat intervals without other traffic
		exclusive(channel)
	})
}

func connectionChannels(b *broker) {
	b.connection(amqp.Config{}, func(connection *amqp.Connection) {
		channels := []*amqp.Channel{}
		for range 200 {
			channels = append(channels, open(connection))
		}
		queue := exclusive(channels[0])
		for number, body := range numbers(0, 200) {
			send(channels[number], "", queue, body)
		}
		equal(drain(channels[0], queue), numbers(0, 200))
		closed := channels[7].NotifyClose(make(chan *amqp.Error, 1))
		_, _ = passive(channels[7], "no-such-queue")
		expectClose(closed, 404)
		send(channels[8], "", queue, "still here")
		must(channels[9].Close())
		equal(drain(open(connection), queue), []string{"still here"})
	})
}

func connectionClose(b *broker) {
	queue := ""
	b.connection(amqp.Config{}, func(connection *amqp.Connection) {
		queue = exclusive(open(connection))
		must(connection.Close())
	})
	b.refused(404, []string{queue}, func(channel *amqp.Channel) error { _, err := passive(channel, queue); return err })
}

func publishConfirm(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		confirmations := []*amqp.DeferredConfirmation{}
		for _, number := range numbers(0, 1000) {
			confirmations = append(confirmations, give(channel.PublishWithDeferredConfirm("", queue, false, false, amqp.Publishing{Body: []byte(number)})))
		}
		for number, confirmation := range confirmations {
			receive(confirmation.Done(), "a confirm")
			equal([]any{confirmation.Acked(), confirmation.DeliveryTag}, []any{true, uint64(number + 1)})
		}
		equal(drain(channel, queue), numbers(0, 1000))
		send(channel, "amq.fanout", "nobody", "x") // an unroutable message that is not mandatory is confirmed too
	})
}

func publishMandatory(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		returns := channel.NotifyReturn(make(chan amqp.Return, 1))
		must(publish(channel, "", queue, true, amqp.Publishing{Body: []byte("routed")}))
		equal(len(returns), 0)
		must(publish(channel, "", "no-such-queue", true, amqp.Publishing{MessageId: "7", Body: []byte("lost")}))
		equal(len(returns), 1) // the return comes before the confirm
		returned := <-returns
		equal([]any{returned.ReplyCode, returned.ReplyText, returned.Exchange, returned.RoutingKey}, []any{uint16(312), "NO_ROUTE", "", "no-such-queue"})
		equal([]any{returned.MessageId, string(returned.Body)}, []any{"7", "lost"})
		must(publish(channel, "", queue, true, amqp.Publishing{Body: []byte("after")}))
		equal(drain(channel, queue), []string{"routed", "after"})
	})
}

func publishMissingExchange(b *broker) {
	b.refused(404, []string{"NOT_FOUND", "no-such-exchange"}, func(channel *amqp.Channel) error {
		return publish(channel, "no-such-exchange", "k", false, amqp.Publishing{})
	})
}

// echo sends a message to a queue, gets it back, and returns it.
func echo(b *broker, message amqp.Publishing) (got amqp.Delivery) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		must(publish(channel, "", queue, false, message))
		returned, ok, err := channel.Get(queue, true)
		must(err)
		if !ok || !bytes.Equal(returned.Body, message.Body) {
			panic(fmt.Sprintf("a body of %d bytes came back as %d bytes", len(message.Body), len(returned.Body)))
		}
		got = returned
	})
	return got
}

func messageProperties(b *broker) {
	user := give(amqp.ParseURI(b.url)).Username
	sent := amqp.Publishing{
		ContentType: "text/plain", ContentEncoding: "utf-8", Headers: amqp.Table{"k": "v"}, DeliveryMode: 2, Priority: 3, CorrelationId: "c1", ReplyTo: "r1",
		MessageId: "m1", Timestamp: time.Unix(1700000000, 0), Type: "t1", UserId: user, AppId: "a1", Body: []byte("x"),
	}
	got := echo(b, sent)
	back := amqp.Publishing{
		ContentType: got.ContentType, ContentEncoding: got.ContentEncoding, Headers: got.Headers, DeliveryMode: got.DeliveryMode, Priority: got.Priority, CorrelationId: got.CorrelationId,
		ReplyTo: got.ReplyTo, MessageId: got.MessageId, Timestamp: got.Timestamp, Type: got.Type, UserId: got.UserId, AppId: got.AppId, Body: got.Body,
	}
	equal(back, sent)
	b.refused(406, []string{"PRECONDITION_FAILED", "somebody-else"}, func(channel *amqp.Channel) error {
		return publish(channel, "", "q", false, amqp.Publishing{UserId: "somebody-else"})
	})
}

func messageHeaderTypes(b *broker) {
	headers := amqp.Table{
		"true": true, "false": false, "uint8": byte(200), "int8": int8(-3), "int16": int16(-300), "uint16": uint16(60000), "int32": int32(-70000), "uint32": uint32(4000000000),
		"int64": int64(1) << 40, "float": float32(1.5), "double": 3.14159, "decimal": amqp.Decimal{Scale: 2, Value: 314}, "string": "häuser", "empty": "",
		"bytes": []byte{0, 255}, "time": time.Unix(1700000000, 0), "none": nil, "list": []any{int32(1), "two", []any{int32(3), nil}, amqp.Table{"four": int32(4)}},
		"table": amqp.Table{"a": amqp.Table{"b": amqp.Table{"c": []any{true}}}}, "no-items": []any{}, "no-entries": amqp.Table{},
	}
	got := echo(b, amqp.Publishing{Headers: headers}).Headers
	equal(len(got), len(headers))
	for name, value := range headers {
		if list, ok := got[name].([]any); ok && len(list) == 0 {
			got[name] = []any{}
		}
		equal(fmt.Sprintf("%s %#v", name, got[name]), fmt.Sprintf("%s %#v", name, value))
	}
}

func messageFrameEdges(b *broker) {
	const frame = 131072 - 8
	for _, size := range []int{frame - 1, frame, frame + 1, 2 * frame, 2*frame + 1} {
		echo(b, amqp.Publishing{Body: bytes.Repeat([]byte("e"), size)})
	}
}

func getOne(channel *amqp.Channel, queue string) amqp.Delivery {
	message, ok, err := channel.Get(queue, false)
	must(err)
	equal(ok, true)
	return message
}

func get(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		_, ok, err := channel.Get(queue, false)
		must(err)
		equal(ok, false)
		fill(channel, queue, 3)
		first := getOne(channel, queue)
		equal([]any{string(first.Body), first.MessageCount, first.Redelivered, first.Exchange, first.RoutingKey}, []any{"0", uint32(2), false, "", queue})
		must(first.Nack(false, true))
		again := getOne(channel, queue)
		equal(seen([]amqp.Delivery{again}), []string{"0 true"})
		must(again.Ack(false))
		equal(drain(channel, queue), numbers(1, 3))
	})
}

func consumeOrder(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		fill(channel, queue, 50)
		consuming := give(consumer(channel, queue, "mine", false, false))
		fill(channel, queue, 50)
		got := consuming.take(100)
		equal(bodies(got), append(numbers(0, 50), numbers(0, 50)...))
		for number, message := range got {
			equal([]any{message.DeliveryTag, message.ConsumerTag, message.Redelivered}, []any{uint64(number + 1), "mine", false})
		}
		must(channel.Ack(0, true))
		equal(give(passive(channel, queue)).Consumers, 1)
	})
}

func consumePrefetch(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		fill(channel, queue, 10)
		must(channel.Qos(3, 0, false))
		consuming := give(consumer(channel, queue, "", false, false))
		first := consuming.take(3)
		equal(ready(channel, queue), 7)
		must(first[0].Ack(false))
		equal(bodies(consuming.take(1)), []string{"3"})
		equal(ready(channel, queue), 6)
		must(first[2].Ack(true))
		equal(bodies(consuming.take(2)), []string{"4", "5"})
		equal(ready(channel, queue), 4)
	})
}

func consumeNackRequeue(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		fill(channel, queue, 4)
		must(channel.Qos(4, 0, false))
		consuming := give(consumer(channel, queue, "", false, false))
		must(consuming.take(4)[2].Nack(true, true))
		equal(seen(consuming.take(3)), []string{"0 true", "1 true", "2 true"})
		must(channel.Nack(0, true, false))
		equal(ready(channel, queue), 0)
	})
}

func consumeReject(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		fill(channel, queue, 2)
		must(channel.Qos(1, 0, false))
		consuming := give(consumer(channel, queue, "", false, false))
		must(consuming.take(1)[0].Reject(true))
		again := consuming.take(1)
		equal(seen(again), []string{"0 true"})
		must(again[0].Reject(false))
		equal(seen(consuming.take(1)), []string{"1 false"})
	})
}

func consumeRecover(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		fill(channel, queue, 3)
		consuming := give(consumer(channel, queue, "", false, false))
		consuming.take(3)
		must(channel.Recover(true))
		equal(seen(consuming.take(3)), []string{"0 true", "1 true", "2 true"})
	})
}

func consumeCancel(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		fill(channel, queue, 1)
		message := give(consumer(channel, queue, "mine", false, false)).take(1)[0]
		must(channel.Cancel("mine", false))
		fill(channel, queue, 1)
		equal(ready(channel, queue), 1) // no consumer takes it
		must(message.Ack(false))        // an earlier delivery may still be acknowledged
		equal(ready(channel, queue), 1)
	})
}

func consumeExclusive(b *broker) {
	name := b.name("queue")
	b.channel(func(owner *amqp.Channel) {
		give(owner.QueueDeclare(name, true, false, false, false, nil))
		give(consumer(owner, name, "mine", false, true))
		b.refused(403, []string{"ACCESS_REFUSED", name, "exclusive"}, func(channel *amqp.Channel) error {
			_, err := consumer(channel, name, "", false, false)
			return err
		})
		must(owner.Cancel("mine", false))
		give(consumer(owner, name, "", false, false))
		b.refused(403, []string{"ACCESS_REFUSED", name}, func(channel *amqp.Channel) error {
			_, err := consumer(channel, name, "", false, true)
			return err
		})
		give(owner.QueueDelete(name, false, false, false))
	})
}

func consumeQueueDeleted(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		name := b.name("queue")
		give(channel.QueueDeclare(name, true, false, false, false, nil))
		cancelled := channel.NotifyCancel(make(chan string, 1))
		give(consumer(channel, name, "mine", false, false))
		b.channel(func(other *amqp.Channel) { give(other.QueueDelete(name, false, false, false)) })
		equal(receive(cancelled, "the broker's basic.cancel"), "mine")
	})
}

func consumeNoAck(b *broker) {
	b.channel(func(channel *amqp.Channel) {
		queue := exclusive(channel)
		must(channel.Qos(1, 0, false)) // does not limit a consumer without acknowledgements
		fill(channel, queue, 20)
		consuming := give(consumer(channel, queue, "mine", true, false))
		equal(bodies(consuming.take(20)), numbers(0, 20))
		must(channel.Cancel("mine", false))
		equal(give(channel.QueueDelete(queue, false, false, false)), 0)
	})
}

func consumeRequeueOnClose(b *broker) {
	name := b.name("queue")
	b.connection(amqp.Config{}, func(connection *amqp.Connection) {
		channel, consuming := open(connection), open(connection)
		give(channel.QueueDeclare(name, true, false, false, false, nil))
		fill(channel, name, 5)
		give(consumer(consuming, name, "", false, false)).take(5)
		must(consuming.Close())
		until("5 messages back after the channel closed", func() bool { return ready(channel, name) == 5 })
	})
	b.channel(func(channel *amqp.Channel) { give(consumer(channel, name, "", false, false)).take(5) })
	b.channel(func(channel *amqp.Channel) { // the same after the connection has closed
		got := give(consumer(channel, name, "", false, false)).take(5)
		equal(seen(got), []string{"0 true", "1 true", "2 true", "3 true", "4 true"})
		give(channel.QueueDelete(name, false, false, false))
	})
}

func ackUnknownTag(b *broker) {
	for _, settle := range []channelUse{
		func(channel *amqp.Channel) error { return channel.Ack(99, false) },
		func(channel *amqp.Channel) error { return channel.Nack(99, false, true) },
		func(channel *amqp.Channel) error { return channel.Reject(99, true) },
	} {
		b.refused(406, []string{"PRECONDITION_FAILED", "unknown delivery tag 99"}, settle)
	}
}

func ackTwice(b *broker) {
	b.refused(406, []string{"PRECONDITION_FAILED", "unknown delivery tag 1"}, func(channel *amqp.Channel) error {
		queue := exclusive(channel)
		fill(channel, queue, 1)
		message := getOne(channel, queue)
		must(message.Ack(false))
		return message.Ack(false)
	})
}
