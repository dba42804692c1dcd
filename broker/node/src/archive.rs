//! The archive: contents that outlived their segment of the log, copied to files of their own so that the segment can be
//! used again.
//!
//! A file `archive/<n>` holds runs one after the other, each as `length u32, crc32 u32, run`, little-endian. The file is
//! written once, synced, and removed when the last of its runs is gone. The number of an existing file is never used for
//! another one.
use crate::place::Place;
use crate::read_failure::ReadFailure;
use bytes::Bytes;
use leveret_journal::Disk;
use std::io::{self, ErrorKind, IoSlice};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The bit that marks the number of an archive file; numbers without it are segments of the log.
pub(crate) const ARCHIVE: u64 = 1 << 63;

/// Takes the first number from `next` on that no file has.
///
/// # Errors
/// The error of the disk, if it cannot say whether a file exists.
pub(crate) fn free_number(disk: &dyn Disk, next: &AtomicU64) -> io::Result<u64> {
    loop {
        let number = next.fetch_add(1, Relaxed);
        match disk.open(&name(number)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(number),
            taken => drop(taken?),
        }
        tracing::warn!(
            file = name(number),
            "a file of the archive is there that was not known: its number is passed over"
        );
    }
}

/// Writes runs into a new file `number` and syncs it. Returns the place of each run.
///
/// # Errors
/// The error of the disk; the file is removed then.
pub(crate) fn write(disk: &dyn Disk, number: u64, runs: &[Bytes]) -> io::Result<Vec<Place>> {
    let heads: Vec<[u8; HEAD]> = runs.iter().map(|run| head(run)).collect();
    let (mut parts, mut places, mut offset) = (Vec::new(), Vec::new(), 0);
    for (head, run) in heads.iter().zip(runs) {
        parts.push(IoSlice::new(head));
        parts.push(IoSlice::new(run));
        let place = place(number, offset, run.len() as u32);
        offset += place.len;
        places.push(place);
    }
    let file = disk.create(&name(number), u64::from(offset), false)?;
    let written = file.write_at(&mut parts, 0).and_then(|()| file.sync_data()).and_then(|()| disk.sync_folder(FOLDER));
    if let Err(error) = written {
        let _ = remove(disk, number); // no run refers to the file
        return Err(error);
    }
    Ok(places)
}

/// Returns the place of a run that begins at `offset` in file `number`.
pub(crate) fn place(number: u64, offset: u32, run_len: u32) -> Place {
    Place { file: ARCHIVE | number, offset, len: (HEAD as u32).saturating_add(run_len), at: HEAD as u32, run_len }
}

/// Reads the run at `place` and checks its length and checksum.
///
/// # Errors
/// [`ReadFailure`] if the run cannot be read or is damaged.
pub(crate) fn read(disk: &dyn Disk, place: &Place) -> Result<Bytes, ReadFailure> {
    let name = name(place.file & !ARCHIVE);
    let mut bytes = vec![0; place.len as usize];
    let read = disk.open(&name).and_then(|file| file.read_at(&mut bytes, u64::from(place.offset)));
    read.map_err(|error| ReadFailure::of_disk(&name, &error))?;
    let run = Bytes::from(bytes);
    if run.len() < HEAD || run[..HEAD] != head(&run[HEAD..]) {
        let text = format!("{name} is damaged at offset {}: the checksum does not fit", place.offset);
        return Err(ReadFailure::Damaged(text));
    }
    Ok(run.slice(HEAD..))
}

pub(crate) fn remove(disk: &dyn Disk, number: u64) -> io::Result<()> {
    disk.remove(&name(number))
}

/// Returns the numbers of the existing files.
///
/// # Errors
/// The error of the disk.
pub(crate) fn list(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    Ok(disk.list(FOLDER)?.iter().filter_map(|name| name.parse().ok()).collect())
}

/// Returns the length of file `number` in bytes.
///
/// # Errors
/// The error of the disk.
pub(crate) fn size(disk: &dyn Disk, number: u64) -> io::Result<u64> {
    disk.open(&name(number))?.len()
}

fn head(run: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(run.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(run).to_le_bytes());
    head
}

pub(crate) fn name(number: u64) -> String {
    format!("{FOLDER}/{number:016}")
}

const FOLDER: &str = "archive";
/// The length of what comes before a run in its file, in bytes.
pub(crate) const HEAD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_journal::faulty::FaultyDisk;

    #[test]
    fn errors_name_a_file_that_is_lost_or_cut_short() {
        let disk = FaultyDisk::new(1);
        let run = Bytes::from_static(b"a run of messages");
        let place = write(&disk, 7, std::slice::from_ref(&run)).unwrap()[0];
        assert_eq!(read(&disk, &place).unwrap(), run);
        disk.truncate("archive/0000000000000007", 9);
        let short = read(&disk, &place).unwrap_err().to_string();
        assert!(short.starts_with("archive/0000000000000007 is damaged"), "{short}");
        disk.lose("archive/0000000000000007");
        let lost = read(&disk, &place).unwrap_err().to_string();
        assert!(lost.starts_with("archive/0000000000000007 is "), "{lost}");
    }
}
