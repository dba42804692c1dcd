//! Agreement between the definitions and the shards. A queue is declared in the log of the definitions first and in that of
//! its shard next, and it is deleted in the same order; if the node ends in between, the shard lacks a queue or has one too
//! many. A start finds both and makes up for it. The identity of a queue is never used again, so a queue that the
//! definitions do not have was deleted.
use crate::Broker;
use crate::effects::declaration;
use crate::queue::QueueId;
use crate::replica::Replicas;
use crate::shard::ShardDefinition;
use crate::storage::Storage;
use leveret_engine::catalog::Catalog;
use std::collections::BTreeMap;

/// What the logs of the shards lack.
pub(crate) struct Disagreement(Vec<ShardDefinition>);

impl Broker {
    /// Compares the queues of the shards with the definitions. A queue that was deleted is not served any more.
    pub(crate) fn compare(&self, replicas: &Replicas) -> Disagreement {
        let mut lacking = declared(&self.catalog());
        let mut found = Vec::new();
        for replica in replicas.iter() {
            for queue in replica.queues() {
                let id = queue.queue.id;
                if lacking.remove(&id).is_none() {
                    self.node().queues.by_id.write().remove(&id);
                    drop(queue.queue.close());
                    found.push(ShardDefinition::Delete(id));
                }
            }
        }
        found.extend(lacking.into_values());
        Disagreement(found)
    }

    /// Has the logs of the shards get what they lack, and waits until the queues that were missing are there.
    pub(crate) async fn agree(&self, storage: &Storage, Disagreement(found): Disagreement) {
        for definition in &found {
            storage.shards.shard(definition.queue()).define(definition);
        }
        if !found.is_empty() {
            tracing::info!(queues = found.len(), "declarations or deletions that were cut short are completed");
            for shard in &storage.shards.list {
                shard.until_visible().await;
            }
        }
    }
}

/// Returns the declarations of all queues that are logged.
fn declared(catalog: &Catalog) -> BTreeMap<QueueId, ShardDefinition> {
    let mut all = BTreeMap::new();
    for vhost in catalog.vhosts() {
        for (name, queue) in catalog.queues(vhost).into_iter().flatten().filter(|(_, queue)| queue.is_logged()) {
            all.insert(queue.id, declaration(vhost, name, queue));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use crate::definitions;
    use crate::queue::QueueId;
    use crate::test_node::{TestNode, in_paused_time};
    use crate::{Caller, DeleteOnly};
    use leveret_engine::catalog::{DeclaredQueue, Fact};
    use leveret_journal::faulty::FaultyDisk;
    use leveret_model::table::FieldTable;
    use std::sync::Arc;

    #[test]
    fn a_queue_whose_shard_lacks_its_declaration_or_its_deletion_is_put_right_at_the_start() {
        in_paused_time(async {
            let disk = FaultyDisk::new(1);
            let node = TestNode::open(Arc::new(disk.clone())).await;
            let deleted = node.declare("deleted").await;
            node.publish_one_by_one(&deleted, 0..20, 1000).await;
            // The log of the definitions gets these, and the node ends before those of the shards do.
            let (vhost, name): (Arc<str>, Arc<str>) = ("/".into(), "declared".into());
            let declared = DeclaredQueue::durable(QueueId(1_000), false, FieldTable::default());
            let facts = [declared.into_fact(vhost.clone(), name), Fact::QueueGone { vhost, name: "deleted".into() }];
            let entry = definitions::encode(7, &facts);
            node.storage().groups.write(0, entry.into()).await.unwrap();
            disk.crash();
            node.broker.stop();
            for _ in 0..2 {
                let node = TestNode::open(Arc::new(disk.clone())).await;
                let find = |name| node.broker.find_queue(&Caller::system(), "/", name);
                let declared = find("declared").unwrap();
                assert!(find("deleted").is_err());
                assert_eq!(node.broker.durable_queues().len(), 1);
                node.publish_one_by_one(&declared, 0..5, 1000).await;
                assert_eq!(node.drain(&declared).await, (0..5).collect::<Vec<_>>());
                node.until("what the deleted queue held is free", || {
                    node.shards().all_contents().all(|(_, contents)| contents.len() == 0)
                })
                .await;
                node.close().await;
            }
            let node = TestNode::open(Arc::new(disk.clone())).await;
            node.broker.delete_queue(&Caller::system(), "/", "declared", DeleteOnly::default()).await.unwrap();
            node.close().await;
        });
    }
}
