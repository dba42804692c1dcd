//! `apply DIR`: the topology of a folder of YAML on a broker, without Kubernetes. The same passes as the operator's; at
//! the end a table of what was done.
mod document;
mod fields;
mod folder;
mod list;
mod mistake;
mod table;

use crate::topology::outcome::Outcome;
use crate::topology::reconcile;
use leveret_client::Client;
use std::path::Path;

/// Applies the folder. Whether everything in it is on the broker now.
///
/// # Errors
/// A folder that cannot be read, YAML that is wrong (all places are named), a broker that does not answer.
pub(crate) async fn apply(folder: &Path, url: &str) -> anyhow::Result<bool> {
    let content = folder::read(folder)?;
    let client = Client::from_url(url)?;
    let objects = content.objects.iter().map(|(_, object)| object.clone()).collect();
    let outcomes = reconcile::pass(&client, objects, false).await?;
    let ready = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ready { .. }));
    table::print(&content, &outcomes);
    Ok(ready)
}
