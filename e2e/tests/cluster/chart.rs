//! Tests of the rendered chart with various values, without installing it.

use anyhow::{Context, Result, ensure};
use leveret_e2e::programs;

use crate::world::helm;

/// Runs a helm command on the chart for a release, and returns its output.
fn rendered(command: &[&str], release: &str, values: &[&str]) -> Result<String> {
    let chart = programs::root().join("charts/leveret");
    let chart = chart.to_str().context("the path is not UTF-8")?;
    let named = [release, chart, "--namespace", "chart-test", "--set", "registry=registry.example.com/team"];
    helm(&[command, &named, values].concat())
}

/// Returns the value of an environment variable of the operator, if it is set.
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
        // The role allows access to this lease only.
        ensure!(
            yaml.contains(&format!("resourceNames: [{lease}]")),
            "{release} has no permissions for its lease {lease}"
        );
        ensure!(!leases.contains(&lease), "{release} has the lease of another: {lease}");
        leases.push(lease);
    }
    Ok(())
}

#[test]
fn the_operator_gets_the_pull_secrets_for_broker_images() -> Result<()> {
    let variable = |values: &[&str]| {
        Ok::<_, anyhow::Error>(variable(&rendered(&["template"], "leveret", values)?, "LEVERET_BROKER_PULL_SECRETS"))
    };
    ensure!(variable(&[])?.is_none(), "the variable is set although no pull secrets are given");
    let given = ["--set", "broker.imagePullSecrets[0].name=team", "--set", "broker.imagePullSecrets[1].name=mirror"];
    let told = variable(&given)?;
    ensure!(told.as_deref() == Some("team,mirror"), "{told:?}");
    ensure!(rendered(&["template"], "leveret", &["--set-string", "image.tag=20260101"])?.contains(":20260101"));
    Ok(())
}

#[test]
fn the_notes_say_how_to_uninstall_without_hanging_and_without_deleting_objects_of_others() -> Result<()> {
    // Without the CRDs, as helm would refuse to render them if another release has installed them in the cluster.
    let install = ["install", "--dry-run=client", "--set", "crds.install=false"];
    let place =
        |notes: &str, what: &str| notes.find(what).with_context(|| format!("{what} is not in the notes:\n{notes}"));
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
        ensure!(
            brokers < others,
            "brokers are not deleted first, so a queue with messages would wait for ever:\n{notes}"
        );
        ensure!(
            values.is_empty() || notes.contains("for namespace in one two; do") && !notes.contains("--all-namespaces"),
            "{notes}"
        );
    }
    Ok(())
}
