//! Observes the nodes of a Broker: reads their pods and claims, and asks the brokers in the pods.
use super::login::{Login, Logins};
use super::nodes::{BrokerNode, BrokerNodes, NodeAnswer};
use super::{Work, build, pods};
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::{Api, ResourceExt};
use leveret_api::Broker;
use leveret_client::{Client, ClusterStatus, Error};
use std::time::Duration;

/// Reads the pods and the claims of all nodes that a Broker can have, and asks the brokers that run.
pub(super) async fn observe(work: &Work, broker: &Broker, logins: Option<&Logins>) -> kube::Result<BrokerNodes> {
    let nodes = (0..NODES_MAX).map(|ordinal| observe_node(work, broker, logins, ordinal));
    futures::future::try_join_all(nodes).await.map(BrokerNodes)
}

async fn observe_node(work: &Work, broker: &Broker, logins: Option<&Logins>, ordinal: i32) -> kube::Result<BrokerNode> {
    let (client, namespace) = (&work.context.client, broker.namespace().unwrap_or_default());
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace);
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let (pod_name, claim_name) = (build::pod_name(broker, ordinal), build::claim_name(broker, ordinal));
    let (pod, claim) = tokio::try_join!(pods.get_opt(&pod_name), claims.get_opt(&claim_name))?;
    let answer = match pod.as_ref().and_then(|pod| url(work, pod)).zip(logins) {
        Some((url, logins)) => ask(&url, logins).await,
        None => NodeAnswer::default(),
    };
    Ok(BrokerNode { ordinal, address: build::node_address(broker, ordinal), pod, claim, answer })
}

/// Returns the URL of the management API in a pod; `None` if no broker runs in it.
pub(super) fn url(work: &Work, pod: &Pod) -> Option<String> {
    let address = pod.status.as_ref()?.pod_ip.as_ref()?;
    pods::is_running(pod).then(|| (work.management)(address))
}

/// Returns the URL of the management API of the broker in the pod with this IP address.
pub(super) fn management(address: &str) -> String {
    let host = if address.contains(':') { format!("[{address}]") } else { address.to_owned() };
    format!("http://{host}:{}", build::HTTP)
}

/// Asks a broker what it says of itself and of its cluster.
async fn ask(url: &str, logins: &Logins) -> NodeAnswer {
    let without_answer = |error: &Error| NodeAnswer { lacks: Some(error.to_string()), ..NodeAnswer::default() };
    let client = match client(url, &logins.current) {
        Ok(client) => client,
        Err(error) => return without_answer(&error),
    };
    let lacks = match client.readiness().await {
        Ok(()) => None,
        Err(Error::Refused { status: 503, reason }) => Some(reason),
        Err(error) => return without_answer(&error),
    };
    let answered = match cluster(&client, url, logins).await {
        Ok(answered) => answered,
        Err(error) => return NodeAnswer { lacks: lacks.or_else(|| Some(error.to_string())), ..NodeAnswer::default() },
    };
    let Answered { client, cluster } = answered;
    let (overview, alarms) = tokio::join!(client.overview(), client.alarms());
    NodeAnswer {
        lacks,
        is_alone: cluster.is_none(),
        cluster,
        connections: overview.map_or(0, |overview| overview.object_totals.connections),
        alarms: alarms.unwrap_or_default(),
    }
}

/// A client whose login was accepted, and the cluster; `None` if the broker is no part of one.
struct Answered {
    client: Client,
    cluster: Option<ClusterStatus>,
}

/// Asks for the cluster. While a changed password is on its way to the pods, the previous one is tried too.
async fn cluster(client: &Client, url: &str, logins: &Logins) -> Result<Answered, Error> {
    let answered = |client: Client, cluster| Answered { client, cluster };
    let refused = match cluster_of(client).await {
        Err(error @ Error::Unauthorized { .. }) => error,
        cluster => return Ok(answered(client.clone(), cluster?)),
    };
    let Some(previous) = &logins.previous else { return Err(refused) };
    let client = self::client(url, previous)?;
    let cluster = cluster_of(&client).await?;
    Ok(answered(client, cluster))
}

async fn cluster_of(client: &Client) -> Result<Option<ClusterStatus>, Error> {
    match client.cluster().await {
        Err(Error::NotFound(_)) => Ok(None),
        cluster => cluster.map(Some),
    }
}

/// Returns a client of one broker that does not wait long for an answer.
fn client(url: &str, login: &Login) -> Result<Client, Error> {
    Ok(Client::new(url, &login.username, &login.password)?.within(ANSWER_MAX))
}

/// Returns a client for changes of the cluster, which has the login that the broker at the URL accepts.
///
/// # Errors
/// The broker does not answer, or accepts no login.
pub(super) async fn client_for_changes(url: &str, logins: &Logins) -> Result<Client, Error> {
    let Answered { client, .. } = cluster(&client(url, &logins.current)?, url, logins).await?;
    Ok(client.within(CHANGE_MAX))
}

/// The most nodes that a Broker can have.
const NODES_MAX: i32 = 5;
/// How long a broker may take to answer a question.
const ANSWER_MAX: Duration = Duration::from_secs(3);
/// How long a broker may take to change its cluster.
const CHANGE_MAX: Duration = Duration::from_secs(25);
