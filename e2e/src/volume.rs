//! A volume of its own for the data of a node, which can be filled and can fail. Needs root, and the program `mkfs.ext4`.
//!
//! It is an ext4 file system in a file in memory. When it fails, the file has lost its blocks and gets no others: the kernel
//! reports errors of the device, and ends the journal of the file system.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use rustix::io::Errno;

use crate::broker::run;
use crate::process::Folder;
use crate::wait::PATIENCE;

/// A mounted volume; unmounted when dropped.
pub struct LoopVolume {
    /// Where the file lies that holds the file system.
    device: PathBuf,
    data: PathBuf,
}

impl LoopVolume {
    /// Makes an empty volume of `mib` mebibytes, and mounts it as the folder `data`.
    ///
    /// # Errors
    /// If a command fails, with what it printed.
    pub fn mount(folder: &Folder, mib: u64) -> Result<Self> {
        let volume = Self { device: folder.path().join("device"), data: folder.path().join("data") };
        let image = volume.image();
        for folder in [&volume.device, &volume.data] {
            fs::create_dir_all(folder)?;
        }
        let memory = format!("size={}m,mode=700", mib + 8);
        program("mount", &["-t", "tmpfs", "-o", &memory, "leveret-e2e"], &[&volume.device])?;
        File::create(&image)?.set_len(mib << 20)?;
        program("mkfs.ext4", &["-q", "-F", "-m", "0"], &[&image])?;
        program("mount", &["-o", "loop"], &[&image, &volume.data])?;
        Ok(volume)
    }

    fn image(&self) -> PathBuf {
        self.device.join("image")
    }

    /// Fills the volume with a file of somebody else until not a single block is left.
    ///
    /// # Errors
    /// If the volume cannot be written for another reason.
    pub fn fill(&self) -> Result<()> {
        let mut filler = OpenOptions::new().create(true).append(true).open(self.data.join(FILLER))?;
        for part in [1 << 20, 4 << 10] {
            let full = loop {
                if let Err(error) = filler.write_all(&vec![1; part]).and_then(|()| filler.sync_data()) {
                    break error;
                }
            };
            let errno = full.raw_os_error().map(Errno::from_raw_os_error);
            ensure!(errno == Some(Errno::NOSPC), "filling the volume: {full}");
        }
        Ok(())
    }

    /// Removes what [`fill`](Self::fill) has written.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.data.join(FILLER))?)
    }

    /// Removes all data.
    ///
    /// # Errors
    /// If something cannot be removed.
    pub fn empty(&self) -> Result<()> {
        for entry in fs::read_dir(&self.data)? {
            let path = entry?.path();
            if path.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
        Ok(())
    }

    /// Has all further writes fail, for ever.
    ///
    /// # Errors
    /// If the file of the volume cannot be cut.
    pub fn fail(&self) -> Result<()> {
        OpenOptions::new().write(true).open(self.image())?.set_len(1 << 20)?;
        program("mount", &["-o", "remount,size=1m"], &[&self.device])
    }
}

impl Drop for LoopVolume {
    fn drop(&mut self) {
        for mounted in [&self.data, &self.device] {
            let _ = program("umount", &["--lazy"], &[mounted]);
        }
    }
}

fn program(name: &str, flags: &[&str], paths: &[&Path]) -> Result<()> {
    let mut command = Command::new(name);
    let (status, output) = run(command.args(flags).args(paths), PATIENCE).context(name.to_owned())?;
    ensure!(status.success(), "{command:?}: {output}");
    Ok(())
}

/// A file that takes room, and is not the broker's.
const FILLER: &str = "somebody-elses";
