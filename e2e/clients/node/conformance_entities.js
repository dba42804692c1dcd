// Checks of exchanges, queues, bindings and routing.
'use strict';

const assert = require('node:assert/strict');
const { Deliveries, open, until, publish, fill, exclusive, ready, drain } = require('./checks');

const checks = {
  'exchange.declare': (broker) => broker.channel(async (channel) => {
    for (const type of ['direct', 'fanout', 'topic', 'headers']) {
      for (const durable of [true, false]) {
        const name = broker.name(type);
        for (let again = 0; again < 2; again += 1) await channel.assertExchange(name, type, { durable });
        await channel.checkExchange(name);
        await channel.deleteExchange(name);
      }
    }
  }),

  'exchange.predeclared': (broker) => broker.channel(async (channel) => {
    const predeclared = { direct: 'direct', fanout: 'fanout', topic: 'topic', headers: 'headers', match: 'headers' };
    for (const [name, type] of Object.entries(predeclared)) {
      await channel.checkExchange(`amq.${name}`);
      await channel.assertExchange(`amq.${name}`, type, { durable: true });
    }
  }),

  'exchange.missing': (broker) => broker.refused(404, ['NOT_FOUND', 'no-such-exchange', "vhost '/'"], (channel) => channel.checkExchange('no-such-exchange')),

  'exchange.inequivalent': async (broker) => {
    const name = broker.name('exchange');
    await broker.channel((channel) => channel.assertExchange(name, 'direct', { durable: true }));
    for (const [type, options] of [['fanout', {}], ['direct', { durable: false }], ['direct', { autoDelete: true }]]) {
      await broker.refused(406, ['PRECONDITION_FAILED', 'inequivalent arg', name], (channel) => channel.assertExchange(name, type, options));
    }
    await broker.channel((channel) => channel.deleteExchange(name));
  },

  'exchange.reserved': (broker) => broker.refused(403, ['ACCESS_REFUSED', 'amq.mine'], (channel) => channel.assertExchange('amq.mine', 'direct')),

  'exchange.unknown-type': async (broker) => {
    // RabbitMQ 4 closes the channel; 3.10 closed the connection with 503.
    if (broker.rabbitmq) {
      await broker.channel((channel) => assert.rejects(channel.assertExchange(broker.name('odd'), 'x-odd')));
      return;
    }
    await broker.refused(406, ['x-odd'], (channel) => channel.assertExchange(broker.name('odd'), 'x-odd'));
  },

  'exchange.delete': async (broker) => {
    const [exchange, queue] = [broker.name('exchange'), broker.name('queue')];
    await broker.refused(406, ['in use', exchange], async (channel) => {
      await channel.assertExchange(exchange, 'direct');
      await channel.assertQueue(queue, { exclusive: true });
      await channel.bindQueue(queue, exchange, 'k');
      await channel.deleteExchange(exchange, { ifUnused: true });
    });
    await broker.channel(async (channel) => {
      await channel.deleteExchange(exchange, { ifUnused: true });
      await channel.deleteExchange(exchange);
    });
    await broker.refused(404, [exchange], (channel) => channel.checkExchange(exchange));
  },

  'exchange.auto-delete': async (broker) => {
    const exchange = broker.name('exchange');
    await broker.refused(404, [exchange], async (channel) => {
      await channel.assertExchange(exchange, 'direct', { autoDelete: true });
      const queue = await exclusive(channel);
      await channel.bindQueue(queue, exchange, 'k');
      await channel.checkExchange(exchange);
      await channel.unbindQueue(queue, exchange, 'k');
      await channel.checkExchange(exchange);
    });
  },

  'exchange.internal': async (broker) => {
    const exchange = broker.name('exchange');
    await broker.refused(403, ['ACCESS_REFUSED', exchange, 'internal'], async (channel) => {
      await channel.assertExchange(exchange, 'direct', { internal: true });
      await publish(channel, exchange, 'k', 'x');
    });
    await broker.channel((channel) => channel.deleteExchange(exchange));
  },

  'queue.declare': (broker) => broker.channel(async (channel) => {
    const name = broker.name('queue');
    assert.deepEqual({ ...await channel.assertQueue(name) }, { queue: name, messageCount: 0, consumerCount: 0 });
    await fill(channel, name, 3);
    assert.equal((await channel.assertQueue(name)).messageCount, 3);
    assert.equal(await ready(channel, name), 3);
    await channel.deleteQueue(name);
  }),

  'queue.server-named': (broker) => broker.channel(async (channel) => {
    const first = await exclusive(channel);
    const second = await exclusive(channel);
    assert.ok(first.startsWith('amq.gen-') && first !== second, `${first} ${second}`);
    await publish(channel, '', second, 'x');
    assert.equal((await channel.get('', { noAck: true })).content.toString(), 'x'); // the empty name means the queue that this channel declared last
  }),

  'queue.exclusive': async (broker) => {
    const name = broker.name('queue');
    await broker.channel(async (owner) => {
      await owner.assertQueue(name, { exclusive: true });
      const uses = [
        (channel) => channel.assertQueue(name, { exclusive: true }),
        (channel) => channel.checkQueue(name),
        (channel) => channel.consume(name, () => {}),
        (channel) => channel.get(name),
        (channel) => channel.purgeQueue(name),
        (channel) => channel.deleteQueue(name),
        (channel) => channel.bindQueue(name, 'amq.direct', 'k'),
      ];
      for (const use of uses) await broker.refused(405, ['RESOURCE_LOCKED', name], use);
    });
    await broker.refused(404, [name], (channel) => channel.checkQueue(name));
  },

  'queue.auto-delete': async (broker) => {
    const name = broker.name('queue');
    await broker.refused(404, [name], async (channel) => {
      await channel.assertQueue(name, { autoDelete: true });
      const [first, second] = [await Deliveries.on(channel, name), await Deliveries.on(channel, name)];
      await channel.cancel(first.tag);
      assert.equal((await channel.checkQueue(name)).consumerCount, 1);
      await channel.cancel(second.tag);
      await channel.checkQueue(name);
    });
  },

  'queue.missing': async (broker) => {
    const uses = [
      (channel) => channel.checkQueue('no-such-queue'),
      (channel) => channel.purgeQueue('no-such-queue'),
      (channel) => channel.get('no-such-queue'),
      (channel) => channel.consume('no-such-queue', () => {}),
    ];
    for (const use of uses) await broker.refused(404, ['NOT_FOUND', 'no-such-queue', "vhost '/'"], use);
  },

  'queue.inequivalent': async (broker) => {
    const name = broker.name('queue');
    await broker.channel((channel) => channel.assertQueue(name, { durable: true }));
    for (const options of [{ durable: false }, { autoDelete: true }]) {
      await broker.refused(406, ['PRECONDITION_FAILED', 'inequivalent arg', name], (channel) => channel.assertQueue(name, options));
    }
    await broker.channel((channel) => channel.deleteQueue(name));
  },

  'queue.reserved': (broker) => broker.refused(403, ['ACCESS_REFUSED', 'amq.mine'], (channel) => channel.assertQueue('amq.mine')),

  'queue.argument-refused': async (broker) => {
    // An argument that the broker does not honour is refused, not ignored. RabbitMQ honours this one.
    const name = broker.name('queue');
    const declare = (channel) => channel.assertQueue(name, { exclusive: true, messageTtl: 60000 });
    if (broker.rabbitmq) {
      await broker.channel(declare);
      return;
    }
    await broker.refused(406, ['PRECONDITION_FAILED', 'x-message-ttl'], declare);
    await broker.refused(404, [name], (channel) => channel.checkQueue(name));
  },

  'queue.purge': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await fill(channel, queue, 5);
    await channel.get(queue); // not acknowledged, so the purge leaves it
    assert.equal((await channel.purgeQueue(queue)).messageCount, 4);
    assert.equal((await channel.purgeQueue(queue)).messageCount, 0);
    assert.equal(await ready(channel, queue), 0);
  }),

  'queue.delete': async (broker) => {
    const name = broker.name('queue');
    await broker.refused(406, ['PRECONDITION_FAILED', name, 'not empty'], async (channel) => {
      await channel.assertQueue(name);
      await fill(channel, name, 2);
      await channel.deleteQueue(name, { ifEmpty: true });
    });
    await broker.channel(async (other) => {
      await (await Deliveries.on(other, name)).take(2);
      await broker.refused(406, ['PRECONDITION_FAILED', name, 'in use'], (channel) => channel.deleteQueue(name, { ifUnused: true }));
    });
    await broker.channel(async (channel) => {
      await until(async () => (await ready(channel, name)) === 2, 'both messages back');
      assert.equal((await channel.deleteQueue(name, { ifUnused: true })).messageCount, 2);
      assert.equal((await channel.deleteQueue(name)).messageCount, 0);
    });
  },

  'binding.missing': async (broker) => {
    await broker.refused(404, ['no-such-exchange'], async (channel) => channel.bindQueue(await exclusive(channel), 'no-such-exchange', 'k'));
    await broker.refused(404, ['no-such-queue'], (channel) => channel.bindQueue('no-such-queue', 'amq.direct', 'k'));
    await broker.refused(404, ['no-such-exchange'], (channel) => channel.bindExchange('amq.direct', 'no-such-exchange', 'k'));
    await broker.refused(403, ['ACCESS_REFUSED', 'default exchange'], async (channel) => channel.bindQueue(await exclusive(channel), '', 'k'));
  },

  'binding.unbind': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    for (let again = 0; again < 2; again += 1) await channel.bindQueue(queue, 'amq.direct', queue);
    await publish(channel, 'amq.direct', queue, 'bound');
    for (let again = 0; again < 2; again += 1) await channel.unbindQueue(queue, 'amq.direct', queue); // the second one finds no binding, which is not an error
    await publish(channel, 'amq.direct', queue, 'unbound');
    assert.deepEqual(await drain(channel, queue), ['bound']);
  }),

  'route.default': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    await publish(channel, '', queue, 'x');
    assert.deepEqual(await drain(channel, queue), ['x']);
  }),

  'route.direct': (broker) => routed(broker, 'direct', [['a'], ['a'], ['b']], [['a'], ['b'], ['c']], [[0], [0], [1]]),

  'route.fanout': (broker) => routed(broker, 'fanout', [['a'], ['']], [['a'], ['zzz']], [[0, 1], [0, 1]]),

  'route.topic': (broker) => {
    const keys = ['stock.eur.nyse', 'stock.eur', 'stock', '', 'eur.stock.nyse', 'stock..nyse'];
    const expected = {
      'stock.#': [0, 1, 2, 5], 'stock.*': [1], '*.*.nyse': [0, 4, 5], '#': [0, 1, 2, 3, 4, 5], '#.stock.#': [0, 1, 2, 4, 5], 'stock.eur': [1], '*': [2],
    };
    return routed(broker, 'topic', Object.keys(expected).map((pattern) => [pattern]), keys.map((key) => [key]), Object.values(expected));
  },

  'route.headers': (broker) => routed(broker, 'headers', [
    ['', { 'x-match': 'all', a: 1, b: 'x' }],
    ['', { 'x-match': 'any', a: 1, b: 'x' }],
    ['', { a: 1, b: 'x' }],
    ['', { 'x-match': 'any', c: null }],
  ], [['', { a: 1, b: 'x', d: 9 }], ['', { a: 1 }], ['', { b: 'y' }], ['', { c: true }], ['']], [[0], [0, 1], [0], [3]]),

  'route.exchange-to-exchange': (broker) => broker.channel(async (channel) => {
    const [first, second] = [broker.name('first'), broker.name('second')];
    await channel.assertExchange(first, 'topic');
    await channel.assertExchange(second, 'fanout');
    const queue = await exclusive(channel);
    await channel.bindExchange(second, first, 'a.*');
    await channel.bindExchange(first, second, ''); // a cycle of bindings: each queue still gets one copy
    await channel.bindQueue(queue, second, '');
    for (const key of ['a.b', 'b.a']) await publish(channel, first, key, key);
    assert.deepEqual(await drain(channel, queue), ['a.b']);
    await channel.unbindExchange(second, first, 'a.*');
    await publish(channel, first, 'a.c', 'a.c');
    assert.deepEqual(await drain(channel, queue), []);
    await channel.deleteExchange(first);
    await channel.deleteExchange(second);
  }),

  'route.once': (broker) => broker.channel(async (channel) => {
    const queue = await exclusive(channel);
    for (const key of ['a.#', '#.b', 'a.b']) await channel.bindQueue(queue, 'amq.topic', `${queue}.${key}`);
    await channel.bindQueue(queue, 'amq.topic', '#.b');
    await publish(channel, 'amq.topic', `${queue}.a.b`, 'x');
    assert.deepEqual(await drain(channel, queue), ['x']);
  }),
};

// Checks which of the messages [key, headers] arrive in the queue of each binding [key, arguments].
async function routed(broker, type, bindings, messages, expected) {
  await broker.connection(async (connection) => {
    const channel = await open(connection);
    const exchange = broker.name(type);
    await channel.assertExchange(exchange, type, { autoDelete: true });
    const queues = [];
    for (const [key, bindingArguments] of bindings) {
      const queue = await exclusive(channel);
      await channel.bindQueue(queue, exchange, key, bindingArguments);
      queues.push(queue);
    }
    for (const [number, [key, headers]] of messages.entries()) await publish(channel, exchange, key, String(number), { headers });
    const got = [];
    for (const queue of queues) got.push((await drain(channel, queue)).map(Number));
    assert.deepEqual(got, expected);
  });
}

module.exports = checks;
