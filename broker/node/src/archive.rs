//! Contents that outlived their segment of the log: copied to files of their own, so that the segment is used again.
//!
//! A file `archive/<n>` holds runs one after the other, each as `length u32, crc32 u32, run`, little-endian. It is written
//! once, synced, and removed when the last of its runs is gone.
use bytes::Bytes;
use leveret_engine::queue::Place;
use leveret_journal::Disk;
use std::io::{self, IoSlice};

/// Marks a file number as one of the archive; others are segments of the log.
pub(crate) const ARCHIVE: u64 = 1 << 63;

/// Writes runs into file `number`: where each lies.
pub(crate) fn write(disk: &dyn Disk, number: u64, runs: &[Bytes]) -> io::Result<Vec<Place>> {
    let heads: Vec<[u8; HEAD]> = runs.iter().map(|run| head(run)).collect();
    let (mut parts, mut places, mut offset) = (Vec::new(), Vec::new(), 0);
    for (head, run) in heads.iter().zip(runs) {
        parts.push(IoSlice::new(head));
        parts.push(IoSlice::new(run));
        let run_len = run.len() as u32;
        let len = HEAD as u32 + run_len;
        places.push(Place { file: ARCHIVE | number, offset, len, at: HEAD as u32, run_len });
        offset += len;
    }
    let file = disk.create(&name(number), u64::from(offset), false)?;
    file.write_at(&mut parts, 0)?;
    file.sync_data()?;
    disk.sync_folder(FOLDER)?;
    Ok(places)
}

/// Reads a run, and checks it.
pub(crate) fn read(disk: &dyn Disk, place: &Place) -> io::Result<Bytes> {
    let number = place.file & !ARCHIVE;
    let mut bytes = vec![0; place.len as usize];
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", name(number)));
    let read = disk.open(&name(number)).and_then(|file| file.read_at(&mut bytes, u64::from(place.offset)));
    read.map_err(named)?;
    let run = Bytes::from(bytes);
    if run.get(..HEAD) != Some(&head(&run[HEAD..])) {
        let text = format!("{} is damaged at offset {}: the checksum does not fit", name(number), place.offset);
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(run.slice(HEAD..))
}

pub(crate) fn remove(disk: &dyn Disk, number: u64) -> io::Result<()> {
    disk.remove(&name(number))
}

/// Numbers of the files that are there.
pub(crate) fn list(disk: &dyn Disk) -> io::Result<Vec<u64>> {
    Ok(disk.list(FOLDER)?.iter().filter_map(|name| name.parse().ok()).collect())
}

fn head(run: &[u8]) -> [u8; HEAD] {
    let mut head = [0; HEAD];
    head[..4].copy_from_slice(&(run.len() as u32).to_le_bytes());
    head[4..].copy_from_slice(&crc32fast::hash(run).to_le_bytes());
    head
}

fn name(number: u64) -> String {
    format!("{FOLDER}/{number:016}")
}

const FOLDER: &str = "archive";
const HEAD: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use leveret_journal::faulty::FaultyDisk;

    #[test]
    fn a_file_that_is_lost_or_cut_short_is_named() {
        let disk = FaultyDisk::new(1);
        let run = Bytes::from_static(b"a run of messages");
        let place = write(&disk, 7, std::slice::from_ref(&run)).unwrap()[0];
        assert_eq!(read(&disk, &place).unwrap(), run);
        disk.truncate("archive/0000000000000007", 9);
        let short = read(&disk, &place).unwrap_err().to_string();
        assert!(short.starts_with("archive/0000000000000007: "), "{short}");
        disk.lose("archive/0000000000000007");
        let lost = read(&disk, &place).unwrap_err().to_string();
        assert!(lost.starts_with("archive/0000000000000007: "), "{lost}");
    }
}
