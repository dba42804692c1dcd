//! The data folder: created if it does not exist, and locked so that two brokers never share one.
use anyhow::{Context, bail};
use rustix::fs::FlockOperation;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::time::Duration;

/// Holds the lock of the folder until it is dropped or the process ends, however that happens.
pub(crate) struct DataDir {
    _lock: File,
}

impl DataDir {
    /// Creates the folder `path` if it does not exist, and locks it. A broker that is being killed may have the lock for a
    /// moment longer, as when Kubernetes has replaced its pod at once: it is waited for.
    pub(crate) fn open(path: &Path) -> anyhow::Result<Self> {
        Self::open_within(path, LOCK_WAIT_MAX)
    }

    fn open_within(path: &Path, wait_max: Duration) -> anyhow::Result<Self> {
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
        let mut waited = Duration::ZERO;
        while rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            if waited >= wait_max {
                let mut owner = String::new();
                let _ = lock.read_to_string(&mut owner);
                bail!("the data folder {folder} is in use by another leveret (process {})", owner.trim());
            }
            if waited.is_zero() {
                tracing::warn!("the data folder {folder} is in use by another leveret: waiting for its end");
            }
            std::thread::sleep(LOCK_PAUSE);
            waited += LOCK_PAUSE;
        }
        // Only people read the number, so a volume that is full to the last byte does not prevent the start.
        let number = format!("{}\n", std::process::id());
        let _ = lock.write_all_at(number.as_bytes(), 0).and_then(|()| lock.set_len(number.len() as u64));
        Ok(Self { _lock: lock })
    }
}

/// How long the end of the broker is waited for that has the lock.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_is_used_by_one_broker_at_a_time() {
        let folder = std::env::temp_dir().join(format!("leveret-data-dir-{}", std::process::id()));
        let held = DataDir::open(&folder).unwrap();
        let refused = DataDir::open_within(&folder, Duration::ZERO).err().unwrap().to_string();
        assert!(
            refused.ends_with(&format!("is in use by another leveret (process {})", std::process::id())),
            "{refused}"
        );
        // It gets the folder once the other one has ended.
        let ending = std::thread::spawn(move || {
            std::thread::sleep(LOCK_PAUSE * 3);
            drop(held);
        });
        DataDir::open(&folder).unwrap();
        ending.join().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
