//! `apply DIR` declares the topology of a folder of YAML on a broker, without Kubernetes. It makes the same pass as the
//! operator and prints a table of what was done.
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

/// Applies the folder and returns whether everything in it is on the broker now.
///
/// # Errors
/// A folder that cannot be read, YAML that is wrong (all mistakes are listed), a broker that does not answer.
pub(crate) async fn apply(folder: &Path, url: &str) -> anyhow::Result<bool> {
    let folder = folder::read(folder)?;
    let client = Client::from_url(url)?;
    let resources = folder.resources.iter().map(|placed| placed.resource.clone()).collect();
    let outcomes = reconcile::pass(&client, resources, false).await?;
    let ready = outcomes.iter().all(|outcome| matches!(outcome, Outcome::Ready { .. }));
    table::print(&folder, &outcomes);
    Ok(ready)
}
