//! What was done, a line a resource, failures last.
use super::folder::Content;
use crate::topology::outcome::{Done, Outcome};

/// Prints the table.
#[expect(clippy::print_stdout, reason = "the answer of the command")]
pub(super) fn print(content: &Content, outcomes: &[Outcome]) {
    let mut lines: Vec<(bool, String, &str, String)> = Vec::new();
    for (place, what) in &content.skipped {
        lines.push((false, what.clone(), "skipped", format!("needs Kubernetes ({place})")));
    }
    for ((place, object), outcome) in content.objects.iter().zip(outcomes) {
        let (failed, word, text) = match outcome {
            Outcome::Ready { done: Done::Nothing, .. } => (false, "unchanged", object.wanted.describe()),
            Outcome::Ready { done: Done::Replaced(_), .. } => (false, "updated", object.wanted.describe()),
            Outcome::Ready { .. } => (false, "created", object.wanted.describe()),
            Outcome::LetGo { message } => (false, "deleted", message.clone()),
            Outcome::Waiting { message, .. } => (true, "waiting", format!("{message} ({place})")),
            Outcome::Refused { message, .. } => (true, "refused", format!("{message} ({place})")),
        };
        lines.push((failed, object.key.to_string(), word, text));
    }
    lines.sort_by_key(|(failed, ..)| *failed);
    let width = lines.iter().map(|(_, what, ..)| what.len()).max().unwrap_or(0);
    for (_, what, word, text) in &lines {
        println!("{what:width$}  {word:9}  {text}");
    }
}
