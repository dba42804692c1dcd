//! The command line: `serve` with the flags of the settings, `config`, and `cluster`.
use crate::cluster::{self, ClusterCommand};
use crate::config::settings::{GivenIn, Setting, settings};
use clap::{Arg, ArgAction, ArgMatches, Command};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A request from the command line.
pub(crate) enum Request {
    /// Run the broker.
    Serve(Given),
    /// Print the annotated configuration file.
    Config,
    /// Show or change the cluster of a running node.
    Cluster(ClusterCommand),
}

/// The values that the command line and the environment give.
#[derive(Default)]
pub(crate) struct Given {
    /// The configuration file.
    pub(crate) file: Option<PathBuf>,
    /// Values by the key of their setting. The command line comes before the environment.
    pub(crate) values: BTreeMap<&'static str, String>,
}

/// Returns the request of the command line. Ends the process if the command line is wrong, or asks for help or the
/// version.
pub(crate) fn parse() -> Request {
    request(&command().get_matches())
}

fn request(matches: &ArgMatches) -> Request {
    let serve = match matches.subcommand() {
        Some(("serve", serve)) => serve,
        Some(("cluster", asked)) => return cluster::parse(asked).map_or(Request::Config, Request::Cluster),
        _ => return Request::Config,
    };
    let value = |setting: &Setting| {
        let values: Vec<&str> = serve.get_many::<String>(setting.key)?.map(String::as_str).collect();
        Some((setting.key, values.join(",")))
    };
    let values = settings().iter().filter(|setting| setting.source != GivenIn::File).filter_map(value).collect();
    Request::Serve(Given { file: serve.get_one::<PathBuf>(CONFIG).cloned(), values })
}

fn command() -> Command {
    let file = Arg::new(CONFIG)
        .long(CONFIG)
        .env("LEVERET_CONFIG")
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file (TOML); `leveret config` prints one");
    let serve = Command::new("serve")
        .about("Run the broker until SIGTERM or SIGINT")
        .after_help("The order of precedence: option, environment, file, default.")
        .arg(file)
        .args(settings().iter().filter_map(flag));
    Command::new("leveret")
        .version(env!("CARGO_PKG_VERSION"))
        .about("An AMQP message broker")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(serve)
        .subcommand(cluster::command())
        .subcommand(Command::new("config").about("Print the annotated default configuration file"))
}

/// Returns the flag of a setting, unless only the file has it.
fn flag(setting: &'static Setting) -> Option<Arg> {
    let (value_name, is_secret) = match setting.source {
        GivenIn::File => return None,
        GivenIn::Anywhere(value_name) => (value_name, false),
        GivenIn::Secret(value_name) => (value_name, true),
        GivenIn::List(value_name) => (value_name, false),
    };
    let is_list = matches!(setting.source, GivenIn::List(_));
    let flag = Arg::new(setting.key).long(&*setting.flag).env(&*setting.variable).value_name(value_name);
    let flag = if is_list { flag.action(ArgAction::Append).value_delimiter(',') } else { flag };
    Some(flag.hide_env_values(is_secret).help(setting.summary()))
}

const CONFIG: &str = "config";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setting_has_a_flag() {
        command().debug_assert();
        let line = ["leveret", "serve", "--config", "f", "--amqp", "a:1", "--default-pass", "secret"];
        let Request::Serve(given) = request(&command().get_matches_from(line)) else { panic!("no request to serve") };
        assert_eq!(given.file, Some("f".into()));
        assert_eq!(given.values["amqp"], "a:1");
        assert_eq!(given.values["default_pass"], "secret");
        assert!(command().try_get_matches_from(["leveret", "serve", "--node-name", "n"]).is_err());
        let line = ["leveret", "serve", "--peer", "a:1", "--peer", "b:2,c:3"];
        let Request::Serve(given) = request(&command().get_matches_from(line)) else { panic!("no request to serve") };
        assert_eq!(given.values["peer"], "a:1,b:2,c:3");
    }
}
