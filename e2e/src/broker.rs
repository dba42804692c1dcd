//! `leveret serve` as a process of its own, with an address and a data folder that no other test uses.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Folder, Process, address};
use crate::wait::{PATIENCE, until_ok};
use crate::{http, programs};

const AMQP: u16 = 5672;
const HTTP: u16 = 15672;
const METRICS: u16 = 15692;

/// A running broker; killed, and its data removed, when dropped.
pub struct BrokerProcess {
    pub process: Process,
    pub folder: Folder,
    host: String,
}

impl BrokerProcess {
    /// Starts a broker with the default configuration, and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time, with what it printed.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// Starts a broker with `config` as its configuration file, and waits until it is ready.
    ///
    /// # Errors
    /// If it ends or is not ready in time, with what it printed.
    pub fn start_with(config: &str) -> Result<Self> {
        let (folder, host) = (Folder::new()?, address());
        let process =
            Process::start(command(&folder, &host)?.arg("--config").arg(folder.write("leveret.toml", config)?))?;
        let mut broker = Self { process, folder, host };
        broker.wait_ready()?;
        Ok(broker)
    }

    fn wait_ready(&mut self) -> Result<()> {
        let url = format!("{}/health/ready", self.http());
        let process = &mut self.process;
        let ready = until_ok(PATIENCE, "the broker to be ready", || {
            if let Some(status) = process.ended()? {
                return Ok(Some(status));
            }
            let answer = http::get(&url)?;
            ensure!(answer.status == 200, "{} {}", answer.status, answer.body);
            Ok(None)
        });
        match ready {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(anyhow::anyhow!("the broker ended at once with {status}")),
            Err(error) => Err(error),
        }
        .with_context(|| format!("the broker printed:\n{}", self.process.output()))
    }

    /// Returns `HOST:PORT` of the AMQP listener.
    pub fn amqp(&self) -> String {
        format!("{}:{AMQP}", self.host)
    }

    /// Returns the AMQP URL with user, password and virtual host.
    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@{}/%2F", self.amqp())
    }

    /// Returns `http://USER:PASSWORD@HOST:PORT` of the management API.
    pub fn http(&self) -> String {
        format!("http://guest:guest@{}:{HTTP}", self.host)
    }

    /// Returns `HOST:PORT` of the metrics listener.
    pub fn metrics(&self) -> String {
        format!("{}:{METRICS}", self.host)
    }

    /// Returns the value of a sample of `/metrics`. `series` is its name with labels, exactly as printed there.
    ///
    /// # Errors
    /// If the request fails or there is no such sample.
    pub fn metric(&self, series: &str) -> Result<f64> {
        let text = http::get(&format!("http://{}/metrics", self.metrics()))?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.with_context(|| format!("no {series} in the metrics"))?.parse().context("not a number")
    }

    /// Sends SIGTERM, and returns the status with which the broker ends.
    ///
    /// # Errors
    /// If it does not end in time.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.terminate(PATIENCE)
    }
}

/// Returns the command `leveret serve`, listening on all three ports of `host`, with its data in `folder` and an otherwise
/// empty environment.
///
/// # Errors
/// If the program cannot be built or found.
pub fn command(folder: &Folder, host: &str) -> Result<Command> {
    let mut command = Command::new(programs::built("leveret", &[])?);
    command.arg("serve").arg("--data-dir").arg(folder.path().join("data"));
    for (flag, port) in [("--amqp", AMQP), ("--http", HTTP), ("--metrics", METRICS)] {
        command.arg(flag).arg(format!("{host}:{port}"));
    }
    command.env_clear().env("PATH", "/usr/bin:/bin");
    Ok(command)
}

/// Runs a program that ends by itself, and returns its status and output.
///
/// # Errors
/// If it cannot be started or runs for longer than `limit`.
pub fn run(command: &mut Command, limit: Duration) -> Result<(ExitStatus, String)> {
    let mut process = Process::start(command)?;
    let status = process.wait(limit)?;
    Ok((status, process.output()))
}
