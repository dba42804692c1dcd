//! Child processes whose output is kept, and temporary folders. Both end with the test, however it ends.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use rustix::process::{Pid, Signal, kill_process};

use crate::wait::until_for;

/// A child process with its output; killed when dropped.
pub struct Process {
    child: Child,
    output: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts the command. Its standard output and error are collected line by line into one text.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(command: &mut Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {command:?}"))?;
        let output = Arc::new(Mutex::new(String::new()));
        let mut readers = Vec::new();
        readers.extend(child.stdout.take().map(|pipe| collect(pipe, &output)));
        readers.extend(child.stderr.take().map(|pipe| collect(pipe, &output)));
        Ok(Self { child, output, readers })
    }

    /// Returns the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns all that the process has printed so far.
    pub fn output(&self) -> String {
        self.output.lock().map_or_else(|poisoned| poisoned.into_inner().clone(), |text| text.clone())
    }

    /// Returns the whole lines that the process has printed after the first `from` bytes.
    pub fn output_after(&self, from: usize) -> String {
        let after = |text: &String| text.get(from..).unwrap_or_default().to_owned();
        self.output.lock().map_or_else(|poisoned| after(&poisoned.into_inner()), |text| after(&text))
    }

    /// Returns the status of the process; `None` while it runs.
    ///
    /// # Errors
    /// If the operating system cannot tell.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Sends a signal to the process.
    ///
    /// # Errors
    /// If it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = i32::try_from(self.id()).ok().and_then(Pid::from_raw).context("no process id")?;
        Ok(kill_process(id, signal)?)
    }

    /// Waits until the process has ended and all of its output is collected, and returns its status.
    ///
    /// # Errors
    /// If it runs for longer than `limit`, with its output.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = until_for(limit, "the end of a program", || self.child.try_wait().transpose())
            .with_context(|| format!("the program printed:\n{}", self.output()))??;
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        Ok(status)
    }

    /// Sends SIGTERM, and waits for the end as [`Self::wait`] does.
    ///
    /// # Errors
    /// If the process has ended before, or runs for longer than `limit`.
    pub fn terminate(&mut self, limit: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        self.wait(limit)
    }

    /// Returns the resident memory of the process in bytes.
    ///
    /// # Errors
    /// If it has ended.
    pub fn resident_bytes(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id()))?;
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS: the process has ended")?;
        let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn collect(pipe: impl Read + Send + 'static, output: &Arc<Mutex<String>>) -> JoinHandle<()> {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines().map_while(Result::ok) {
            if let Ok(mut text) = output.lock() {
                text.push_str(&line);
                text.push('\n');
            }
        }
    })
}

/// A temporary folder, removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    /// Creates an empty folder.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("leveret-e2e-{}-{}", std::process::id(), next()));
        fs::create_dir_all(&path)?;
        Ok(Self(path))
    }

    /// Returns the path of the folder.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in the folder, and returns its path.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.0.join(name);
        fs::write(&path, text)?;
        Ok(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn next() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Returns an address of the loopback network that no other test uses. All of its ports are free, so that tests do not race
/// for free ports.
pub fn address() -> String {
    let id = std::process::id();
    let number = next();
    format!("127.{}.{}.{}", 64 + (id >> 8 & 127), id & 255, 1 + number % 254)
}
