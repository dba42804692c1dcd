//! openraft's log storage of a group. Entries are records of the journal. The vote and the purged index are kept
//! records, which the journal never releases. So votes and entries are never reordered, and leading a group needs no
//! new file. An earlier version of the program had both in a file of its own: it is read once, its format has
//! `version u8 = 1`.
use crate::GroupId;
use crate::leadership::Leadership;
use crate::log_table::{
    self, BLANK, INSTALLED, LogTable, MEMBERSHIP, NORMAL, PURGED, Slot, TRUNCATE, TableEntry, VOTE,
};
use crate::types::{self, Command, Entry, LogId, TypeConfig, Vote};
use bytes::{Buf, Bytes};
use futures::Stream;
use leveret_journal::{Disk, Head, Journal, RecordBody, Recovered, read_whole};
use openraft::storage::{IOFlushed, LogState, RaftLogStorage};
use openraft::{EntryPayload, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use tokio::sync::Notify;

/// The log of one group.
#[derive(Clone)]
pub(crate) struct LogStore {
    pub(crate) group: GroupId,
    pub(crate) journal: Journal,
    pub(crate) table: Arc<Mutex<LogTable>>,
    /// Woken when entries became durable.
    durable: Arc<Notify>,
    pub(crate) leadership: Arc<Leadership>,
    /// True while this node is the only member of the group. Then an append may wait for the disk itself: there is
    /// nobody to whom the entry could be sent meanwhile.
    is_alone: Arc<AtomicBool>,
    vote: Arc<Mutex<Option<Vote>>>,
}

/// The log of one group as it is read from the journal at a start.
#[derive(Default)]
pub(crate) struct RecoveredLog {
    pub(crate) vote: Option<Vote>,
    pub(crate) table: LogTable,
}

impl RecoveredLog {
    /// Returns the log as it is before any record was added: empty, or with the vote and the purged index that the
    /// previous version of the program kept in a small file per group, if that file is there.
    pub(crate) fn read(disk: &dyn Disk, group: GroupId) -> io::Result<Self> {
        let Some(bytes) = read_whole(disk, &file_name(group))? else { return Ok(Self::default()) };
        Self::decode(&mut &bytes[..]).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("{} has an unknown format version", file_name(group)))
        })
    }

    /// Removes the file of the previous version, after the vote in it is superseded by one in the journal. If that
    /// fails, the file does no harm: the next start adds the newer records of the journal to it.
    pub(crate) fn remove_file(disk: &dyn Disk, group: GroupId) {
        let _ = disk.remove(&file_name(group));
    }

    /// Adds a record of the group that was found in the journal.
    pub(crate) fn add(&mut self, Recovered { head, place }: Recovered) {
        match head.kind {
            VOTE => self.vote = Some(types::vote(head.term, head.index, head.note == 1)),
            _ => self.table.recovered(head, place),
        }
    }

    /// Decodes the file of the previous version: `version u8, flags u8 (1: there is a vote, 2: entries were purged),
    /// term of the vote u64, node voted for u64, committed u8, term of the purged entry u64, its index u64, its chain
    /// u64`.
    fn decode(bytes: &mut &[u8]) -> Option<Self> {
        if bytes.try_get_u8().ok()? != VERSION {
            return None;
        }
        let has = bytes.try_get_u8().ok()?;
        let (term, node, committed) =
            (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?, bytes.try_get_u8().ok()? == 1);
        let (purged_term, purged_index) = (bytes.try_get_u64_le().ok()?, bytes.try_get_u64_le().ok()?);
        let chain = bytes.try_get_u64_le().ok()? as u32;
        let vote = (has & 1 != 0).then(|| types::vote(term, node, committed));
        let purged = (has & 2 != 0).then(|| types::log_id(purged_term, purged_index));
        Some(Self { vote, table: LogTable::new(purged, chain) })
    }
}

impl LogStore {
    pub(crate) fn new(journal: Journal, log: RecoveredLog, leadership: Arc<Leadership>) -> Self {
        let mut table = log.table;
        table.durable.reach(table.next()); // recovery has synced what it found
        Self {
            group: leadership.group,
            journal,
            table: Arc::new(Mutex::new(table)),
            durable: Arc::default(),
            leadership,
            is_alone: Arc::new(AtomicBool::new(true)),
            vote: Arc::new(Mutex::new(log.vote)),
        }
    }

    /// Returns whether this node is the only member of the group.
    pub(crate) fn is_alone(&self) -> bool {
        self.is_alone.load(Relaxed)
    }

    /// Sets whether this node is the only member of the group.
    pub(crate) fn set_alone(&self, is_alone: bool) {
        self.is_alone.store(is_alone, Relaxed);
    }

    /// Has the queued records written: on this thread if that may wait for the disk, otherwise by the writer's thread.
    fn have_written(&self) {
        if self.is_alone.load(Relaxed) { self.journal.write_or_leave() } else { self.journal.wake_writer() }
    }

