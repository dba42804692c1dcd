//! Which namespaces are looked after.
use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// Namespaces; none means all.
#[derive(Clone, Debug)]
pub(crate) struct Scope(pub(crate) Vec<String>);

impl Scope {
    /// A handle on a kind for each of them, or one for all.
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
