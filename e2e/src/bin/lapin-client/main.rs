//! Test client with unmodified lapin; scenarios: publish, consume, roundtrip, hold, steady, conformance.
//!
//! The programs in `e2e/clients` have the same command line and print the same lines, which the README there describes.
//! Only this one has `--size`, for messages that fill a disk, and `steady`, for traffic while nodes are lost.

mod broker;
mod connections;
mod deliveries;
mod entities;
mod messages;
mod routes;
mod scenarios;
mod steady;
mod tally;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use broker::Broker;
use scenarios::Options;
use tally::Tally;

/// Runs the checks in order under their names. A test of `e2e/tests/clients.rs` reads the names from this file.
macro_rules! run_checks {
    ($tally:expr, $broker:expr, $($name:literal => $check:path,)*) => {
        $( $tally.run($name, $check($broker)).await; )*
    };
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = match command_line() {
        Ok(command) => command,
        Err(error) => {
            eprintln!(
                "{error:#}\nusage: lapin-client --url URL [--rabbitmq] [--queue Q] [--exchange E] [--key K] [--count N] [--size BYTES] publish|consume|roundtrip|hold|steady|conformance"
            );
            return ExitCode::from(2);
        }
    };
    let (broker, options) = (Broker::new(&command.url, command.rabbitmq), &command.options);
    let mut tally = Tally::default();
    match command.scenario.as_str() {
        "conformance" => conformance(&mut tally, &broker).await,
        "publish" => tally.run("publish", scenarios::publish(&broker, options)).await,
        "consume" => tally.run("consume", scenarios::consume(&broker, options)).await,
        "steady" => tally.run("steady", steady::run(&command.url, &options.queue)).await,
        "roundtrip" => tally.run("roundtrip", scenarios::roundtrip(&broker, options)).await,
        _ => tally.run("hold", scenarios::hold(&broker, options)).await,
    }
    tally.close()
}

struct CommandLine {
    url: String,
    rabbitmq: bool,
    scenario: String,
    options: Options,
}

fn command_line() -> Result<CommandLine> {
    let mut command =
        CommandLine { url: String::new(), rabbitmq: false, scenario: String::new(), options: Options::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().with_context(|| format!("{word} needs a value"));
        match word.as_str() {
            "--url" => command.url = value()?,
            "--rabbitmq" => command.rabbitmq = true,
            "--queue" => command.options.queue = value()?,
            "--exchange" => command.options.exchange = value()?,
            "--key" => command.options.key = Some(value()?),
            "--size" => command.options.size = value()?.parse().context("--size needs a number")?,
            "--count" => command.options.count = value()?.parse().context("--count needs a number")?,
            "publish" | "consume" | "roundtrip" | "hold" | "steady" | "conformance" => command.scenario = word,
            other => bail!("unknown argument {other}"),
        }
    }
    if command.url.is_empty() || command.scenario.is_empty() {
        bail!("--url and a scenario are needed");
    }
    Ok(command)
}

async fn conformance(tally: &mut Tally, broker: &Broker) {
    run_checks!(tally, broker,
        "connection.open" => connections::open,
        "connection.tune" => connections::tune,
        "connection.wrong-password" => connections::wrong_password,
        "connection.wrong-vhost" => connections::wrong_vhost,
        "connection.heartbeat" => connections::heartbeat,
        "connection.channels" => connections::channels,
        "connection.close" => connections::close,
        "publish.confirm" => messages::confirm,
        "publish.mandatory" => messages::mandatory,
        "publish.missing-exchange" => messages::missing_exchange,
        "message.properties" => messages::properties,
        "message.header-types" => messages::header_types,
        "message.empty" => messages::empty,
        "message.big" => messages::big,
        "message.frame-edges" => messages::frame_edges,
        "get" => messages::get,
    );
    run_checks!(tally, broker,
        "consume.order" => deliveries::order,
        "consume.prefetch" => deliveries::prefetch,
        "consume.nack-requeue" => deliveries::nack_requeue,
        "consume.reject" => deliveries::reject,
        "consume.recover" => deliveries::recover,
        "consume.cancel" => deliveries::cancel,
        "consume.exclusive" => deliveries::exclusive_consumer,
        "consume.queue-deleted" => deliveries::queue_deleted,
        "consume.no-ack" => deliveries::no_ack,
        "consume.requeue-on-close" => deliveries::requeue_on_close,
        "ack.unknown-tag" => deliveries::unknown_tag,
        "ack.twice" => deliveries::ack_twice,
        "exchange.declare" => entities::exchange_declare,
        "exchange.predeclared" => entities::exchange_predeclared,
        "exchange.missing" => entities::exchange_missing,
        "exchange.inequivalent" => entities::exchange_inequivalent,
        "exchange.reserved" => entities::exchange_reserved,
        "exchange.unknown-type" => entities::exchange_unknown_type,
        "exchange.delete" => entities::exchange_delete,
        "exchange.auto-delete" => entities::exchange_auto_delete,
        "exchange.internal" => entities::exchange_internal,
    );
    run_checks!(tally, broker,
        "queue.declare" => entities::queue_declare,
        "queue.server-named" => entities::queue_server_named,
        "queue.exclusive" => entities::queue_exclusive,
        "queue.auto-delete" => entities::queue_auto_delete,
        "queue.missing" => entities::queue_missing,
        "queue.inequivalent" => entities::queue_inequivalent,
        "queue.reserved" => entities::queue_reserved,
        "queue.argument-refused" => entities::queue_argument_refused,
        "queue.purge" => entities::queue_purge,
        "queue.delete" => entities::queue_delete,
        "binding.missing" => routes::binding_missing,
        "binding.unbind" => routes::binding_unbind,
        "route.default" => routes::default_exchange,
        "route.direct" => routes::direct,
        "route.fanout" => routes::fanout,
        "route.topic" => routes::topic,
        "route.headers" => routes::headers,
        "route.exchange-to-exchange" => routes::exchange_to_exchange,
        "route.once" => routes::once,
    );
}
