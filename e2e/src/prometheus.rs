//! A real Prometheus that scrapes one target every second.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::process::{Folder, Process, address};
use crate::wait::{PATIENCE, until_ok};
use crate::{http, programs};

/// A running Prometheus.
pub struct Prometheus {
    process: Process,
    host: String,
    _folder: Folder,
}

/// One series of an answer: its labels and its last value.
#[derive(Debug)]
pub struct Sample {
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Prometheus {
    /// Starts a Prometheus and waits until it has scraped `target` (`HOST:PORT`). Every series gets these labels, as the
    /// service discovery of Kubernetes adds `namespace`.
    ///
    /// # Errors
    /// If Prometheus is not installed, or does not scrape in time.
    pub fn start(target: &str, labels: &[(&str, &str)]) -> Result<Self> {
        let (folder, host) = (Folder::new()?, format!("{}:9090", address()));
        let labels: BTreeMap<_, _> = labels.iter().copied().collect();
        let config = serde_json::json!({
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "leveret", "static_configs": [{"targets": [target], "labels": labels}]}],
        });
        let config = folder.write("prometheus.yml", &config.to_string())?; // JSON is YAML
        let mut command = Command::new(programs::debian("prometheus")?);
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()));
        command.arg(format!("--web.listen-address={host}"));
        let prometheus = Self { process: Process::start(&mut command)?, host, _folder: folder };
        until_ok(PATIENCE, "Prometheus to scrape", || prometheus.last("up", "up == 1"))
            .with_context(|| format!("Prometheus printed:\n{}", prometheus.process.output()))?;
        Ok(prometheus)
    }

    /// Returns the answer to an instant query.
    ///
    /// # Errors
    /// If Prometheus refuses the query.
    pub fn query(&self, expression: &str) -> Result<Vec<Sample>> {
        samples(&self.ask("query", &[("query", expression)])?, "value")
    }

    /// Returns the answer to a range query over the last minute, each series with its last value, as a panel shows it.
    ///
    /// # Errors
    /// If Prometheus refuses the query.
    pub fn query_range(&self, expression: &str) -> Result<Vec<Sample>> {
        let now = self.last("time", "time()")?;
        let (start, end) = ((now - 60.0).to_string(), now.to_string());
        samples(
            &self.ask("query_range", &[("query", expression), ("start", &start), ("end", &end), ("step", "1")])?,
            "values",
        )
    }

    /// Returns the values of a label among the series of a selector.
    ///
    /// # Errors
    /// If Prometheus refuses the query.
    pub fn label_values(&self, selector: &str, label: &str) -> Result<Vec<String>> {
        let answer = self.ask(&format!("label/{label}/values"), &[("match[]", selector)])?;
        Ok(answer
            .as_array()
            .context("the answer is not a list of values")?
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    /// Returns the value of a query that has exactly one. `what` names it in errors.
    ///
    /// # Errors
    /// If Prometheus refuses the query, or the answer has no value or several.
    pub fn last(&self, what: &str, expression: &str) -> Result<f64> {
        let answer = self.ask("query", &[("query", expression)])?;
        if let Some(scalar) = answer["result"][1].as_str() {
            return Ok(scalar.parse()?);
        }
        let list = samples(&answer, "value")?;
        ensure!(list.len() == 1, "{what}: {expression} has {} values", list.len());
        Ok(list[0].value)
    }

    fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let parameters: Vec<_> =
            parameters.iter().map(|(name, value)| format!("{}={}", http::encode(name), http::encode(value))).collect();
        let mut answer = http::get(&format!("http://{}/api/v1/{path}?{}", self.host, parameters.join("&")))?.json()?;
        if answer["status"] != "success" {
            bail!("{}: {}", answer["errorType"], answer["error"]);
        }
        Ok(answer["data"].take())
    }
}

fn samples(answer: &Value, field: &str) -> Result<Vec<Sample>> {
    let list = answer["result"].as_array().context("the answer is not a list")?;
    list.iter()
        .map(|series| {
            let labels = serde_json::from_value(series["metric"].clone())?;
            let point = if field == "values" {
                series[field].as_array().and_then(|points| points.last())
            } else {
                series.get(field)
            };
            let value = point.and_then(|point| point[1].as_str()).context("a series without a value")?.parse()?;
            Ok(Sample { labels, value })
        })
        .collect()
}
