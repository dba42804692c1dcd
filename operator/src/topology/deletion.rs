//! Resources that are being deleted: what happens on the broker first.
use super::kinds::{Actual, Found};
use super::object::{Key, Object};
use super::outcome::Outcome;
use leveret_api::DeletionPolicy;
use leveret_client::{Client, Error};

/// Takes the object from the broker as its policy says, or says what holds it there.
pub(super) async fn delete(client: &Client, actual: &Actual, object: &Object, owner: Option<&Key>) -> Outcome {
    let let_go = |message: String| Outcome::LetGo { message };
    let what = object.wanted.describe();
    if let Some(owner) = owner {
        return let_go(format!("{what} stays on the broker: it belongs to {owner}"));
    }
    if object.deletion_policy == DeletionPolicy::Retain {
        return let_go(format!("{what} stays on the broker"));
    }
    let found = object.wanted.find(actual);
    if found == Found::Missing {
        return let_go(format!("{what} was not on the broker"));
    }
    let with_messages = object.deletion_policy == DeletionPolicy::Delete;
    match object.wanted.delete(client, actual, with_messages).await {
        Ok(()) | Err(Error::NotFound(_)) => let_go(format!("{what} was deleted from the broker")),
        Err(Error::Refused { reason, .. }) => {
            let held = match found {
                Found::Equal(Some((ready, unacked, _))) if ready + unacked > 0 => {
                    format!("{ready} messages ready and {unacked} unacknowledged hold {what}; ")
                }
                _ => String::new(),
            };
            let advice = "consume or purge them, or set deletionPolicy to Delete or Retain";
            Outcome::Waiting { reason: "NotEmpty", message: format!("{held}{advice}. The broker says: {reason}") }
        }
        Err(error) => Outcome::Waiting { reason: "BrokerUnavailable", message: error.to_string() },
    }
}
