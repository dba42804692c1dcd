//! All file access of the broker's storage: the one file that opens files.
//!
//! Names are relative paths such as `wal/03`. A write counts once `sync_data` has returned, a new name once
//! `sync_folder` has.
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

/// A folder of files.
pub trait Disk: Send + Sync {
    /// Makes a file of `len` bytes, whose space is reserved; `zeroed`: written once, which makes later syncs cheap.
    fn create(&self, name: &str, len: u64, zeroed: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens a file that is there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Names of the files in `folder`, in order; none if there is no such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Gives a file another name, in place of what has that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names in `folder` durable.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// Bytes that are free.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Bytes of the whole volume.
    fn total_bytes(&self) -> io::Result<u64>;
    /// Whether the folder's name still leads to the folder that was opened.
    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Writes `parts` one after the other from `offset` on.
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Makes what was written durable.
    fn sync_data(&self) -> io::Result<()>;
    /// As [`sync_data`](Self::sync_data); what is read from then on of the first `len` bytes comes from the disk itself. After
    /// a failed sync the system's cache may hold, as clean, what the disk never got.
    fn sync_and_drop_cache(&self, len: u64) -> io::Result<()>;
    /// Whether the file still has a name: without one it is lost when the process ends.
    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }
    /// Length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Whether it has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// A folder of the file system.
pub struct RealDisk {
    root: PathBuf,
    /// Device and number of the folder, if they could be read.
    folder: Option<(u64, u64)>,
}

impl RealDisk {
    /// The folder `root`, which is there.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let folder = std::fs::metadata(&root).ok().map(|folder| (folder.dev(), folder.ino()));
        Self { root, folder }
    }

    /// Says of an error whether it is one because the folder itself has gone.
    fn explain(&self, error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::NotFound && matches!(self.root.try_exists(), Ok(false)) {
            let text = format!("the data folder {} was removed", self.root.display());
            return io::Error::new(io::ErrorKind::NotFound, text);
        }
        error
    }

    fn volume(&self) -> io::Result<rustix::fs::StatVfs> {
        rustix::fs::statvfs(&self.root).map_err(|errno| self.explain(errno.into()))
    }
}

impl Disk for RealDisk {
    fn create(&self, name: &str, len: u64, zeroed: bool) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.root.join(name);
        // Never the root itself: if that is gone, it was taken away under the broker.
        if let Some(folder) = path.parent().filter(|folder| *folder != self.root) {
            match std::fs::create_dir(folder) {
                Ok(()) => self.sync_folder("").inspect_err(|_| {
                    let _ = std::fs::remove_dir(folder); // so that whoever comes next makes and syncs it
                })?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(self.explain(error)),
            }
        }
        let file = File::options().read(true).write(true).create(true).truncate(true).open(&path);
        let file = file.map_err(|error| self.explain(error))?;
        if let Err(error) = reserve(&file, len, zeroed) {
            let _ = std::fs::remove_file(&path);
            return Err(error);
        }
        Ok(Arc::new(file))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(File::options().read(true).write(true).open(self.root.join(name))?))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match std::fs::read_dir(self.root.join(folder)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.root.join(from), self.root.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.root.join(name))
    }

    fn sync_folder(&self, folder: &str) -> io::Result<()> {
        let folder = File::open(self.root.join(folder))?;
        persist(|| folder.sync_all())
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let volume = self.volume()?;
        Ok(volume.f_bavail * volume.f_frsize)
    }

    fn total_bytes(&self) -> io::Result<u64> {
        let volume = self.volume()?;
        Ok(volume.f_blocks * volume.f_frsize)
    }

    fn is_in_place(&self) -> io::Result<bool> {
        let now = std::fs::metadata(&self.root).map_err(|error| self.explain(error))?;
        Ok(self.folder.is_none_or(|folder| folder == (now.dev(), now.ino())))
    }
}

impl DiskFile for File {
    fn write_at(&self, mut parts: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        while !parts.is_empty() {
            let some = parts.len().min(PARTS_MAX);
            let written = persist(|| Ok(rustix::io::pwritev(self, &parts[..some], offset)?))?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            offset += written as u64;
            IoSlice::advance_slices(&mut parts, written);
        }
        Ok(())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        persist(|| self.read_exact_at(buffer, offset))
    }

