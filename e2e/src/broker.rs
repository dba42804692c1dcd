//! `leveret serve` as a process of its own, on an address and with a data folder that no other test has.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::{Folder, Process, address};
use crate::wait::{PATIENCE, until_ok};
use crate::{http, programs};

const AMQP: u16 = 5672;
const HTTP: u16 = 15672;
const METRICS: u16 = 15692;

pub struct BrokerProcess {
    pub process: Process,
    pub folder: Folder,
    host: String,
}

impl BrokerProcess {
    /// Starts one with its defaults, and waits until it says that it is ready.
    pub fn start() -> Result<Self> {
        Self::start_with("")
    }

    /// Starts one with these lines in its configuration file.
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

    /// HOST:PORT of AMQP.
    pub fn amqp(&self) -> String {
        format!("{}:{AMQP}", self.host)
    }

    pub fn amqp_url(&self) -> String {
        format!("amqp://guest:guest@{}/%2F", self.amqp())
    }

    /// `http://USER:PASSWORD@HOST:PORT` of the management API.
    pub fn http(&self) -> String {
        format!("http://guest:guest@{}:{HTTP}", self.host)
    }

    /// HOST:PORT of the metrics.
    pub fn metrics(&self) -> String {
        format!("{}:{METRICS}", self.host)
    }

    /// One sample of `/metrics`, by its name and labels as they are printed there.
    pub fn metric(&self, series: &str) -> Result<f64> {
        let text = http::get(&format!("http://{}/metrics", self.metrics()))?.body;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.with_context(|| format!("no {series} in the metrics"))?.parse().context("not a number")
    }

    /// SIGTERM, and its end.
    pub fn stop(mut self) -> Result<ExitStatus> {
        self.process.terminate(PATIENCE)
    }
}

/// `leveret serve` on all three ports of `host`, with its data in `folder`.
pub fn command(folder: &Folder, host: &str) -> Result<Command> {
    let mut command = Command::new(programs::built("leveret", &[])?);
    command.arg("serve").arg("--data-dir").arg(folder.path().join("data"));
    for (flag, port) in [("--amqp", AMQP), ("--http", HTTP), ("--metrics", METRICS)] {
        command.arg(flag).arg(format!("{host}:{port}"));
    }
    command.env_clear().env("PATH", "/usr/bin:/bin");
    Ok(command)
}

/// Runs a program that is expected to end by itself, and gives how it ended and what it printed.
pub fn run(command: &mut Command, limit: Duration) -> Result<(ExitStatus, String)> {
    let mut process = Process::start(command)?;
    let status = process.wait(limit)?;
    Ok((status, process.output()))
}
