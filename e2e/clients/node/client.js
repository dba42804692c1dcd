// Test client with unmodified amqplib; scenarios: publish, consume, roundtrip, hold, conformance.
// The clients in the sibling folders have the same command line and print the same lines; see ../README.md.
'use strict';

const assert = require('node:assert/strict');
const { parseArgs } = require('node:util');
const { Tally, Broker, Deliveries, open, within } = require('./checks');

const scenarios = { publish, consume, roundtrip, hold };

// Publishes `count` numbered messages and waits for their confirms; a message that reaches no queue is an error.
async function publish(broker, options) {
  await broker.channel(async (channel) => {
    let returned = 0;
    channel.on('return', () => { returned += 1; });
    for (let number = 0; number < options.count; number += 1) {
      const more = channel.publish(options.exchange, options.key ?? options.queue, Buffer.from(String(number)), { mandatory: true, persistent: true });
      if (!more || number % 500 === 499) await channel.waitForConfirms();
    }
    await channel.waitForConfirms();
    assert.equal(returned, 0, 'messages were returned');
  });
  console.log(`published ${options.count}`);
}

// Consumes exactly `count` messages, checks that their numbers have no gap or duplicate, and acknowledges each.
async function consume(broker, options) {
  await broker.channel(async (channel) => {
    await channel.prefetch(100);
    const consumer = await Deliveries.on(channel, options.queue);
    for (let number = 0; number < options.count; number += 1) {
      const [message] = await consumer.take(1);
      assert.equal(message.content.toString(), String(number));
      channel.ack(message);
    }
    await channel.cancel(consumer.tag);
  });
  console.log(`consumed ${options.count}`);
}

// Publishes and consumes at the same time, over a new exclusive queue unless one is named.
async function roundtrip(broker, options) {
  await broker.connection(async (connection) => {
    const [publishing, consuming] = [await open(connection), await open(connection)];
    const queue = options.queue || (await consuming.assertQueue('', { exclusive: true })).queue;
    await consuming.prefetch(10);
    const consumer = await Deliveries.on(consuming, queue);
    for (let number = 0; number < options.count; number += 1) publishing.publish('', queue, Buffer.from(String(number)), { mandatory: true });
    for (let number = 0; number < options.count; number += 1) {
      const [message] = await consumer.take(1);
      assert.equal(message.content.toString(), String(number));
      consuming.ack(message);
    }
    await publishing.waitForConfirms();
  });
  console.log(`roundtrip ${options.count}`);
}

// Consumes, acknowledges nothing, and stays connected until the broker closes the connection or SIGTERM arrives.
async function hold(broker, options) {
  await broker.connection(async (connection) => {
    const ended = new Promise((resolve) => {
      connection.on('error', (error) => resolve(`${error.code} ${error.message}`));
      connection.on('close', (reason) => resolve(reason ? `${reason.code} ${reason.message}` : 'by itself'));
    });
    process.on('SIGTERM', () => connection.close().catch(() => {}));
    const channel = await open(connection);
    await channel.prefetch(options.count);
    await Deliveries.on(channel, options.queue);
    console.log('holding');
    console.log(`closed ${await ended}`);
  });
}

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      url: { type: 'string' }, rabbitmq: { type: 'boolean', default: false }, queue: { type: 'string', default: '' },
      exchange: { type: 'string', default: '' }, key: { type: 'string' }, count: { type: 'string', default: '100' },
    },
  });
  const [scenario] = positionals;
  if (!values.url || !(scenario in scenarios || scenario === 'conformance')) {
    console.error('usage: client.js --url URL [--rabbitmq] [--queue Q] [--exchange E] [--key K] [--count N] publish|consume|roundtrip|hold|conformance');
    return 2;
  }
  const tally = new Tally();
  const broker = new Broker(values.url, values.rabbitmq);
  if (scenario === 'conformance') {
    const checks = { ...require('./conformance_messages'), ...require('./conformance_entities') };
    for (const [name, check] of Object.entries(checks)) await tally.run(name, () => within(check(broker), 60000, 'its end'));
  } else {
    await tally.run(scenario, scenarios[scenario], broker, { ...values, count: Number(values.count) });
  }
  return tally.close();
}

main().then((code) => process.exit(code), (error) => {
  console.error(error);
  process.exit(1);
});
