package main

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// Shared by all checks: the broker under test, unique names, short forms of the operations, and the tally of results.
// A check that fails panics with the reason, which ends only that check.

const wait = 15 * time.Second

type tally struct{ passed, failed int }

// run calls a check and prints `ok NAME` or `FAIL NAME: why`.
func (t *tally) run(name string, check func()) {
	defer func() {
		if why := recover(); why != nil {
			t.failed++
			fmt.Printf("FAIL %s: %s (%s)\n", name, strings.ReplaceAll(fmt.Sprint(why), "\n", " "), caller())
			return
		}
		t.passed++
		fmt.Printf("ok %s\n", name)
	}()
	check()
}

// caller returns file and line of the check that failed.
func caller() string {
	counters := make([]uintptr, 32)
	frames := runtime.CallersFrames(counters[:runtime.Callers(2, counters)])
	for {
		frame, more := frames.Next()
		file := filepath.Base(frame.File)
		if file == "entities.go" || file == "messages.go" || file == "main.go" {
			return fmt.Sprintf("%s:%d", file, frame.Line)
		}
		if !more {
			return "?"
		}
	}
}

func (t *tally) close() int {
	fmt.Printf("%d passed, %d failed\n", t.passed, t.failed)
	if t.failed > 0 {
		return 1
	}
	return 0
}

// broker is the broker under test. rabbitmq says that it is RabbitMQ 3.10: checks then expect its behaviour where that differs.
type broker struct {
	url      string
	rabbitmq bool
	run      string
	count    int
}

func newBroker(url string, rabbitmq bool) *broker {
	random := make([]byte, 4)
	_, err := rand.Read(random)
	must(err)
	return &broker{url: url, rabbitmq: rabbitmq, run: hex.EncodeToString(random)}
}

func (b *broker) name(what string) string {
	b.count++
	return fmt.Sprintf("check.%s.%d.%s", b.run, b.count, what)
}

// connection calls use with a new connection, and closes the connection afterwards.
func (b *broker) connection(config amqp.Config, use func(*amqp.Connection)) {
	connection, err := amqp.DialConfig(b.url, config)
	must(err)
	defer connection.Close()
	use(connection)
}

// channel calls use with a new channel with confirms on a connection of its own.
func (b *broker) channel(use func(*amqp.Channel)) {
	b.connection(amqp.Config{}, func(connection *amqp.Connection) { use(open(connection)) })
}

// refused runs use on a channel, and checks that the broker closes it with this code and a reply text that contains the words.
func (b *broker) refused(code int, words []string, use func(*amqp.Channel) error) {
	b.channel(func(channel *amqp.Channel) {
		closed := channel.NotifyClose(make(chan *amqp.Error, 1))
		_ = use(channel) // may succeed, as some refusals arrive later
		expectClose(closed, code, words...)
	})
}

func expectClose(closed chan *amqp.Error, code int, words ...string) {
	reason := receive(closed, fmt.Sprintf("a close with %d", code))
	if reason == nil || reason.Code != code {
		panic(fmt.Sprintf("closed with %v, expected %d", reason, code))
	}
	for _, word := range words {
		if !strings.Contains(reason.Reason, word) {
			panic(fmt.Sprintf("text %q does not name %q", reason.Reason, word))
		}
	}
}

func open(connection *amqp.Connection) *amqp.Channel {
	channel := give(connection.Channel())
	must(channel.Confirm(false))
	return channel
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func give[T any](value T, err error) T {
	must(err)
	return value
}

func equal(got, expected any) {
	if !reflect.DeepEqual(got, expected) {
		panic(fmt.Sprintf("got %#v, expected %#v", got, expected))
	}
}

func receive[T any](from <-chan T, what string) T {
	select {
	case value := <-from:
		return value
	case <-time.After(wait):
		panic(fmt.Sprintf("waited %v for %s", wait, what))
	}
}

func until(what string, condition func() bool) {
	for deadline := time.Now().Add(wait); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic(fmt.Sprintf("waited %v for %s", wait, what))
		}
	}
}

// deliveries is a consumer: take(n) waits for the next n deliveries, in the order of arrival.
type deliveries struct {
	tag string
	got <-chan amqp.Delivery
}

func consumer(channel *amqp.Channel, queue, tag string, autoAck, exclusive bool) (*deliveries, error) {
	got, err := channel.Consume(queue, tag, autoAck, exclusive, false, false, nil)
	return &deliveries{tag, got}, err
}

func (d *deliveries) take(count int) []amqp.Delivery {
	taken := make([]amqp.Delivery, 0, count)
	for len(taken) < count {
		taken = append(taken, receive(d.got, fmt.Sprintf("%d deliveries, got %d", count, len(taken))))
	}
	return taken
}

func bodies(messages []amqp.Delivery) []string {
	texts := []string{}
	for _, message := range messages {
		texts = append(texts, string(message.Body))
	}
	return texts
}

// seen returns body and redelivered flag of each delivery.
func seen(messages []amqp.Delivery) []string {
	texts := []string{}
	for _, message := range messages {
		texts = append(texts, fmt.Sprintf("%s %t", message.Body, message.Redelivered))
	}
	return texts
}

// publish publishes a message and waits for its confirm. It is an error if the channel closes instead.
func publish(channel *amqp.Channel, exchange, key string, mandatory bool, message amqp.Publishing) error {
	closed := channel.NotifyClose(make(chan *amqp.Error, 1))
	confirmation, err := channel.PublishWithDeferredConfirm(exchange, key, mandatory, false, message)
	if err != nil {
		return err
	}
	select {
	case <-confirmation.Done():
		if !confirmation.Acked() {
			return fmt.Errorf("nacked")
		}
		return nil
	case reason := <-closed:
		return reason
	case <-time.After(wait):
		return fmt.Errorf("waited %v for a confirm", wait)
	}
}

func send(channel *amqp.Channel, exchange, key, body string) {
	must(publish(channel, exchange, key, false, amqp.Publishing{Body: []byte(body)}))
}

func fill(channel *amqp.Channel, queue string, count int) {
	for _, number := range numbers(0, count) {
		send(channel, "", queue, number)
	}
}

func numbers(first, last int) []string {
	texts := []string{}
	for number := first; number < last; number++ {
		texts = append(texts, strconv.Itoa(number))
	}
	return texts
}

func exclusive(channel *amqp.Channel) string {
	return give(channel.QueueDeclare("", false, false, true, false, nil)).Name
}

func passive(channel *amqp.Channel, queue string) (amqp.Queue, error) {
	return channel.QueueDeclarePassive(queue, false, false, false, false, nil)
}

func ready(channel *amqp.Channel, queue string) int {
	return give(passive(channel, queue)).Messages
}

// drain returns the bodies of all messages that are in the queue now, taken with basic.get.
func drain(channel *amqp.Channel, queue string) []string {
	texts := []string{}
	for {
		message, ok, err := channel.Get(queue, true)
		must(err)
		if !ok {
			return texts
		}
		texts = append(texts, string(message.Body))
	}
}