    /// Writes down the chain of the last entry that a snapshot from a peer covers, and waits until that is durable.
    pub(crate) async fn keep_installed(&self, last: LogId, chain: u32) -> io::Result<()> {
        let (index, term) = (last.index, last.leader_id.term);
        self.keep(Head { group: self.group, kind: INSTALLED, index, term, note: chain }).await?;
        self.table.lock().installed(last, chain);
        Ok(())
    }

    /// Appends a kept record, and waits until it is durable.
    async fn keep(&self, head: Head) -> io::Result<()> {
        let (tell, told) = tokio::sync::oneshot::channel();
        let durable = Box::new(move || {
            let _ = tell.send(()); // fails if the caller does not wait any more
        });
        self.journal.queue(head, Bytes::new().into(), true, Some(durable), false).map_err(io::Error::other)?;
        self.have_written();
        told.await.map_err(|_| io::Error::other("the log cannot be written any more"))
    }

    /// Returns an entry of the table, with its bytes from memory or from the journal. The error is `InvalidData` if the
    /// bytes do not match the chain or cannot be decoded.
    fn read(&self, entry: TableEntry) -> io::Result<Entry> {
        let TableEntry { index, slot, chain_before, bytes } = entry;
        let bytes = match bytes {
            Some(bytes) => bytes,
            None => {
                let bytes = self.journal.read(slot.place).map_err(io::Error::other)?;
                if log_table::chain(chain_before, &bytes.clone().into()) != slot.chain {
                    let text = format!("entry {index} of group {} does not match the chain of the log", self.group);
                    return Err(io::Error::new(io::ErrorKind::InvalidData, text));
                }
                bytes
            }
        };
        let payload = match slot.kind {
            BLANK => EntryPayload::Blank,
            MEMBERSHIP => EntryPayload::Membership(types::decode_membership(&mut &bytes[..]).ok_or_else(|| {
                let text = format!("the members in entry {index} of group {} cannot be decoded", self.group);
                io::Error::new(io::ErrorKind::InvalidData, text)
            })?),
            _ => EntryPayload::Normal(Command { bytes, place: slot.place, sent: None }),
        };
        Ok(types::entry(types::log_id(slot.term, index), payload))
    }

    /// Waits until entry `index` is durable.
    async fn until_durable(&self, index: u64) {
        loop {
            let moved = self.durable.notified();
            if self.table.lock().durable.has(index) {
                return;
            }
            moved.await;
        }
    }

    /// Returns the function that notes that the append `number` is durable, and tells openraft.
    fn when_durable(&self, number: u64, callback: IOFlushed<TypeConfig>) -> Box<dyn FnOnce() + Send> {
        let (table, durable) = (self.table.clone(), self.durable.clone());
        Box::new(move || {
            table.lock().durable.synced(number);
            durable.notify_waiters();
            callback.io_completed(Ok(()));
        })
    }

    /// Queues one entry for the journal and adds it to the table. The error is `InvalidData` if the entry came from a
    /// peer whose log holds other entries before it.
    fn append_entry(
        &self,
        table: &mut LogTable,
        entry: Entry,
        callback: Option<IOFlushed<TypeConfig>>,
    ) -> io::Result<()> {
        let (kind, bytes, sent) = match entry.payload {
            EntryPayload::Blank => (BLANK, Bytes::new(), None),
            EntryPayload::Normal(command) => (NORMAL, command.bytes, command.sent),
            EntryPayload::Membership(members) => {
                self.set_alone(types::has_one_member(&members));
                (MEMBERSHIP, types::encode_membership(&members).into(), None)
            }
        };
        let (index, term) = (entry.log_id.index, entry.log_id.leader_id.term);
        let body = match sent {
            Some(sent) => RecordBody { bytes: bytes.clone(), crc: sent.crc },
            None => RecordBody::from(bytes.clone()),
        };
        let chain = table.next_chain(&body);
        if sent.is_some_and(|sent| sent.chain != chain) {
            return Err(diverged(self.group, index));
        }
        let head = Head { group: self.group, kind, index, term, note: chain };
        // Normal entries that are proposed here have a promise of room, which ends here.
        if kind == NORMAL && sent.is_none() {
            self.journal.redeem(bytes.len());
        }
        let durable = callback.map(|callback| self.when_durable(table.durable.append(index + 1), callback));
        let place = self.journal.queue(head, body, true, durable, false).map_err(io::Error::other)?;
        table.push(index, Slot { place, term, chain, kind }, bytes);
        Ok(())
    }

