//! What the chart makes of its values, without anything being installed.

use anyhow::{Context, Result, ensure};
use leveret_e2e::programs;

use crate::world::helm;

fn rendered(command: &[&str], release: &str, values: &[&str]) -> Result<String> {
    let chart = programs::root().join("charts/leveret");
    let chart = chart.to_str().context("the path is no text")?;
    let named = [release, chart, "--namespace", "chart-test", "--set", "registry=registry.example.com/team"];
    helm(&[command, &named, values].concat())
}

/// The value of a variable of the operator, if it is set.
fn variable(yaml: &str, name: &str) -> Option<String> {
    let mut lines = yaml.lines().skip_while(|line| line.trim() != format!("- name: {name}"));
    let value = lines.nth(1)?.trim().strip_prefix("value: ")?;
    Some(value.trim_matches('"').to_owned())
}

#[test]
fn two_releases_have_leases_of_their_own() -> Result<()> {
    let mut leases = Vec::new();
    for release in ["leveret", "leveret-two", "team-a", "team-b"] {
        let yaml = rendered(&["template"], release, &[])?;
        let lease = variable(&yaml, "LEVERET_LEASE").with_context(|| format!("{release} has no lease"))?;
        // The rights are for this lease, and no other.
        ensure!(yaml.contains(&format!("resourceNames: [{lease}]")), "{release} has no rights to its lease {lease}");
        ensure!(!leases.contains(&lease), "{release} has the lease of another: {lease}");
        leases.push(lease);
    }
    Ok(())
}

#[test]
fn brokers_get_the_secrets_that_their_images_are_pulled_with() -> Result<()> {
    let variable = |values: &[&str]| {
        Ok::<_, anyhow::Error>(variable(&rendered(&["template"], "leveret", values)?, "LEVERET_BROKER_PULL_SECRETS"))
    };
    ensure!(variable(&[])?.is_none(), "there are none unless they are given");
    let given = ["--set", "broker.imagePullSecrets[0].name=team", "--set", "broker.imagePullSecrets[1].name=mirror"];
    let told = variable(&given)?;
    ensure!(told.as_deref() == Some("team,mirror"), "{told:?}");
    ensure!(rendered(&["template"], "leveret", &["--set-string", "image.tag=20260101"])?.contains(":20260101"));
    Ok(())
}

#[test]
fn the_notes_say_how_to_uninstall_without_waiting_and_without_deleting_what_is_of_others() -> Result<()> {
    // Helm looks whether what is made for the whole cluster is another release's.
    let install = ["install", "--dry-run=client", "--set", "crds.install=false"];
    let place = |notes: &str, what: &str| notes.find(what).with_context(|| format!("{what} is not there:\n{notes}"));
    for (values, scope) in [
        (&[][..], "--all --all-namespaces"),
        (&["--set", "watchNamespaces={one,two}"][..], "--all --namespace $namespace"),
    ] {
        let notes = rendered(&install, "notes", values)?;
        let brokers = place(&notes, &format!("kubectl delete brokers.leveret.dev {scope}"))?;
        let others = place(
            &notes,
            &format!("kubectl delete bindings.leveret.dev,queues.leveret.dev,exchanges.leveret.dev {scope}"),
        )?;
        ensure!(brokers < others, "a queue with messages would wait for ever:\n{notes}");
        ensure!(
            values.is_empty() || notes.contains("for namespace in one two; do") && !notes.contains("--all-namespaces"),
            "{notes}"
        );
    }
    Ok(())
}
