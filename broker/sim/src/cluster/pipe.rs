//! One direction of a simulated connection: a queue of packets, each with the time at which it arrives.
use std::collections::VecDeque;
use std::io;
use std::task::Waker;

/// The number of a node in the simulation, which stays the same while disks and processes come and go.
pub(crate) type Host = usize;

/// One direction of a connection.
pub(crate) struct SimPipe {
    pub(crate) from: Host,
    pub(crate) to: Host,
    latency: u64,
    /// Nothing arrives before this time.
    held_until: u64,
    on_way: VecDeque<(u64, Packet)>,
    arrived: VecDeque<u8>,
    /// The number of bytes that were written and not read yet.
    bytes: usize,
    end: Option<PipeEnd>,
    reader_gone: bool,
    writer_gone: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How a direction has ended for its reader.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum PipeEnd {
    Closed,
    Reset,
}

enum Packet {
    Bytes(Vec<u8>),
    End(PipeEnd),
}

/// Whether what arrived was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    Taken,
    /// There is no reader any more, which the writer has to be told.
    Refused,
}

/// The outcome of an attempt to read or write a number of bytes; `None` if it has to wait.
pub(crate) type Moved = Option<io::Result<usize>>;

impl SimPipe {
    pub(crate) fn new(from: Host, to: Host, latency: u64) -> Self {
        Self {
            from,
            to,
            latency,
            held_until: 0,
            on_way: VecDeque::new(),
            arrived: VecDeque::new(),
            bytes: 0,
            end: None,
            reader_gone: false,
            writer_gone: false,
            reader: None,
            writer: None,
        }
    }

    pub(crate) fn leads(&self, from: Host, to: Host) -> bool {
        (self.from, self.to) == (from, to)
    }

    pub(crate) fn is_between(&self, one: Host, two: Host) -> bool {
        self.leads(one, two) || self.leads(two, one)
    }

    pub(crate) fn hold_until(&mut self, time: u64) {
        self.held_until = time;
    }

    pub(crate) fn is_reset(&self) -> bool {
        self.end == Some(PipeEnd::Reset)
    }

    /// Returns whether nobody uses this direction any more.
    pub(crate) fn is_over(&self) -> bool {
        self.reader_gone && self.writer_gone
    }

    /// Resets the direction for its reader at once.
    pub(crate) fn reset(&mut self, woken: &mut Vec<Waker>) {
        self.end = Some(PipeEnd::Reset);
        self.on_way.clear();
        woken.extend(self.reader.take());
    }

    /// Returns whether nothing could be written any more before this call.
    pub(crate) fn stop_writing(&mut self, woken: &mut Vec<Waker>) -> bool {
        woken.extend(self.writer.take());
        std::mem::replace(&mut self.writer_gone, true)
    }

    pub(crate) fn stop_reading(&mut self) {
        self.reader_gone = true;
        self.reader = None;
    }

    /// Sends the end of this direction after what was written.
    pub(crate) fn send_end(&mut self, now: u64, end: PipeEnd) {
        let at = self.due(now, 0);
        self.on_way.push_back((at, Packet::End(end)));
    }

    /// Returns the time at which a packet arrives that is sent now, and takes `longer` than usual.
    fn due(&self, now: u64, longer: u64) -> u64 {
        let last = self.on_way.back().map_or(0, |(at, _)| *at);
        (now + self.latency).max(last) + longer
    }

    /// Lets what was due at the time `upto` arrive; it is `now`.
    pub(crate) fn deliver(&mut self, upto: u64, now: u64, woken: &mut Vec<Waker>) -> Arrival {
        let mut arrival = Arrival::Taken;
        while self.held_until <= now
            && let Some((_, packet)) = self.on_way.pop_front_if(|(at, _)| *at <= upto)
        {
            match packet {
                Packet::Bytes(_) if self.reader_gone || self.is_reset() => arrival = Arrival::Refused,
                Packet::Bytes(bytes) => self.arrived.extend(bytes),
                Packet::End(end) => self.end = self.end.or(Some(end)),
            }
            woken.extend(self.reader.take());
        }
        if arrival == Arrival::Refused {
            self.on_way.clear();
        }
        arrival
    }

    pub(crate) fn read(&mut self, into: &mut [u8], waker: &Waker) -> Moved {
        match self.end {
            Some(PipeEnd::Reset) => return Some(Err(io::ErrorKind::ConnectionReset.into())),
            Some(PipeEnd::Closed) if self.arrived.is_empty() => return Some(Ok(0)),
            _ => {}
        }
        if self.arrived.is_empty() {
            self.reader = Some(waker.clone());
            return None;
        }
        let count = into.len().min(self.arrived.len());
        self.arrived.drain(..count).zip(into).for_each(|(byte, into)| *into = byte);
        self.bytes -= count;
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
        Some(Ok(count))
    }

    pub(crate) fn write(&mut self, now: u64, bytes: &[u8], waker: &Waker) -> Moved {
        if self.writer_gone {
            return Some(Err(io::ErrorKind::ConnectionReset.into()));
        }
        let count = bytes.len().min(BYTES_MAX.saturating_sub(self.bytes));
        if count == 0 {
            self.writer = Some(waker.clone());
            return None;
        }
        let at = self.due(now, count as u64 / BYTES_PER_MS);
        self.bytes += count;
        self.on_way.push_back((at, Packet::Bytes(bytes[..count].to_vec())));
        Some(Ok(count))
    }
}

/// The most bytes that were written to a direction and not read yet: the buffers of both machines.
const BYTES_MAX: usize = 256 << 10;
/// The bytes that a connection carries in a millisecond.
const BYTES_PER_MS: u64 = 100 << 10;
