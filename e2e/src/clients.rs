//! The test clients of `e2e/clients`: one program per unmodified client library, all with the same command line.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::process::Process;
use crate::programs;

const LIMIT: Duration = Duration::from_secs(180);
const INSTALLER: &str = "e2e/install/clients";

/// A client library with its test program.
#[derive(Clone, Copy, Debug)]
pub enum Client {
    Pika,
    Amqplib,
    Amqp091Go,
    Lapin,
}

impl Client {
    /// All client libraries.
    pub const ALL: [Self; 4] = [Self::Pika, Self::Amqplib, Self::Amqp091Go, Self::Lapin];

    /// Returns the command of the program, to which `--url ... SCENARIO` is to be added.
    ///
    /// # Errors
    /// If something is not installed or built, naming the command that does it.
    pub fn command(self) -> Result<Command> {
        let scripts = programs::root().join("e2e/clients");
        Ok(match self {
            Self::Pika => {
                let mut command = Command::new("python3");
                command.arg("-B").arg(scripts.join("python/client.py"));
                command.env("PYTHONPATH", programs::tool("python", INSTALLER)?);
                command
            }
            Self::Amqplib => {
                let mut command = Command::new(programs::runtime("node")?);
                command.arg(scripts.join("node/client.js"));
                command.env("NODE_PATH", programs::tool("node/node_modules", INSTALLER)?);
                command
            }
            Self::Amqp091Go => Command::new(programs::tool("go-clients/client", INSTALLER)?),
            Self::Lapin => Command::new(programs::beside("lapin-client")?),
        })
    }

    /// Starts the program with these arguments.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(self, url: &str, arguments: &[&str]) -> Result<Process> {
        Process::start(self.command()?.arg("--url").arg(url).args(arguments))
    }

    /// Runs the program to its end, for three minutes at most.
    ///
    /// # Errors
    /// If it does not end in time or a check fails, with what it printed.
    pub fn run(self, url: &str, arguments: &[&str]) -> Result<Report> {
        let mut process = self.start(url, arguments)?;
        let status = process.wait(LIMIT)?;
        let report =
            Report::parse(&process.output()).with_context(|| format!("{self:?} {arguments:?} ended with {status}"))?;
        ensure!(
            status.success() && report.failures.is_empty(),
            "{self:?} {arguments:?} ended with {status}:\n{}",
            report.failures.join("\n")
        );
        Ok(report)
    }
}

/// The results that a client printed.
#[derive(Debug)]
pub struct Report {
    /// The names of the checks that passed.
    pub passed: Vec<String>,
    /// The printed lines of the checks that failed.
    pub failures: Vec<String>,
}

impl Report {
    fn parse(output: &str) -> Result<Self> {
        let passed: Vec<_> = output.lines().filter_map(|line| line.strip_prefix("ok ")).map(str::to_owned).collect();
        let failures: Vec<_> = output.lines().filter(|line| line.starts_with("FAIL ")).map(str::to_owned).collect();
        let sum = format!("{} passed, {} failed", passed.len(), failures.len());
        ensure!(output.lines().last() == Some(sum.as_str()), "the last line is not the summary {sum:?}:\n{output}");
        Ok(Self { passed, failures })
    }
}
