//! The first step: reads the state of a Broker in the cluster before anything is decided.
use super::build;
use super::children::{foreign, owner_uid, typed};
use crate::kubernetes::child::{Ownership, inspect};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Secret};
use kube::{Api, Client, ResourceExt};
use leveret_api::Broker;
use serde::de::DeserializeOwned;

/// The objects that are read before the children can be built.
pub(super) struct Prerequisites {
    /// The Secret for applications.
    pub(super) public: Option<Secret>,
    /// The Secret for the pods.
    pub(super) private: Option<Secret>,
    /// The Secret that the nodes of the cluster share.
    pub(super) shared: Option<Secret>,
    pub(super) set: Option<StatefulSet>,
    /// The objects that have the name of a child and do not belong to the Broker, in words.
    pub(super) foreign: Vec<String>,
}

/// Reads the Secrets, the StatefulSet and the claims of a Broker.
pub(super) async fn gather(client: &Client, broker: &Broker) -> kube::Result<Prerequisites> {
    let owner = owner_uid(broker);
    let places = build::secret_places(broker);
    let set_place = build::set_place(broker);
    let (public, private, shared, set, mut foreign_objects) = tokio::try_join!(
        inspect(&places.public, client, &owner),
        inspect(&places.private, client, &owner),
        inspect(&places.shared, client, &owner),
        inspect(&set_place, client, &owner),
        foreign_claims(client, broker),
    )?;
    let read = [(&places.public, &public), (&places.private, &private), (&places.shared, &shared), (&set_place, &set)];
    for (place, ownership) in read {
        foreign_objects.extend(foreign(place, ownership));
    }
    Ok(Prerequisites {
        public: own(public)?,
        private: own(private)?,
        shared: own(shared)?,
        set: own(set)?,
        foreign: foreign_objects,
    })
}

/// Returns, in words, the claims that have the names that the StatefulSet would use but were not made by a StatefulSet
/// of this Broker's name.
async fn foreign_claims(client: &Client, broker: &Broker) -> kube::Result<Vec<String>> {
    let namespace = broker.namespace().unwrap_or_default();
    let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
    let mut names = Vec::new();
    for pod in 0..broker.spec.replicas {
        let name = build::claim_name(broker, pod);
        let Some(claim) = claims.get_opt(&name).await? else { continue };
        let labels = claim.labels();
        let is_ours = build::selector(broker).iter().all(|(name, value)| labels.get(name) == Some(value));
        if !is_ours {
            names.push(format!("PersistentVolumeClaim {namespace}/{name} (no StatefulSet of this Broker made it)"));
        }
    }
    Ok(names)
}

fn own<K: DeserializeOwned>(ownership: Ownership) -> kube::Result<Option<K>> {
    match ownership {
        Ownership::Ours(object) => typed(*object).map(Some),
        _ => Ok(None),
    }
}
