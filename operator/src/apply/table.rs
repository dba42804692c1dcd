//! The table of what was done: one line per resource, failures last.
use super::folder::{Folder, PlacedResource, SkippedResource};
use crate::topology::outcome::{Effect, Outcome};

/// A line of the table.
struct Line {
    failed: bool,
    /// The kind and the name of the resource.
    resource: String,
    /// One word for what was done.
    result: &'static str,
    details: String,
}

/// Prints the table.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn print(folder: &Folder, outcomes: &[Outcome]) {
    let skipped = folder.skipped.iter().map(|SkippedResource { place, what }| Line {
        failed: false,
        resource: what.clone(),
        result: "skipped",
        details: format!("needs Kubernetes ({place})"),
    });
    let done = folder.resources.iter().zip(outcomes).map(|(resource, outcome)| line(resource, outcome));
    let mut lines: Vec<_> = skipped.chain(done).collect();
    lines.sort_by_key(|line| line.failed);
    let width = lines.iter().map(|line| line.resource.len()).max().unwrap_or(0);
    for Line { resource, result, details, .. } in &lines {
        println!("{resource:width$}  {result:9}  {details}");
    }
}

fn line(PlacedResource { place, resource }: &PlacedResource, outcome: &Outcome) -> Line {
    let (failed, result, details) = match outcome {
        Outcome::Ready { effect: Effect::Unchanged, .. } => (false, "unchanged", resource.wanted.describe()),
        Outcome::Ready { effect: Effect::Replaced(_), .. } => (false, "updated", resource.wanted.describe()),
        Outcome::Ready { .. } => (false, "created", resource.wanted.describe()),
        Outcome::LetGo { message } => (false, "deleted", message.clone()),
        Outcome::Waiting { message, .. } => (true, "waiting", format!("{message} ({place})")),
        Outcome::Refused { message, .. } => (true, "refused", format!("{message} ({place})")),
    };
    Line { failed, resource: resource.key.to_string(), result, details }
}
