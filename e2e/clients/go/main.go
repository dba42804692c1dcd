// Test client with unmodified amqp091-go; scenarios: publish, consume, roundtrip, hold, conformance.
// The clients in the sibling folders have the same command line and print the same lines; see ../README.md.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	amqp "github.com/rabbitmq/amqp091-go"
)

type options struct {
	queue, exchange, key string
	count                int
}

// runPublish publishes numbered messages and waits for their confirms; a message that reaches no queue is an error.
func runPublish(b *broker, o options) {
	key := o.key
	if key == "" && o.exchange == "" {
		key = o.queue
	}
	b.channel(func(channel *amqp.Channel) {
		returned := channel.NotifyReturn(make(chan amqp.Return, o.count))
		confirmations := []*amqp.DeferredConfirmation{}
		for _, number := range numbers(0, o.count) {
			message := amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(number)}
			confirmations = append(confirmations, give(channel.PublishWithDeferredConfirm(o.exchange, key, true, false, message)))
		}
		for _, confirmation := range confirmations {
			receive(confirmation.Done(), "a confirm")
			equal(confirmation.Acked(), true)
		}
		equal(len(returned), 0)
	})
	fmt.Println("published", o.count)
}

// runConsume consumes exactly `count` messages, checks that their numbers have no gap or duplicate, and acknowledges each.
func runConsume(b *broker, o options) {
	b.channel(func(channel *amqp.Channel) {
		must(channel.Qos(100, 0, false))
		consuming := give(consumer(channel, o.queue, "mine", false, false))
		for _, number := range numbers(0, o.count) {
			message := consuming.take(1)[0]
			equal(string(message.Body), number)
			must(message.Ack(false))
		}
		must(channel.Cancel("mine", false))
	})
	fmt.Println("consumed", o.count)
}

// runRoundtrip publishes and consumes at the same time, over a new exclusive queue unless one is named.
func runRoundtrip(b *broker, o options) {
	b.connection(amqp.Config{}, func(connection *amqp.Connection) {
		publishing, consuming := open(connection), open(connection)
		queue := o.queue
		if queue == "" {
			queue = exclusive(consuming)
		}
		must(consuming.Qos(10, 0, false))
		got := give(consumer(consuming, queue, "", false, false))
		sent := make(chan error, 1)
		go func() {
			for number := range o.count {
				if err := publish(publishing, "", queue, true, amqp.Publishing{Body: []byte(strconv.Itoa(number))}); err != nil {
					sent <- err
					return
				}
			}
			sent <- nil
		}()
		for _, number := range numbers(0, o.count) {
			message := got.take(1)[0]
			equal(string(message.Body), number)
			must(message.Ack(false))
		}
		must(receive(sent, "the last confirm"))
	})
	fmt.Println("roundtrip", o.count)
}

// runHold consumes, acknowledges nothing, and stays connected until the broker closes the connection or SIGTERM arrives.
func runHold(b *broker, o options) {
	b.connection(amqp.Config{}, func(connection *amqp.Connection) {
		closed := connection.NotifyClose(make(chan *amqp.Error, 1))
		terminated := make(chan os.Signal, 1)
		signal.Notify(terminated, syscall.SIGTERM)
		channel := open(connection)
		must(channel.Qos(o.count, 0, false))
		give(consumer(channel, o.queue, "", false, false))
		fmt.Println("holding")
		select {
		case reason := <-closed:
			fmt.Println("closed", reason.Code, reason.Reason)
		case <-terminated:
			fmt.Println("closed by itself")
		}
	})
}

func main() {
	o := options{}
	url := flag.String("url", "", "amqp://USER:PASSWORD@HOST:PORT/VHOST")
	rabbitmq := flag.Bool("rabbitmq", false, "the broker is RabbitMQ 3.10: expect its behaviour where that differs")
	flag.StringVar(&o.queue, "queue", "", "")
	flag.StringVar(&o.exchange, "exchange", "", "")
	flag.StringVar(&o.key, "key", "", "")
	flag.IntVar(&o.count, "count", 100, "")
	flag.Parse()
	scenarios := map[string]func(*broker, options){"publish": runPublish, "consume": runConsume, "roundtrip": runRoundtrip, "hold": runHold}
	scenario := flag.Arg(0)
	if *url == "" || (scenarios[scenario] == nil && scenario != "conformance") {
		fmt.Fprintln(os.Stderr, "usage: client --url URL [--rabbitmq] [--queue Q] [--exchange E] [--key K] [--count N] publish|consume|roundtrip|hold|conformance")
		os.Exit(2)
	}
	t, b := tally{}, newBroker(*url, *rabbitmq)
	if run := scenarios[scenario]; run != nil {
		t.run(scenario, func() { run(b, o) })
	} else {
		for _, check := range append(messageChecks, entityChecks...) {
			t.run(check.name, func() { check.run(b) })
		}
	}
	os.Exit(t.close())
}