    fn sync_data(&self) -> io::Result<()> {
        persist(|| File::sync_data(self))
    }

    fn sync_and_drop_cache(&self, len: u64) -> io::Result<()> {
        DiskFile::sync_data(self)?;
        let len = std::num::NonZeroU64::new(len.max(PAGE));
        persist(|| Ok(rustix::fs::fadvise(self, 0, len, rustix::fs::Advice::DontNeed)?))
    }

    fn is_linked(&self) -> io::Result<bool> {
        Ok(self.metadata()?.nlink() > 0)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// Reserves space for a file of `len` bytes; `zeroed`: writes all of it once. So it does where the file system cannot reserve.
fn reserve(file: &File, len: u64, zeroed: bool) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    let reserved = persist(|| Ok(rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), 0, len)?));
    let cannot = reserved.as_ref().is_err_and(|error| is_one_of(error, &[Errno::OPNOTSUPP, Errno::NOSYS]));
    if !cannot {
        reserved?;
    }
    if zeroed || cannot {
        let zeros = vec![0; ZEROS];
        for offset in (0..len).step_by(ZEROS) {
            persist(|| file.write_all_at(&zeros[..ZEROS.min((len - offset) as usize)], offset))?;
        }
        DiskFile::sync_data(file)?;
    }
    Ok(())
}

/// Repeats a call that a signal interrupted, or that the system asks to repeat: nothing was done then.
fn persist<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 0..REPEATS_MAX {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(REPEAT_AFTER),
            done => return done,
        }
    }
    call()
}

/// Whether a call that ended with this error may go well later, without anybody having to look at the disk: there was no
/// space, or the process or the system had no file descriptor or no memory left. Never true of a failed sync.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, QuotaExceeded, StorageFull, WouldBlock};
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory | Interrupted | WouldBlock)
        || is_one_of(error, &[Errno::MFILE, Errno::NFILE])
}

/// Whether the system gave one of these numbers, for which there is no kind of error.
fn is_one_of(error: &io::Error, errnos: &[Errno]) -> bool {
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Writes a small file so that after a crash either the old or the new one is there: beside it, synced, renamed. The
/// bytes, given in parts, are followed by their checksum.
///
/// # Errors
/// Those of the disk; the file is the old one then.
pub fn write_whole(disk: &dyn Disk, name: &str, parts: &[&[u8]]) -> io::Result<()> {
    let (folder, _) = name.rsplit_once('/').unwrap_or(("", name));
    let beside = format!("{name}.new");
    let file = disk.create(&beside, 0, false)?;
    let mut checksum = crc32fast::Hasher::new();
    parts.iter().for_each(|part| checksum.update(part));
    let checksum = checksum.finalize().to_le_bytes();
    let parts = parts.iter().copied().filter(|part| !part.is_empty()).chain([&checksum[..]]);
    let written = file.write_at(&mut parts.map(IoSlice::new).collect::<Vec<_>>(), 0);
    if let Err(error) = written.and_then(|()| file.sync_data()).and_then(|()| disk.rename(&beside, name)) {
        let _ = disk.remove(&beside); // it takes space that others may need
        return Err(error);
    }
    disk.sync_folder(folder)
}

/// Reads what [`write_whole`] wrote; none if there is no such file.
///
/// # Errors
/// Those of the disk; `InvalidData` naming the file if the checksum does not fit.
pub fn read_whole(disk: &dyn Disk, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{name} is damaged: its checksum does not fit"));
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
        return Err(damaged());
    }
    bytes.truncate(bytes.len() - 4);
    Ok(Some(bytes))
}

/// The cache is dropped by whole pages, in bytes.
const PAGE: u64 = 64 << 10;
const ZEROS: usize = 1 << 20;
const REPEATS_MAX: u32 = 10_000;
const REPEAT_AFTER: std::time::Duration = std::time::Duration::from_millis(1);
/// The most parts that the kernel takes in one call.
const PARTS_MAX: usize = 1024;
