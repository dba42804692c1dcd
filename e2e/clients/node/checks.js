// Shared by all checks: the broker under test, unique names, short forms of the operations, and the tally of results.
'use strict';

const assert = require('node:assert/strict');
const { randomBytes } = require('node:crypto');
const amqp = require('amqplib');

const WAIT_MS = 15000;

class Tally {
  passed = 0;
  failed = 0;

  // Runs a check and prints `ok NAME` or `FAIL NAME: why`.
  async run(name, check, ...args) {
    try {
      await check(...args);
      this.passed += 1;
      console.log(`ok ${name}`);
    } catch (error) {
      this.failed += 1;
      const where = /\((?:.*\/)?([a-z_]+\.js:\d+)/.exec(error.stack || '');
      console.log(`FAIL ${name}: ${String(error.message).replace(/\s+/g, ' ')} (${where ? where[1] : error.name})`);
    }
  }

  close() {
    console.log(`${this.passed} passed, ${this.failed} failed`);
    return this.failed ? 1 : 0;
  }
}

// The broker under test. `rabbitmq` says that it is RabbitMQ 3.10: checks then expect its behaviour where that differs.
class Broker {
  constructor(url, rabbitmq) {
    this.url = url;
    this.rabbitmq = rabbitmq;
    this.run = randomBytes(4).toString('hex');
    this.count = 0;
  }

  name(what) {
    this.count += 1;
    return `check.${this.run}.${this.count}.${what}`;
  }

  // Calls `use` with a new connection, and closes the connection afterwards.
  async connection(use, change = () => {}) {
    const url = new URL(this.url);
    change(url);
    const connection = await amqp.connect(url.toString());
    connection.on('error', () => {}); // the operations that fail show the error
    try {
      return await use(connection);
    } finally {
      await connection.close().catch(() => {});
    }
  }

  // Calls `use` with a new channel with confirms on a connection of its own.
  async channel(use) {
    return this.connection(async (connection) => use(await open(connection), connection));
  }

  // Runs `use` on a channel, and checks that the broker closes it with this code and a reply text that contains the words.
  async refused(code, words, use) {
    await this.channel(async (channel) => {
      const closed = within(channel.refusal, WAIT_MS, `a close with ${code}`);
      const done = Promise.resolve(use(channel)).catch(() => {});
      const error = await closed;
      await done;
      assert.equal(error.code, code, error.message);
      for (const word of words) assert.ok(error.message.includes(word), `text ${error.message} does not name ${word}`);
    });
  }
}

async function open(connection) {
  const channel = await connection.createConfirmChannel();
  channel.refusal = new Promise((resolve) => channel.once('error', resolve));
  return channel;
}

async function within(promise, milliseconds, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited ${milliseconds} ms for ${what}`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function until(condition, what) {
  const deadline = Date.now() + WAIT_MS;
  while (!(await condition())) {
    if (Date.now() > deadline) throw new Error(`waited ${WAIT_MS} ms for ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

// A consumer with its deliveries: `take(n)` waits for the next n, in the order of arrival.
class Deliveries {
  got = [];
  cancelled = false;

  static async on(channel, queue, options) {
    const deliveries = new Deliveries();
    const consumer = await channel.consume(queue, (message) => {
      if (message === null) deliveries.cancelled = true;
      else deliveries.got.push(message);
    }, options);
    deliveries.tag = consumer.consumerTag;
    return deliveries;
  }

  async take(count) {
    await until(() => this.got.length >= count, `${count} deliveries, got ${this.got.length}`);
    return this.got.splice(0, count);
  }

  async bodies(count) {
    return (await this.take(count)).map((message) => message.content.toString());
  }
}

// Publishes and waits for the confirm.
async function publish(channel, exchange, key, body, options) {
  await within(new Promise((resolve, reject) => {
    channel.publish(exchange, key, Buffer.from(body), options, (error) => (error ? reject(error) : resolve()));
  }), WAIT_MS, 'a confirm');
}

async function fill(channel, queue, count) {
  for (let number = 0; number < count; number += 1) await publish(channel, '', queue, String(number));
}

function numbers(first, last) {
  return Array.from({ length: last - first }, (_, index) => String(first + index));
}

async function exclusive(channel) {
  return (await channel.assertQueue('', { exclusive: true })).queue;
}

async function ready(channel, queue) {
  return (await channel.checkQueue(queue)).messageCount;
}

// Returns the bodies of all messages that are in the queue now, taken with basic.get.
async function drain(channel, queue) {
  const bodies = [];
  for (;;) {
    const message = await channel.get(queue, { noAck: true });
    if (!message) return bodies;
    bodies.push(message.content.toString());
  }
}

function seen(messages) {
  return messages.map((message) => [message.content.toString(), message.fields.redelivered]);
}

module.exports = { Tally, Broker, Deliveries, open, within, until, publish, fill, numbers, exclusive, ready, drain, seen, WAIT_MS };
