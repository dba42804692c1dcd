//! The kinds of resources that stand for an object on a broker: one file per kind, and one list of all kinds.
//!
//! To add a kind, implement [`Kind`] for its resource in a file of its own in this folder, and add a line to the list at
//! the end of this file. The passes over a broker, the watches, `apply`, the printed definitions (`crds`) and the tests
//! of the definitions, of the chart's rights and of the samples all read that list.
mod binding;
mod comparison;
#[macro_use]
mod dispatch;
mod exchange;
mod field;
mod queue;
#[cfg(test)]
mod tests;

pub(crate) use comparison::{Comparison, Correction, Numbers};
pub(crate) use field::FieldError;

use k8s_openapi::NamespaceResourceScope;
#[cfg(feature = "kubernetes")]
use kube::core::ApiResource;
use kube::{CustomResourceExt, Resource};
use leveret_api::{Binding, BrokerRef, DeletionPolicy, Exchange, Queue, SpecArguments, TopologyStatus};
use leveret_client::{Client, DeleteOnly, Error, Made};
use serde::de::DeserializeOwned;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt::Debug;

/// Everything that the operator knows about a kind. Implemented by the resource type, as the API server stores it.
pub(crate) trait Kind:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + CustomResourceExt
    + DeserializeOwned
    + Clone
    + Debug
    + Send
    + Sync
    + 'static
{
    /// The object on the broker, as the management API shows and takes it.
    type Object: Into<BrokerObject> + Clone + Debug + PartialEq + Send + Sync;

    /// The place in the order of declaration: objects of a lower rank are declared first and deleted last. Ranks are
    /// spaced so that a new kind fits between two others.
    const RANK: u8;

    /// Returns the Broker that the resource refers to.
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "`apply` is told which broker"))]
    fn broker(&self) -> &BrokerRef;

    /// Returns what happens to the object when the resource is deleted.
    fn deletion_policy(&self) -> DeletionPolicy;

    /// Returns the status of the resource, as it was last written.
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "only Kubernetes stores a status"))]
    fn status(&self) -> Option<&TopologyStatus>;

    /// Returns the object that the resource wants. `name` is the resource's own name.
    fn object(&self, name: &str) -> Self::Object;

    /// Makes the checks that the API server makes with the kind's definition, for `apply`.
    ///
    /// # Errors
    /// The first field that is wrong.
    fn check(object: &Self::Object) -> Result<(), FieldError>;

    /// Returns the identity of the object: two resources with the same identity want the same object.
    fn identity(object: &Self::Object) -> Identity;

    /// Returns the object in words, for messages: `queue 'x' in vhost '/'`.
    fn describe(object: &Self::Object) -> String;

    /// Returns which lists of the broker a pass needs if one of its resources is of this kind.
    fn lists() -> Lists;

    /// Returns all objects of this kind on the broker that a resource could want.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    async fn list(client: &Client) -> Result<Vec<Self::Object>, Error>;

    /// Returns, in words, what is missing on the broker and has to exist before the object can be declared; `None` if
    /// nothing is.
    fn missing_requirements(object: &Self::Object, inventory: &Inventory) -> Option<String>;

    /// Compares the wanted object with the `existing` one of the same identity.
    fn compare(wanted: &Self::Object, existing: Option<&Self::Object>, inventory: &Inventory) -> Comparison;

    /// Declares the object.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    async fn declare(object: &Self::Object, client: &Client) -> Result<Made, Error>;

    /// Asks the broker for this one object and returns whether it has it.
    ///
    /// # Errors
    /// The broker does not answer, or refuses. [`Error::NotFound`] and [`Error::Unexpected`] count as "no".
    async fn exists(object: &Self::Object, client: &Client) -> Result<bool, Error>;

    /// Deletes the object under the conditions in `only`. `existing` is the listed object of the same identity.
    ///
    /// # Errors
    /// The broker does not answer, or refuses.
    async fn delete(
        object: &Self::Object,
        existing: Option<&Self::Object>,
        client: &Client,
        only: DeleteOnly,
    ) -> Result<(), Error>;

    /// Returns whether the broker declares the object by itself; such an object is never deleted.
    fn is_predeclared(_: &Self::Object) -> bool {
        false
    }

    /// Returns the numbers of an object that was declared just now, if objects of this kind have numbers.
    fn empty_numbers() -> Option<Numbers> {
        None
    }

    /// Sets the fields that make up the object's identity and cannot be changed to the values that were declared, which
    /// `status` has. Returns what is wrong with the spec if it asks for other values.
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "only Kubernetes stores a status"))]
    fn keep_declared(_: &mut Self::Object, _: &TopologyStatus) -> Option<String> {
        None
    }

    /// Returns the arguments that are kept in the status, for [`Kind::keep_declared`].
    #[cfg_attr(not(feature = "kubernetes"), allow(dead_code, reason = "only Kubernetes stores a status"))]
    fn declared_arguments(_: &Self::Object) -> Option<SpecArguments> {
        None
    }
}

/// The identity of an object on a broker: its kind, and the names that distinguish it from others of its kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Identity {
    kind: Cow<'static, str>,
    names: Vec<String>,
}

impl Identity {
    fn of<K: Kind>(names: &[&str]) -> Self {
        Self { kind: K::kind(&()), names: names.iter().map(|name| (*name).to_owned()).collect() }
    }
}

impl Inventory {
    /// Returns the virtual host in words if the broker does not have it, otherwise `None`.
    fn missing_vhost(&self, vhost: &str) -> Option<String> {
        (!self.vhosts.contains_key(vhost)).then(|| format!("vhost '{vhost}'"))
    }
}

/// Returns the phase of a pass in which an object of a `rank` is declared or, in the opposite order, deleted.
fn phase(rank: u8, deleting: bool) -> u8 {
    let (lowest, highest) = (RANKS.iter().min().unwrap_or(&rank), RANKS.iter().max().unwrap_or(&rank));
    if deleting { lowest + (highest - rank) } else { rank }
}

/// A piece of work that is done once for each kind.
pub(crate) trait KindVisitor {
    /// Does the work for the kind `K`.
    fn visit<K: Kind>(&mut self);
}

/// Returns a list, or an empty one without asking the broker if the list is not `needed`.
async fn list_if<K: Kind>(needed: bool, client: &Client) -> Result<HashMap<Identity, K::Object>, Error> {
    if !needed {
        return Ok(HashMap::new());
    }
    let objects = K::list(client).await?;
    Ok(objects.into_iter().map(|object| (K::identity(&object), object)).collect())
}

// The list of all kinds: the name of the broker's list, and the kind.
kinds! {
    exchanges: Exchange,
    queues: Queue,
    bindings: Binding,
}
