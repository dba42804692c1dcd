//! The place of an object at the API server: kind, namespace and name.
use k8s_openapi::NamespaceResourceScope;
use kube::Resource;
use kube::api::ApiResource;

/// The kind, the namespace and the name of an object.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) resource: ApiResource,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Place {
    pub(crate) fn new(resource: ApiResource, namespace: &str, name: &str) -> Self {
        Self { resource, namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub(crate) fn of<K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>>(
        namespace: &str,
        name: &str,
    ) -> Self {
        Self::new(ApiResource::erase::<K>(&()), namespace, name)
    }

    pub(crate) fn kind(&self) -> &str {
        &self.resource.kind
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.resource.kind, self.namespace, self.name)
    }
}
