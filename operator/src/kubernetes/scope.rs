//! The namespaces that the operator looks after.
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// A list of namespaces; an empty one means all namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Scope(pub(crate) Vec<String>);

impl Scope {
    /// Returns one API handle per namespace, or one for all namespaces.
    pub(crate) fn apis<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
        &self,
        client: &Client,
    ) -> Vec<Api<K>> {
        if self.0.is_empty() {
            return vec![Api::all(client.clone())];
        }
        self.0.iter().map(|namespace| Api::namespaced(client.clone(), namespace)).collect()
    }
}
