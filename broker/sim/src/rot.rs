//! Rot: bytes that change on the disk without a write. And audits: lives on a copy of the disk in which every message that
//! is owed is delivered.
use crate::life::{End, Plan, Purpose};
use crate::scenario::Fault;
use crate::world::World;
use leveret_journal::Disk;
use leveret_journal::faulty::FaultyDisk;

impl World {
    /// Damages a file on a copy of the disk and starts the node on it. Either the start is refused with a reason that names
    /// a file, or all messages are there except those whose bytes cannot be read. Later lives use the undamaged disk.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn rot(&mut self, fault: Fault) -> Result<(), String> {
        let (disk, before) = (self.disk.clone(), self.before.clone());
        let checker = self.checker.clone();
        self.disk = disk.fork();
        let rotten = match fault {
            Fault::RotInTail | Fault::RotAfterKill => self.rot_in_tail(&disk),
            _ => self.rot_somewhere(fault, &disk),
        };
        let rotten = rotten.map_err(|error| error.to_string())?;
        if let Some((name, what)) = rotten {
            self.note(what.clone());
            let purpose = Purpose::Look { rotten: Some(name) };
            let end = self.live(Plan { fault, weather: Vec::new(), purpose })?;
            self.note(format!("ended with {end:?}"));
            match &end {
                End::Refused(reason) if NAMED.iter().any(|named| reason.contains(named)) => self.report.refused += 1,
                End::Stopped => {}
                end => return Err(format!("{what}: the life after it ended with {end:?}")),
            }
        }
        (self.disk, self.before, self.checker) = (disk, before, checker);
        Ok(())
    }

    /// Starts the node on a copy of the disk and has every message delivered that is owed.
    ///
    /// # Errors
    /// The promise that was broken.
    pub(crate) fn audit(&mut self) -> Result<(), String> {
        let (disk, before, checker) = (self.disk.clone(), self.before.clone(), self.checker.clone());
        self.disk = disk.fork();
        self.note("a copy of the disk is audited".to_owned());
        let purpose = Purpose::Look { rotten: None };
        let end = self.live(Plan { fault: Fault::Stop, weather: Vec::new(), purpose })?;
        self.report.audits += 1;
        if end != End::Stopped {
            return Err(format!(
                "the audit of a copy with {} bytes free ended with {end:?}",
                disk.free_bytes().unwrap_or_default()
            ));
        }
        (self.disk, self.before, self.checker) = (disk, before, checker);
        Ok(())
    }

    /// Flips a bit of the last write to the log. Returns the file and what was done, or `None` if there was no write.
    fn rot_in_tail(&mut self, written: &FaultyDisk) -> std::io::Result<Option<(String, String)>> {
        let last = written.last_writes("wal");
        if last.is_empty() {
            return Ok(None);
        }
        let (name, offset, len) = self.random.pick(&last).clone();
        let offset = offset + self.random.below(len.max(1));
        self.disk.flip(&name, offset);
        let what = format!("bit flipped in {name} at {offset}, which was written last");
        Ok(Some((name, what)))
    }

    /// Damages a random file. Returns the file and what was done, or `None` if there is nothing to damage.
    fn rot_somewhere(&mut self, fault: Fault, written: &FaultyDisk) -> std::io::Result<Option<(String, String)>> {
        let mut files = Vec::new();
        for folder in ["wal", "groups", "archive"] {
            files.extend(self.disk.list(folder)?.into_iter().map(|name| format!("{folder}/{name}")));
        }
        if files.is_empty() {
            return Ok(None);
        }
        let name = self.random.pick(&files).clone();
        let len = self.disk.open(&name)?.len()?;
        if len == 0 {
            return Ok(None);
        }
        let offset = self.some_offset(&name, len)?;
        // Nothing else on the disk tells that the newest segment of the log existed or had a header: keep both.
        let newest = written.last_writes("wal").last().is_some_and(|(newest, ..)| *newest == name);
        let kinds = match fault {
            Fault::Rot if newest => 2,
            Fault::Rot => 4,
            _ => 1,
        };
        let disk = &self.disk;
        let what = match self.random.below(kinds) {
            0 => {
                disk.flip(&name, offset);
                "bit flipped"
            }
            1 if !newest && self.random.once_in(4) => {
                disk.zero(&name, 0, 512);
                "first sector zeroed"
            }
            1 => {
                disk.zero(&name, (offset / 512 * 512).max(64), 512);
                "sector zeroed"
            }
            2 => {
                disk.truncate(&name, offset);
                "cut short"
            }
            _ if name.starts_with("wal/") => {
                disk.truncate(&name, 0);
                "emptied"
            }
            _ => {
                disk.lose(&name);
                "lost"
            }
        };
        Ok(Some((name.clone(), format!("{what}: {name} at {offset}"))))
    }

    /// Returns a random offset in the file, of a byte other than zero if 16 tries find one.
    fn some_offset(&mut self, name: &str, len: u64) -> std::io::Result<u64> {
        let file = self.disk.open(name)?;
        let mut offset = 0;
        for _ in 0..16 {
            offset = self.random.below(len);
            let mut byte = [0];
            file.read_at(&mut byte, offset)?;
            if byte != [0] {
                break;
            }
        }
        Ok(offset)
    }
}

/// The parts of a refusal of which it has to contain one: the folder of a file, or a group whose log is incomplete.
const NAMED: [&str; 4] = ["wal/", "groups/", "archive/", "the log of group"];
