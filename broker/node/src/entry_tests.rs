//! Tests of the format of entries: entries are read back as written, entries of earlier versions are read, and no entry is
//! longer than it may be.
use super::*;
use leveret_engine::queue::Body;

type Read = Vec<(u64, &'static str, u64, u64)>;

/// The epoch in which all messages here were delivered.
const EPOCH: u64 = 8;
const BATCH: BatchId = BatchId { origin: 6, incarnation: 0x0102_0304_0506_0708, row: 1, number: 5 };

/// Returns an entry with one batch, whose operations `append` appends.
fn sealed(append: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut entry = begin(0);
    append(&mut entry);
    seal(&mut entry, BATCH);
    entry
}

fn read(entry: Vec<u8>) -> Option<Read> {
    let mut read = Read::new();
    let entry = Bytes::from(entry);
    for batch in batches(&entry)? {
        read_batch(&entry, &batch, &mut read)?;
    }
    Some(read)
}

fn read_batch(entry: &Bytes, batch: &Batch, read: &mut Read) -> Option<()> {
    operations(entry, batch, |operation| match operation {
        Operation::Enqueue { queues, count, run, .. } => {
            read.push((queues.len() as u64, "enqueue", u64::from(count), run.len() as u64));
        }
        Operation::Settle { queue, first, count } => read.push((queue.0, "settle", first, count)),
        Operation::Declare { epoch, fact } => {
            read.push((0, "declare", u64::from(matches!(fact, Fact::Queue { .. })), epoch.unwrap_or(0)));
        }
        Operation::Delete { epoch, queue } => read.push((queue.0, "delete", 0, epoch.unwrap_or(0))),
        Operation::Command { number, command } => read.push((0, "command", number, command.len() as u64)),
        Operation::Release { queue, epoch, messages } => {
            read.extend(
                messages
                    .into_iter()
                    .map(|(sequence, offset)| (queue.0, "release", sequence, u64::from(offset) + epoch)),
            );
        }
        Operation::Return { queue, epoch, messages } => {
            assert_eq!(epoch, batch.id.is_some().then_some(EPOCH));
            read.extend(
                messages.into_iter().map(|(sequence, offset)| (queue.0, "return", sequence, u64::from(offset))),
            );
        }
    })
}

/// Returns the identities of deliveries in [`EPOCH`], from the sequence and the offset of each message.
fn ids(messages: &[(u64, u32)]) -> Vec<DeliveryId> {
    messages.iter().map(|(sequence, offset)| DeliveryId::new(*sequence, *offset, EPOCH)).collect()
}

/// Encodes settlements and returns, with the operations of each call of `push` in an entry of their own.
fn parts(what: &DeliveryChanges) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    changes(QueueId(7), what, |append| parts.push(sealed(append)));
    parts
}

#[test]
fn adjacent_messages_are_settled_and_returned_as_ranges() {
    let settled = vec![(4, 1), (5, 2), (7, 1), (9, 1)];
    let returned = ids(&[(20, 1), (21, 50), (23, 1)]);
    let parts = parts(&DeliveryChanges { settled, returned, released: ids(&[(30, 4)]) });
    let read: Read = parts.iter().cloned().filter_map(read).flatten().collect();
    let expected = [
        (7, "settle", 4, 4),
        (7, "settle", 9, 1),
        (7, "return", 20, 1),
        (7, "return", 21, 50),
        (7, "return", 23, 1),
        (7, "release", 30, 12),
    ];
    assert_eq!(read, expected);
}

#[test]
fn very_many_settlements_and_returns_are_split() {
    let most = 64 << 10;
    let returned: Vec<DeliveryId> = (0..180_000).map(|at| DeliveryId::new(at * 2, at as u32, EPOCH)).collect();
    let settled: Vec<(u64, u64)> = (0..180_000).map(|at| (1 + at * 2, 1)).collect();
    let parts = parts(&DeliveryChanges { settled: settled.clone(), returned: returned.clone(), released: Vec::new() });
    assert!(parts.iter().all(|part| part.len() <= 3 * most), "{:?}", parts.iter().map(Vec::len).max());
    let read: Read = parts.into_iter().filter_map(read).flatten().collect();
    assert_eq!(read.len(), settled.len() + returned.len());
    assert_eq!((read[0], read[180_000]), ((7, "settle", 1, 1), (7, "return", 0, 0)));
}

