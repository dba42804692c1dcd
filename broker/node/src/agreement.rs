//! Agreement between the definitions and a shard. A queue is declared in the log of the definitions first and in that of its
//! shard next, and it is deleted in the same order; if the node ends in between, the shard lacks a queue or has one too many.
//! The node that begins to lead the shard finds both and makes up for it. The identity of a queue is never used again, so a
//! queue that the definitions do not have, although they have had its identity, was deleted.
use crate::Node;
use crate::effects::declaration;
use crate::replica::{Replica, ReplicaQueue};
use crate::shard::{Shard, ShardDefinition};
use crate::shards::Shards;
use leveret_engine::catalog::{Catalog, DeclaredQueue};

/// Has the log of a shard get the declarations and deletions that it lacks. Returns how many these are. To be called when
/// this node has begun to lead the shard.
pub(crate) fn agree(node: &Node, shards: &Shards, shard: &Shard, replica: &Replica) -> usize {
    // What is declared or deleted from now on is logged after this, and by this node: the lock is kept until all is said.
    let catalog = node.catalog.read();
    let mut found = deletions(node, &catalog, replica);
    found.extend(declarations(&catalog, shards, shard, replica));
    found.iter().for_each(|definition| shard.define(definition));
    drop(catalog);
    if !found.is_empty() {
        tracing::info!(group = shard.group, queues = found.len(), "what was declared or deleted halfway is completed");
    }
    found.len()
}

/// Returns the deletions that the shard lacks. The queues are not served any more.
fn deletions(node: &Node, catalog: &Catalog, replica: &Replica) -> Vec<ShardDefinition> {
    let mut found = Vec::new();
    for ReplicaQueue { queue, .. } in replica.queues() {
        let is_named = catalog.queue_id(&queue.vhost, &queue.name) == Some(queue.id);
        if !is_named && queue.id.0 < catalog.next_identity() {
            drop(node.queues.stop_serving(queue.id));
            found.push(ShardDefinition::Delete(queue.id));
        }
    }
    found
}

/// Returns the declarations that the shard lacks.
fn declarations(catalog: &Catalog, shards: &Shards, shard: &Shard, replica: &Replica) -> Vec<ShardDefinition> {
    let lacks = |queue: &DeclaredQueue| {
        let is_here = queue.is_logged() && shards.shard(queue.id).group == shard.group;
        is_here && replica.queue(queue.id).is_none()
    };
    let lacking = catalog.all_queues().filter(|(_, _, queue)| lacks(queue));
    lacking.map(|(vhost, name, queue)| declaration(vhost, name, queue)).collect()
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
