//! `leveret cluster`: asks a running node about its cluster over HTTP, or has it change the cluster.
use anyhow::{Context, bail};
use clap::{Arg, ArgMatches, Command};
use leveret_client::{Client, ClusterMember, ClusterStatus, Error};
use std::fmt::Write;
use std::time::{Duration, Instant};

/// What a running node is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ClusterCommand {
    /// The management API of the node: `http://HOST:PORT`.
    url: String,
    user: String,
    password: String,
    action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    /// Show the members.
    Status,
    /// Add the node at an address.
    Add(String),
    /// Remove the member with an identity, a name or an address.
    Remove(String),
    /// Let other nodes lead, within a time.
    Transfer(Duration),
}

/// Returns the subcommand of the command line.
pub(crate) fn command() -> Command {
    let option = |name: &'static str, variable: &'static str, default: &'static str, help: &'static str| {
        Arg::new(name).long(name).env(variable).default_value(default).hide_env_values(true).global(true).help(help)
    };
    let status = Command::new("status").about("Show the members, their states, and what they lead");
    let add = Command::new("add")
        .about("Add the empty node at an address; it votes once it has the entries")
        .arg(Arg::new("address").value_name("HOST:PORT").required(true));
    let remove = Command::new("remove")
        .about("Remove a member for good; its data folder has to be emptied before it can join again")
        .arg(Arg::new("member").value_name("MEMBER").required(true).help("Identity, name or address of the member"));
    let timeout = Arg::new("timeout").long("timeout").value_name("SECONDS").default_value("60");
    let transfer = Command::new("transfer")
        .about("Let other nodes lead what this node leads, and wait until all others have all entries")
        .after_help("For a node that is about to be stopped, for example in a preStop hook.")
        .arg(timeout.value_parser(clap::value_parser!(u64)).help("When to give up"));
    Command::new("cluster")
        .about("Show or change the cluster of a running node, over its management API")
        .subcommand_required(true)
        .arg(option("url", "LEVERET_URL", "http://127.0.0.1:15672", "The management API of the node: http://HOST:PORT"))
        .arg(option("user", "LEVERET_DEFAULT_USER", "guest", "The user to log in as"))
        .arg(option("password", "LEVERET_DEFAULT_PASS", "guest", "The password, better set in the environment"))
        .subcommands([status, add, remove, transfer])
}

/// Returns what the command line asks for; `None` if it has no subcommand, which clap does not let through.
pub(crate) fn parse(matches: &ArgMatches) -> Option<ClusterCommand> {
    let (name, action) = matches.subcommand()?;
    let text = |name: &str| action.get_one::<String>(name).cloned().unwrap_or_default();
    let (url, user, password) = (text("url"), text("user"), text("password"));
    let action = match name {
        "add" => Action::Add(text("address")),
        "remove" => Action::Remove(text("member")),
        "transfer" => Action::Transfer(Duration::from_secs(*action.get_one("timeout")?)),
        _ => Action::Status,
    };
    Some(ClusterCommand { url, user, password, action })
}

/// Carries out a command. Returns the text to be printed.
///
/// # Errors
/// What the node answered, or why it does not answer.
pub(crate) fn run(command: &ClusterCommand) -> anyhow::Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let client = Client::new(&command.url, &command.user, &command.password)?.within(REQUEST_MAX);
    runtime.block_on(async {
        match &command.action {
            Action::Status => client.cluster().await.map(|status| table(&status)).map_err(anyhow::Error::from),
            Action::Add(address) => {
                client.add_member(address).await?;
                Ok(format!("{address} was added\n"))
            }
            Action::Remove(member) => {
                client.remove_member(member).await?;
                Ok(format!("{member} was removed\n"))
            }
            Action::Transfer(limit) => transfer(&client, *limit).await,
        }
    })
}

async fn transfer(client: &Client, limit: Duration) -> anyhow::Result<String> {
    let begun = Instant::now();
    loop {
        match client.transfer_leaders().await {
            Ok(()) => return Ok("other nodes lead, and have all entries\n".to_owned()),
            Err(Error::Refused { status: 503, reason }) if begun.elapsed() >= limit => bail!("{reason}"),
            Err(Error::Refused { status: 503, .. }) => tokio::time::sleep(AGAIN).await,
            Err(error) => return Err(error).context("the leaders are not transferred"),
        }
    }
}

/// Returns the members as a table.
fn table(status: &ClusterStatus) -> String {
    let ClusterStatus { name, node, reason, members, .. } = status;
    let readiness = reason.as_ref().map_or_else(|| "ready".to_owned(), |reason| format!("not ready: {reason}"));
    let mut text = format!("cluster {name}, node {node}: {readiness}\n");
    let row = |member: &ClusterMember| {
        let leads: Vec<String> = member.leads.iter().map(u16::to_string).collect();
        let votes = if member.voter { "yes" } else { "no" };
        [
            member.node.clone(),
            member.name.clone().unwrap_or_else(|| "-".to_owned()),
            member.address.clone(),
            member.state.clone(),
            votes.to_owned(),
            if leads.is_empty() { "-".to_owned() } else { leads.join(",") },
        ]
    };
    let head = ["NODE", "NAME", "ADDRESS", "STATE", "VOTES", "LEADS"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(members.iter().map(row)).collect();
    let widths: Vec<usize> =
        (0..6).map(|column| rows.iter().map(|row| row[column].len()).max().unwrap_or_default()).collect();
    for row in rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end()); // writing to a string does not fail
    }
    text
}

/// The longest time that one request may take.
const REQUEST_MAX: Duration = Duration::from_secs(30);
/// Pause between two requests to transfer the leaders.
const AGAIN: Duration = Duration::from_millis(500);

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &[&str]) -> ClusterCommand {
        parse(&command().get_matches_from([&["cluster"], line].concat())).unwrap()
    }

    #[test]
    fn the_command_line_says_what_a_node_is_asked() {
        command().debug_assert();
        let status = parsed(&["status", "--url", "http://h:1", "--user", "u", "--password", "p"]);
        let expected = |action| ClusterCommand {
            url: "http://h:1".to_owned(),
            user: "u".to_owned(),
            password: "p".to_owned(),
            action,
        };
        assert_eq!(status, expected(Action::Status));
        assert_eq!(parsed(&["add", "a:1"]).action, Action::Add("a:1".to_owned()));
        assert_eq!(parsed(&["remove", "a:1"]).action, Action::Remove("a:1".to_owned()));
        assert_eq!(parsed(&["transfer", "--timeout", "7"]).action, Action::Transfer(Duration::from_secs(7)));
        assert!(command().try_get_matches_from(["cluster", "add"]).is_err());
    }

    #[test]
    fn the_status_is_a_table() {
        let member = |node: &str, name: Option<&str>, leads: &[u16]| ClusterMember {
            node: node.to_owned(),
            name: name.map(str::to_owned),
            address: "a:25672".to_owned(),
            state: "running".to_owned(),
            voter: name.is_some(),
            leads: leads.to_vec(),
        };
        let status = ClusterStatus {
            name: "c".to_owned(),
            node: "01".to_owned(),
            reason: Some("why".to_owned()),
            members: vec![member("01", Some("leveret@a"), &[0, 3]), member("02", None, &[])],
            ..ClusterStatus::default()
        };
        let expected = "cluster c, node 01: not ready: why\n\
            NODE  NAME       ADDRESS  STATE    VOTES  LEADS\n\
            01    leveret@a  a:25672  running  yes    0,3\n\
            02    -          a:25672  running  no     -\n";
        assert_eq!(table(&status), expected);
    }
}
