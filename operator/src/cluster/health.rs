//! The health of a Broker: the reason why its pods are not ready or, if they are, the answers of the broker.
use super::connect;
use super::pods::{self, PodCounts, Trouble};
use k8s_openapi::api::apps::v1::StatefulSet;
use kube::Client;
use leveret_api::Broker;
use leveret_client::Overview;

/// The health of a Broker.
#[derive(Debug)]
pub(super) enum Health {
    /// Not all pods are ready; the reason, if one is known.
    PodsNotReady(Option<Trouble>),
    /// All pods are ready, and the broker was asked.
    PodsReady {
        /// The broker's numbers, or the reason why the operator or a client gets no answer.
        overview: Result<Overview, String>,
        /// The resources that the broker has run short of.
        alarms: Vec<String>,
    },
}

impl Health {
    pub(super) fn is_up(&self) -> bool {
        matches!(self, Self::PodsReady { .. })
    }

    pub(super) fn is_answering(&self) -> bool {
        matches!(self, Self::PodsReady { overview: Ok(_), .. })
    }
}

/// Looks for the reason why pods of the StatefulSet are not ready, or asks the broker if all are.
pub(super) async fn observe(client: &Client, broker: &Broker, set: Option<&StatefulSet>) -> kube::Result<Health> {
    if !PodCounts::of(broker, set).are_ready() {
        let Some(set) = set else { return Ok(Health::PodsNotReady(None)) };
        if !pods::are_uncounted(client, broker, set).await? {
            return Ok(Health::PodsNotReady(pods::trouble(client, broker, set).await?));
        }
    }
    let (session, greeting) = tokio::join!(connect::client(client, broker), connect::amqp(broker));
    Ok(match session {
        Ok(session) => {
            let alarms = session.client.alarms().await.unwrap_or_default();
            let overview = greeting.map(|()| session.overview).map_err(|error| format!("{error:#}"));
            Health::PodsReady { overview, alarms }
        }
        Err(error) => Health::PodsReady { overview: Err(format!("{error:#}")), alarms: Vec::new() },
    })
}
