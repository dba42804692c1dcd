//! The command line: `serve` with the flags of the settings, and `config`.
use crate::config::settings::{GivenIn, Setting, settings};
use clap::{Arg, ArgMatches, Command};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A request from the command line.
pub(crate) enum Request {
    /// Run the broker.
    Serve(Given),
    /// Print the annotated configuration file.
    Config,
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
    let Some(("serve", serve)) = matches.subcommand() else { return Request::Config };
    let value = |setting: &Setting| Some((setting.key, serve.get_one::<String>(setting.key)?.clone()));
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
        .subcommand(Command::new("config").about("Print the annotated default configuration file"))
}

/// Returns the flag of a setting, unless only the file has it.
fn flag(setting: &'static Setting) -> Option<Arg> {
    let (value_name, is_secret) = match setting.source {
        GivenIn::File => return None,
        GivenIn::Anywhere(value_name) => (value_name, false),
        GivenIn::Secret(value_name) => (value_name, true),
    };
    let flag = Arg::new(setting.key).long(&*setting.flag).env(&*setting.variable).value_name(value_name);
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
    }
}
