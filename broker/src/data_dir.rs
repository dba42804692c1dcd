//! The data folder: created if it does not exist, and locked so that two brokers never share one.
use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;

/// Holds the lock of the folder until it is dropped or the process ends, however that happens.
pub(crate) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the folder `path` if it does not exist, and locks it.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        let folder = path.display();
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("cannot make the data folder {folder}"))?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join("lock"))
            .with_context(|| format!("cannot write to the data folder {folder}"))?;
        if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut owner = String::new();
            let _ = lock.read_to_string(&mut owner);
            bail!("the data folder {folder} is in use by another leveret (process {})", owner.trim());
        }
        // Only people read the number, so a volume that is full to the last byte does not prevent the start.
        let number = format!("{}\n", std::process::id());
        let _ = lock.write_all_at(number.as_bytes(), 0).and_then(|()| lock.set_len(number.len() as u64));
        Ok(Self { _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_is_used_by_one_broker_at_a_time() {
        let folder = std::env::temp_dir().join(format!("leveret-data-dir-{}", std::process::id()));
        let held = DataDir::open(&folder).unwrap();
        let refused = DataDir::open(&folder).err().unwrap().to_string();
        assert!(
            refused.ends_with(&format!("is in use by another leveret (process {})", std::process::id())),
            "{refused}"
        );
        drop(held);
        DataDir::open(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