#[test]
fn a_publish_to_very_many_queues_or_of_very_many_messages_is_split() {
    let queues: Vec<QueueId> = (0..70_000).map(QueueId).collect();
    let bytes = vec![b'x'; 100_000];
    let message = || Extent { properties_at: 0, properties_len: 2, body: Body::Inline { at: 2, len: 99_998 } };
    let messages: Vec<Extent> = (0..5).map(|_| message()).collect();
    let whole = Publish { exchange: b"fan", routing_key: b"", bytes: &bytes, messages: &messages };
    let (mut seen, mut longest, mut first_queue) = (0, 0, 0);
    for (queues, messages) in pieces(&queues, whole.messages) {
        let entry = sealed(|entry| enqueue(entry, queues, &Publish { messages, ..whole }));
        longest = longest.max(entry.len());
        let read = read(entry).unwrap();
        assert_eq!((read[0].0, read[0].2), (queues.len() as u64, messages.len() as u64));
        seen += queues.len() * messages.len();
        first_queue += queues.iter().filter(|queue| queue.0 == 0).count() * messages.len();
    }
    assert_eq!((seen, first_queue), (70_000 * 5, 5));
    assert!(longest < 512 << 10, "{longest}");
}

#[test]
fn a_message_larger_than_a_piece_is_a_piece_of_its_own() {
    let message = |len| Extent { properties_at: 0, properties_len: 0, body: Body::Inline { at: 0, len } };
    let messages = [message(10), message(1 << 20), message(10), message(10)];
    let lengths: Vec<usize> = pieces(&[QueueId(1)], &messages).map(|(_, messages)| messages.len()).collect();
    assert_eq!(lengths, [1, 1, 2]);
    assert_eq!(pieces(&[QueueId(1)], &[]).count(), 0);
}

#[test]
fn entries_of_version_1_are_read() {
    let mut entry = vec![1];
    entry.extend_from_slice(&[7; 16]);
    entry.push(RETURN_SINGLY);
    entry.extend_from_slice(&9u64.to_le_bytes());
    entry.extend_from_slice(&2u32.to_le_bytes());
    for (sequence, offset) in [(5u64, 6u32), (7, 8)] {
        entry.extend_from_slice(&sequence.to_le_bytes());
        entry.extend_from_slice(&offset.to_le_bytes());
    }
    assert!(batches(&entry).is_some_and(|batches| batches.len() == 1 && batches[0].id.is_none()));
    assert_eq!(read(entry), Some(vec![(9, "return", 5, 6), (9, "return", 7, 8)]));
}

#[test]
fn an_entry_of_a_later_version_or_one_cut_short_is_not_decoded() {
    let mut entry = sealed(|entry| give_back(entry, RETURN, QueueId(1), &ids(&[(1, 1), (2, 2)])));
    assert!((1..entry.len()).all(|len| len == 1 || read(entry[..len].to_vec()).is_none()));
    let short = sealed(|entry| {
        give_back(entry, RETURN, QueueId(1), &ids(&[(1, 1), (2, 2)]));
        entry.pop();
    });
    assert!(read(short).is_none(), "the batch is whole, its operation is not");
    entry[0] = VERSION + 1;
    assert!(read(entry).is_none());
}

/// Appends a publish of three messages, settlements and returns.
fn publish_and_settle(entry: &mut Vec<u8>) {
    let bytes = b"\x80\0\x0atext/plainhello";
    let message = |properties_len, at, len| Extent { properties_at: 0, properties_len, body: Body::Inline { at, len } };
    let shared = Extent { properties_at: 0, properties_len: 2, body: Body::Shared(Bytes::from_static(b"large")) };
    let messages = [message(13, 13, 5), message(13, 18, 0), shared];
    let publish = Publish { exchange: b"ex", routing_key: b"key", bytes, messages: &messages };
    enqueue(entry, &[QueueId(7), QueueId(19)], &publish);
    let returned = ids(&[(9, 7), (10, 40)]);
    let delivered = DeliveryChanges { settled: vec![(3, 1), (4, 2)], returned, released: Vec::new() };
    changes(QueueId(7), &delivered, |append| append(entry));
}

