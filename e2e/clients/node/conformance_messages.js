// Checks of connections, publishes and confirms, message contents, and deliveries with their acknowledgements.
'use strict';

const assert = require('node:assert/strict');
const { Deliveries, open, within, until, publish, fill, numbers, exclusive, ready, drain, seen, WAIT_MS } = require('./checks');

const checks = {
  'connection.open': (broker) => broker.connection(async (connection) => {
    const server = connection.connection.serverProperties;
    assert.equal(server.product, 'RabbitMQ'); // client libraries compare it
    for (const name of ['version', 'platform', 'information']) assert.ok(server[name], `server-properties hold no ${name}`);
    for (const name of ['publisher_confirms', 'exchange_exchange_bindings', 'basic.nack', 'consumer_cancel_notify', 'connection.blocked',
      'authentication_failure_close', 'per_consumer_qos']) assert.equal(server.capabilities[name], true, `capability ${name} is missing`);
  }),

  'connection.tune': async (broker) => {
    await broker.connection(async ({ connection }) => {
      assert.deepEqual([connection.channelMax, connection.frameMax, connection.heartbeat], [2047, 131072, 60]);
    }, (url) => url.searchParams.set('channelMax', '0'));
    await broker.connection(async (connection) => {
      for (let count = 0; count < 7; count += 1) await open(connection);
    }, (url) => Object.entries({ channelMax: 7, frameMax: 8192, heartbeat: 9 }).forEach(([key, value]) => url.searchParams.set(key, value)));
  },

  'connection.wrong-password': (broker) => assert.rejects(
    broker.connection(() => {}, (url) => { url.password = 'wrong'; }), /403 \(ACCESS.REFUSED\)/),

  'connection.wrong-vhost': (broker) => assert.rejects(
    broker.connection(() => {}, (url) => { url.pathname = '/no-such-vhost'; }), /ConnectionClose/), // amqplib hides the code, 530, and the text

  'connection.heartbeat': (broker) => broker.connection(async (connection) => {
    const channel = await open(connection);
    await new Promise((resolve) => setTimeout(resolve, 4000)); // four heartbeat intervals without other traffic
    await exclusive(channel);
  }, (url) => url.searchParams.set('heartbeat', '1')),

  'connection.channels': (broker) => broker.connection(async (connection) => {
    const channels = [];
    for (let count = 0; count < 200; count += 1) channels.push(await open(connection));
    const queue = await exclusive(channels[0]);
    for (const [number, channel] of channels.entries()) await publish(channel, '', queue, String(number));
    assert.deepEqual(await drain(channels[0], queue), numbers(0, 200));
    await assert.rejects(channels[7].checkQueue('no-such-queue'));
    assert.equal((await within(channels[7].refusal, WAIT_MS, 'a close')).code, 404);
    await publish(channels[8], '', queue, 'still here');
    await channels[9].close();
    assert.deepEqual(await drain(await open(connection), queue), ['still here']);
  }),

  'connection.close': async (broker) => {
    let queue;
    await broker.connection(async (connection) => {
      queue = await exclusive(await open(connection));
      await connection.close();
    });
    await broker.refused(404, [queue], (channel) => channel.checkQueue(queue));
  },

  'publish.confirm': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    for (let number = 0; number < 1000; number += 1) channel.publish('', queue, Buffer.from(String(number)));
    await channel.waitForConfirms();
    assert.deepEqual(await drain(channel, queue), numbers(0, 1000));
    await publish(channel, 'amq.fanout', 'nobody', 'x'); // an unroutable message that is not mandatory is confirmed too
  }),

  'publish.mandatory': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    const returned = [];
    channel.on('return', (message) => returned.push(message));
    await publish(channel, '', queue, 'routed', { mandatory: true });
    assert.equal(returned.length, 0);
    await publish(channel, '', 'no-such-queue', 'lost', { mandatory: true, messageId: '7' });
    assert.equal(returned.length, 1, 'the return comes before the confirm');
    const { fields, properties, content } = returned[0];
    assert.deepEqual([fields.replyCode, fields.replyText, fields.exchange, fields.routingKey], [312, 'NO_ROUTE', '', 'no-such-queue']);
    assert.deepEqual([properties.messageId, content.toString()], ['7', 'lost']);
    await publish(channel, '', queue, 'after', { mandatory: true });
    assert.deepEqual(await drain(channel, queue), ['routed', 'after']);
  }),

  'publish.missing-exchange': (broker) => broker.refused(404, ['NOT_FOUND', 'no-such-exchange'], (channel) => publish(channel, 'no-such-exchange', 'k', 'x')),

  'message.properties': async (broker) => {
    const sent = {
      contentType: 'text/plain', contentEncoding: 'utf-8', headers: { k: 'v' }, deliveryMode: 2, priority: 3, correlationId: 'c1', replyTo: 'r1',
      messageId: 'm1', timestamp: 1700000000, type: 't1', userId: new URL(broker.url).username, appId: 'a1',
    };
    const got = await echo(broker, Buffer.from('x'), sent);
    for (const [name, value] of Object.entries(sent)) assert.deepEqual(got[name], value, name);
    await broker.refused(406, ['PRECONDITION_FAILED', 'somebody-else'], (channel) => publish(channel, '', 'q', 'x', { userId: 'somebody-else' }));
  },

  'message.header-types': async (broker) => {
    const headers = {
      true: true, false: false, int8: { '!': 'byte', value: -3 }, int16: { '!': 'short', value: -300 }, int32: -70000, int64: 2 ** 40, float: { '!': 'float', value: 1.5 },
      double: 3.14159, string: 'häuser', empty: '', bytes: Buffer.from([0, 255]), none: null, list: [1, 'two', [3, null], { four: 4 }],
      table: { a: { b: { c: [true] } } }, 'no-items': [], 'no-entries': {},
      time: { '!': 'timestamp', value: 1700000000 }, decimal: { '!': 'decimal', value: { places: 2, digits: 314 } },
    };
    const got = (await echo(broker, Buffer.from('x'), { headers })).headers;
    const expected = { ...headers, int8: -3, int16: -300, float: 1.5 };
    for (const name of Object.keys(expected)) assert.deepEqual(got[name], expected[name], name);
    assert.deepEqual(Object.keys(got), Object.keys(headers));
  },

  'message.empty': (broker) => echo(broker, Buffer.alloc(0)),

  'message.big': (broker) => echo(broker, Buffer.alloc(5_120_000, 'abcdefghij')), // some forty frames

  'message.frame-edges': async (broker) => {
    const frame = 131072 - 8;
    for (const size of [frame - 1, frame, frame + 1, 2 * frame, 2 * frame + 1]) await echo(broker, Buffer.alloc(size, 'e'));
  },

  get: (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    assert.equal(await channel.get(queue), false);
    await fill(channel, queue, 3);
    const first = await channel.get(queue);
    assert.deepEqual([first.content.toString(), first.fields.messageCount, first.fields.redelivered, first.fields.exchange, first.fields.routingKey], ['0', 2, false, '', queue]);
    channel.nack(first, false, true);
    const again = await channel.get(queue);
    assert.deepEqual(seen([again]), [['0', true]]);
    channel.ack(again);
    assert.deepEqual(await drain(channel, queue), ['1', '2']);
  }),

  'consume.order': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 50);
    const consumer = await Deliveries.on(channel, queue);
    await fill(channel, queue, 50);
    const got = await consumer.take(100);
    assert.deepEqual(got.map((message) => message.content.toString()), [...numbers(0, 50), ...numbers(0, 50)]);
    assert.deepEqual(got.map((message) => message.fields.deliveryTag), Array.from({ length: 100 }, (_, index) => index + 1));
    assert.ok(got.every((message) => message.fields.consumerTag === consumer.tag && !message.fields.redelivered));
    channel.ackAll();
    assert.equal((await channel.checkQueue(queue)).consumerCount, 1);
  }),

  'consume.prefetch': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 10);
    await channel.prefetch(3);
    const consumer = await Deliveries.on(channel, queue);
    const first = await consumer.take(3);
    assert.equal(await ready(channel, queue), 7);
    channel.ack(first[0]);
    assert.deepEqual(await consumer.bodies(1), ['3']);
    assert.equal(await ready(channel, queue), 6);
    channel.ack(first[2], true);
    assert.deepEqual(await consumer.bodies(2), ['4', '5']);
    assert.equal(await ready(channel, queue), 4);
  }),

  'consume.nack-requeue': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 4);
    await channel.prefetch(4);
    const consumer = await Deliveries.on(channel, queue);
    const got = await consumer.take(4);
    channel.nack(got[2], true, true);
    assert.deepEqual(seen(await consumer.take(3)), [['0', true], ['1', true], ['2', true]]);
    channel.nackAll(false);
    assert.equal(await ready(channel, queue), 0);
  }),

  'consume.reject': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 2);
    await channel.prefetch(1);
    const consumer = await Deliveries.on(channel, queue);
    channel.reject((await consumer.take(1))[0], true);
    const again = await consumer.take(1);
    assert.deepEqual(seen(again), [['0', true]]);
    channel.reject(again[0], false);
    assert.deepEqual(seen(await consumer.take(1)), [['1', false]]);
  }),

  'consume.recover': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 3);
    const consumer = await Deliveries.on(channel, queue);
    await consumer.take(3);
    await channel.recover();
    assert.deepEqual(seen(await consumer.take(3)), [['0', true], ['1', true], ['2', true]]);
  }),

  'consume.cancel': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 1);
    const consumer = await Deliveries.on(channel, queue, { consumerTag: 'mine' });
    assert.equal(consumer.tag, 'mine');
    const [message] = await consumer.take(1);
    await channel.cancel('mine');
    await fill(channel, queue, 1);
    assert.equal(await ready(channel, queue), 1); // no consumer takes it
    channel.ack(message); // an earlier delivery may still be acknowledged
    assert.equal(await ready(channel, queue), 1);
    assert.ok((await Deliveries.on(channel, queue)).tag);
  }),

  'consume.exclusive': async (broker) => {
    const name = broker.name('queue');
    await broker.channel(async (owner) => {
      await owner.assertQueue(name);
      const consumer = await Deliveries.on(owner, name, { exclusive: true });
      await broker.refused(403, ['ACCESS_REFUSED', name, 'exclusive'], (channel) => Deliveries.on(channel, name));
      await owner.cancel(consumer.tag);
      await Deliveries.on(owner, name);
      await broker.refused(403, ['ACCESS_REFUSED', name], (channel) => Deliveries.on(channel, name, { exclusive: true }));
      await owner.deleteQueue(name);
    });
  },

  'consume.queue-deleted': (broker) => broker.channel(async (channel) => {
    const name = broker.name('queue');
    await channel.assertQueue(name);
    const consumer = await Deliveries.on(channel, name);
    await broker.channel((other) => other.deleteQueue(name));
    await until(() => consumer.cancelled, "the broker's basic.cancel");
  }),

  'consume.no-ack': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await channel.prefetch(1); // does not limit a consumer without acknowledgements
    await fill(channel, queue, 20);
    const consumer = await Deliveries.on(channel, queue, { noAck: true });
    assert.deepEqual(await consumer.bodies(20), numbers(0, 20));
    await channel.cancel(consumer.tag);
    assert.equal((await channel.deleteQueue(queue)).messageCount, 0);
  }),

  'consume.requeue-on-close': async (broker) => {
    const name = broker.name('queue');
    await broker.channel(async (channel, connection) => {
      await channel.assertQueue(name);
      await fill(channel, name, 5);
      const consuming = await open(connection);
      await (await Deliveries.on(consuming, name)).take(5);
      await consuming.close();
      await until(async () => (await ready(channel, name)) === 5, '5 messages back after the channel closed');
    });
    await broker.channel(async (channel) => (await Deliveries.on(channel, name)).take(5));
    await broker.channel(async (channel) => { // the same after the connection has closed
      const got = await (await Deliveries.on(channel, name)).take(5);
      assert.deepEqual(seen(got), numbers(0, 5).map((body) => [body, true]));
      await channel.deleteQueue(name);
    });
  },

  'ack.unknown-tag': async (broker) => {
    const unknown = { fields: { deliveryTag: 99 } };
    for (const settle of [(channel) => channel.ack(unknown), (channel) => channel.nack(unknown), (channel) => channel.reject(unknown)]) {
      await broker.refused(406, ['PRECONDITION_FAILED', 'unknown delivery tag 99'], settle);
    }
  },

  'ack.twice': (broker) => broker.refused(406, ['PRECONDITION_FAILED', 'unknown delivery tag 1'], async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 1);
    const message = await channel.get(queue);
    channel.ack(message);
    channel.ack(message);
  }),
};

// Sends a message to a queue, gets it back, and returns the received properties.
async function echo(broker, body, options) {
  return broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await publish(channel, '', queue, body, options);
    const got = await channel.get(queue, { noAck: true });
    assert.ok(got, 'the message did not come back');
    assert.ok(got.content.equals(body), `a body of ${body.length} bytes came back as ${got.content.length} bytes`);
    return got.properties;
  });
}

module.exports = checks;
