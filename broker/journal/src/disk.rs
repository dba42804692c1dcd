//! File access of the broker's storage: the traits [`Disk`] and [`DiskFile`], their implementation on the file system,
//! and small files that are replaced atomically. No other file of the storage opens files.
//!
//! Names are paths relative to the data folder, such as `wal/003`. Written bytes are durable once `sync_data` has
//! returned, and a new, changed or removed name is durable once `sync_folder` has.
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, IoSlice};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::sync::Arc;

/// The data folder: creates, opens, lists, renames and removes files. All methods return the errors of the system.
pub trait Disk: Send + Sync {
    /// Creates a file of `len` bytes and reserves its space. A file that already has the name is replaced. With
    /// `zeroed`, all bytes are written once, which makes later syncs cheap.
    fn create(&self, name: &str, len: u64, zeroed: bool) -> io::Result<Arc<dyn DiskFile>>;
    /// Opens an existing file for reading and writing. The error is `NotFound` if there is none.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Returns the names of the files in `folder`, sorted and without the folder. Returns an empty list if there is no
    /// such folder.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;
    /// Renames a file, replacing the file that has the name `to`.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes the names in `folder` durable; the empty string is the data folder itself.
    fn sync_folder(&self, folder: &str) -> io::Result<()>;
    /// Returns the number of free bytes on the volume.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Returns the size of the volume in bytes.
    fn total_bytes(&self) -> io::Result<u64>;
    /// Returns whether the path of the data folder still leads to the folder that was opened.
    fn is_in_place(&self) -> io::Result<bool> {
        Ok(true)
    }
}

/// An open file. All methods return the errors of the system.
pub trait DiskFile: Send + Sync {
    /// Writes `parts` one after the other, beginning at `offset`. After an error some of the bytes may have been written.
    fn write_at(&self, parts: &mut [IoSlice<'_>], offset: u64) -> io::Result<()>;
    /// Fills `buffer` with the bytes at `offset`. The error is `UnexpectedEof` if the file ends before `buffer` is full.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// Makes all bytes written so far durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Does the same as [`sync_data`](Self::sync_data), and drops the first `len` bytes of the file from the system's
    /// cache, so that later reads get them from the disk. After a failed sync the cache may hold bytes, marked as
    /// clean, that the disk never received.
    fn sync_and_drop_cache(&self, len: u64) -> io::Result<()>;
    /// Returns whether the file still has a name. A file without a name is lost when the process ends.
    fn is_linked(&self) -> io::Result<bool> {
        Ok(true)
    }
    /// Returns the length of the file in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Returns whether the file is empty.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
}

/// The implementation of [`Disk`] on a folder of the file system.
pub struct RealDisk {
    root: PathBuf,
    /// Device and inode number of the folder when it was opened, if they could be read.
    folder: Option<(u64, u64)>,
}

impl RealDisk {
    /// Returns the disk for the existing folder `root`.
    #[must_use]
    pub fn new(root: PathBuf) -> Self {
        let folder = std::fs::metadata(&root).ok().map(|folder| (folder.dev(), folder.ino()));
        Self { root, folder }
    }

    /// Returns an error that names the data folder if `error` is `NotFound` because that folder was removed; otherwise
    /// `error`.
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
        // Missing subfolders are created, but not the root: if that is missing, it was removed while the broker ran.
        if let Some(folder) = path.parent().filter(|folder| *folder != self.root) {
            match std::fs::create_dir(folder) {
                Ok(()) => self.sync_folder("").inspect_err(|_| {
                    let _ = std::fs::remove_dir(folder); // so that the next call creates the folder and syncs its name
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

/// Reserves space for a file of `len` bytes. Writes zeros to all of it if `zeroed` is set or if the file system cannot
/// reserve space.
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

/// Repeats a call that was interrupted by a signal, at once, or that ended with `WouldBlock`, after a pause: neither
/// call did anything. Gives up after [`REPEATS_MAX`] repeats and returns the last result.
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

/// Returns whether a call that failed with this error may succeed later without anybody repairing the disk: there was
/// no space left, or the process or the system had run out of file descriptors or memory. A failed sync must not be
/// repeated on the same file whatever this function says of its error, because the kernel may have dropped the pages.
#[must_use]
pub fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, OutOfMemory, QuotaExceeded, StorageFull, WouldBlock};
    matches!(error.kind(), StorageFull | QuotaExceeded | OutOfMemory | Interrupted | WouldBlock)
        || is_one_of(error, &[Errno::MFILE, Errno::NFILE])
}

/// Returns whether the error has one of these numbers of the system. Needed for numbers that `ErrorKind` has no value
/// for.
fn is_one_of(error: &io::Error, errnos: &[Errno]) -> bool {
    errnos.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// Replaces a small file atomically: after a crash either the old or the new file is there. The new file is written
/// under the name `{name}.new`, synced and renamed. It holds the bytes of `parts`, one after the other, and their CRC32
/// (u32, little-endian).
///
/// # Errors
/// Errors of the disk. The old file is still there then, unless the sync of the folder failed: after that error the new
/// file is there, and a crash may bring back the old one.
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
        let _ = disk.remove(&beside); // frees its space for other files
        return Err(error);
    }
    disk.sync_folder(folder)
}

/// Reads a file that was written by [`write_whole`]. Returns its bytes without the checksum, or `None` if there is no
/// such file.
///
/// # Errors
/// Errors of the disk; `InvalidData`, naming the file, if the checksum does not match.
pub fn read_whole(disk: &dyn Disk, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match disk.open(name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut bytes = vec![0; file.len()? as usize];
    file.read_at(&mut bytes, 0)?;
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, format!("{name} is damaged: its checksum does not match"));
    let (content, checksum) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
    if crc32fast::hash(content) != u32::from_le_bytes(*checksum) {
        return Err(damaged());
    }
    bytes.truncate(bytes.len() - 4);
    Ok(Some(bytes))
}

/// The shortest range to drop from the cache, in bytes: the kernel drops whole pages only, and no page is larger than
/// this.
const PAGE: u64 = 64 << 10;
/// Size of a write of zeros in bytes.
const ZEROS: usize = 1 << 20;
const REPEATS_MAX: u32 = 10_000;
/// Pause before a call is repeated after `WouldBlock`.
const REPEAT_AFTER: std::time::Duration = std::time::Duration::from_millis(1);
/// The largest number of parts that the kernel takes in one call.
const PARTS_MAX: usize = 1024;