    /// Reads the entries from `start` to before `end` that are in the log, as many as have at most `bytes_max` bytes together,
    /// but at least one.
    fn read_range(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Entry>> {
        let (mut entries, mut bytes) = (Vec::new(), 0);
        let start = start.max(self.table.lock().first());
        for index in start..end {
            let Some(entry) = self.table.lock().find(index) else { break };
            bytes += entry.slot.place.len as usize;
            if bytes > bytes_max && !entries.is_empty() {
                break;
            }
            match self.read(entry) {
                Ok(entry) => entries.push(entry),
                // It was purged meanwhile, so whoever wants it is a task that has been replaced.
                Err(_) if index < self.table.lock().first() => break,
                Err(error) => return Err(error),
            }
        }
        Ok(entries)
    }
}

/// An iterator over entries that reads about a mebibyte of them at a time.
struct Entries {
    log: LogStore,
    /// Index of the first entry that was not returned yet.
    next: u64,
    end: u64,
    /// The entries that were read and not returned yet.
    read: std::vec::IntoIter<Entry>,
}

impl Iterator for Entries {
    type Item = io::Result<Entry>;

    fn next(&mut self) -> Option<io::Result<Entry>> {
        if self.read.len() == 0 && self.next < self.end {
            match self.log.read_range(self.next, self.end, READ_BYTES_MAX) {
                Ok(entries) => self.read = entries.into_iter(),
                Err(error) => {
                    self.next = self.end;
                    return Some(Err(error));
                }
            }
        }
        let entry = self.read.next()?;
        self.next = entry.log_id.index + 1;
        Some(Ok(entry))
    }
}

/// Converts a range with any bounds into one from `start` to before `end`.
fn indexes(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(&start) => start,
        Bound::Excluded(&start) => start + 1,
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(&end) => end + 1,
        Bound::Excluded(&end) => end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let Range { start, end } = indexes(&range);
        self.read_range(start, end, usize::MAX)
    }

    /// Reads the entries about a mebibyte at a time: at a start the log of a group may be larger than the memory. Waits
    /// until each entry is durable on this node, because openraft reads through this stream what it applies.
    async fn entries_stream<R: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend {
        let Range { start, end } = indexes(&range);
        let entries = Entries { log: self.clone(), next: start, end, read: Vec::new().into_iter() };
        futures::stream::unfold(entries, |mut entries| async move {
            let entry = entries.next()?;
            if let Ok(entry) = &entry {
                entries.log.until_durable(entry.log_id.index).await;
            }
            Some((entry, entries))
        })
    }

    /// Reads entries for a peer: on a blocking thread, unless they are in memory.
    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        if self.journal.is_driven() || self.table.lock().is_hot(start) {
            return self.read_range(start, end, READ_BYTES_MAX);
        }
        let log = self.clone();
        tokio::task::spawn_blocking(move || log.read_range(start, end, READ_BYTES_MAX)).await?
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(*self.vote.lock())
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let table = self.table.lock();
        Ok(LogState { last_purged_log_id: table.purged, last_log_id: table.last() })
    }

    async fn get_log_reader(&mut self) -> Self {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.leadership.voted(vote);
        let (term, node) = (vote.leader_id.term, vote.leader_id.voted_for);
        let note = u32::from(vote.committed);
        let head = Head { group: self.group, kind: VOTE, index: node, term, note };
        #[cfg(any(test, feature = "mutants"))]
        if crate::mutants::VOTE_UNSYNCED.load(Relaxed) {
            self.journal.append(head, Bytes::new(), true, None).map_err(io::Error::other)?;
            *self.vote.lock() = Some(*vote);
            return Ok(());
        }
        self.keep(head).await?;
        *self.vote.lock() = Some(*vote);
        Ok(())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut table = self.table.lock();
        let mut entries = entries.into_iter().peekable();
        let mut callback = Some(callback);
        while let Some(entry) = entries.next() {
            let last = entries.peek().is_none();
            self.append_entry(&mut table, entry, callback.take_if(|_| last))?;
        }
        drop(table);
        self.have_written();
        if let Some(callback) = callback {
            callback.io_completed(Ok(()));
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let from = last.map_or(0, |id| id.index + 1);
        self.table.lock().truncate(from);
        #[cfg(any(test, feature = "mutants"))]
        if crate::mutants::TRUNCATE_SKIPPED.load(Relaxed) {
            return Ok(());
        }
        let head = Head { group: self.group, kind: TRUNCATE, index: from, term: 0, note: 0 };
        self.journal.append(head, Bytes::new(), true, None).map_err(io::Error::other)?;
        Ok(())
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let note = self.table.lock().chain_after_purge(upto);
        let (index, term) = (upto.index, upto.leader_id.term);
        // The record has to be durable before the table changes: then the segments of the purged entries may be reused.
        self.keep(Head { group: self.group, kind: PURGED, index, term, note }).await?;
        self.table.lock().purge(upto);
        Ok(())
    }
}

/// Returns the error of a group whose log differs from that of its leader.
pub(crate) fn diverged(group: GroupId, index: u64) -> io::Error {
    let text = format!(
        "the log of group {group} differs from that of its leader at or before entry {index}: one of the two holds \
         entries that were never agreed on"
    );
    tracing::error!("{text}");
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn file_name(group: GroupId) -> String {
    format!("groups/{group}.state")
}

/// The format version of the previous version's file.
const VERSION: u8 = 1;
/// The most bytes of the entries of one read, unless the first entry alone has more.
const READ_BYTES_MAX: usize = 1 << 20;