/// The bytes of a publish and of a settlement, which are the same in all versions.
const GOLDEN: [&[u8]; 6] = [
    b"\x01\x02\0\x07\0\0\0\0\0\0\0\x13\0\0\0\0\0\0\0\x03\0\0\0\x0a\0\0\0\0\0\0\0\x45\0\0\0",
    b"\x02\x03exkey",
    b"\x0d\0\0\0\x05\0\0\0\x80\0\x0atext/plainhello",
    b"\x0d\0\0\0\0\0\0\0\x80\0\x0atext/plain",
    b"\x02\0\0\0\x05\0\0\0\x80\0large",
    b"\x02\x07\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0\x03\0\0\0\0\0\0\0",
];

/// The encoding must not change, because a data folder outlives its broker.
#[test]
fn an_entry_has_the_same_bytes_as_in_existing_data_folders() {
    let fact = b"\x06\x01\0\0\0/\x01\0\0\0q\x07\0\0\0\0\0\0\0\x01\0\0\0\0";
    let entry = sealed(|entry| {
        publish_and_settle(entry);
        declare(entry, EPOCH, fact);
        delete(entry, EPOCH, QueueId(7));
        command(entry, 3, b"any");
    });
    let golden = [
        &b"\x04\x06\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x01\x05\0\0\0\0\0\0\0\xf0\0\0\0"[..],
        &GOLDEN.concat(),
        b"\x09\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0\x07\0\0\0\x28\0\0\0",
        b"\x0c\x08\0\0\0\0\0\0\0\x18\0\0\0",
        fact,
        b"\x0d\x08\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0",
        b"\x0e\x03\0\0\0\0\0\0\0\x03\0\0\0any",
    ]
    .concat();
    assert_eq!(entry.escape_ascii().to_string(), golden.escape_ascii().to_string());
    assert!(batches(&golden).is_some_and(|batches| batches.len() == 1 && batches[0].id == Some(BATCH)));
    let says: Vec<&str> = read(golden).unwrap().iter().map(|operation| operation.1).collect();
    assert_eq!(says, ["enqueue", "settle", "return", "return", "declare", "delete", "command"]);
}

#[test]
fn an_entry_of_version_3_is_read() {
    let fact = b"\x06\x01\0\0\0/\x01\0\0\0q\x07\0\0\0\0\0\0\0\x01\0\0\0\0";
    let golden = [
        &b"\x03\x06\0\0\0\0\0\0\0\x08\x07\x06\x05\x04\x03\x02\x01\x05\0\0\0\0\0\0\0\xd0\0\0\0"[..],
        &GOLDEN.concat(),
        b"\x09\x07\0\0\0\0\0\0\0\x08\0\0\0\0\0\0\0\x01\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0\x07\0\0\0\x28\0\0\0",
        b"\x0a\x18\0\0\0",
        fact,
        b"\x0b\x07\0\0\0\0\0\0\0",
    ]
    .concat();
    assert_eq!(batches(&golden).unwrap()[0].id, Some(BatchId { row: 0, ..BATCH }));
    let read = read(golden).unwrap();
    assert_eq!(read[4..], [(0, "declare", 1, 0), (7, "delete", 0, 0)]);
}

#[test]
fn an_entry_of_version_2_is_read() {
    let golden = [
        &b"\x02\x08\x07\x06\x05\x04\x03\x02\x01\x05\0\0\0\0\0\0\0"[..],
        &GOLDEN.concat(),
        b"\x08\x07\0\0\0\0\0\0\0\x01\0\0\0\x09\0\0\0\0\0\0\0\x02\0\0\0\x07\0\0\0\x28\0\0\0",
    ]
    .concat();
    assert!(read(golden).is_some_and(|read| read.len() == 4));
}

#[test]
fn an_entry_of_several_batches_is_read_batch_by_batch() {
    let first = sealed(|entry| delete(entry, EPOCH, QueueId(1)));
    let second = sealed(|entry| delete(entry, EPOCH, QueueId(2)));
    let both = [&first[..], &second[1..]].concat();
    let parts = batches(&both).unwrap();
    assert_eq!([&parts[..1], &parts[1..]].map(|part| only(&both, &[&part[0]]).to_vec()), [first, second]);
    assert_eq!(only(&both, &[&parts[0], &parts[1]]), both);
    assert_eq!(read(both), Some(vec![(1, "delete", 0, EPOCH), (2, "delete", 0, EPOCH)]));
    assert!(batches(&[VERSION]).is_some_and(|batches| batches.is_empty()));
}
