//! Answers the questions of other nodes.
use super::change::LEAVE;
use super::question::{ClusterQuestion, ClusterReply};
use super::state::Cluster;
use bytes::Bytes;
use futures::future::BoxFuture;
use leveret_replication::PeerQuestions;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Answers the questions of other nodes for a node.
pub(super) struct ClusterAnswers(pub(super) Weak<Cluster>);

impl PeerQuestions for ClusterAnswers {
    fn answer(&self, from: u64, question: Bytes) -> BoxFuture<'static, Bytes> {
        let cluster = self.0.upgrade();
        Box::pin(async move {
            let reply = match (cluster, ClusterQuestion::decode(&question)) {
                (None, _) => ClusterReply::Refused("the node is stopping".to_owned()),
                (_, None) => ClusterReply::Refused("a question that this version does not know".to_owned()),
                (Some(cluster), Some(question)) => to_its_end(cluster, from, question).await,
            };
            reply.encode()
        })
    }
}

/// Answers in a task of its own: a change that was begun is completed even if the other node hangs up.
async fn to_its_end(cluster: Arc<Cluster>, from: u64, question: ClusterQuestion) -> ClusterReply {
    let answered = tokio::spawn(async move { cluster.reply(from, question).await });
    answered.await.unwrap_or_else(|_| ClusterReply::Refused("the answer failed".to_owned()))
}

impl Cluster {
    async fn reply(&self, from: u64, question: ClusterQuestion) -> ClusterReply {
        match question {
            ClusterQuestion::Report => ClusterReply::Report(Box::new(self.report())),
            ClusterQuestion::HandOver => {
                self.leave_for(LEAVE);
                match self.hand_over_all(Instant::now() + HAND_OVER_MAX).await.len() {
                    0 => ClusterReply::Done,
                    led => ClusterReply::Refused(format!("it still leads {led} groups")),
                }
            }
            change => match self.elsewhere() {
                Some(elsewhere) => elsewhere,
                None => self.carry_out(from, &change).await,
            },
        }
    }
}

/// The longest time that a member which is being removed takes to hand over its groups.
const HAND_OVER_MAX: Duration = Duration::from_secs(7);
