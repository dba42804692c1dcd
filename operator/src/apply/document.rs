//! Reads a document of YAML as a resource. A document that the API server would refuse is refused here too.
use super::{fields, list, mistake};
use crate::topology::kinds::{FieldError, Kind, KindVisitor, visit_kinds};
use crate::topology::resource::{Age, TopologyResource};
use kube::{CustomResourceExt, Resource};
use leveret_api::Broker;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// One document of a file.
pub(super) struct Document<'a> {
    /// The name of the file, for messages.
    pub(super) file: &'a str,
    /// The number of lines of the file before the document.
    pub(super) line: usize,
    pub(super) text: Cow<'a, str>,
}

/// The declaration in a document.
pub(super) enum Declaration {
    /// A resource that stands for an object on a broker.
    Resource(Arc<TopologyResource>),
    /// A resource that needs Kubernetes: its kind and name.
    NeedsKubernetes(String),
}

/// The fields of a document that name its kind.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypeMeta {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// A `kind: List`, read only to count its items.
#[derive(Deserialize)]
struct Items {
    #[serde(default)]
    items: Vec<IgnoredAny>,
}

/// A whole document. Unknown fields are refused; those inside `spec` are checked separately.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "the fields only have to be readable")]
struct Strict {
    api_version: String,
    kind: String,
    metadata: DocumentMetadata,
    spec: Value,
    #[serde(default)]
    status: IgnoredAny,
}

/// The metadata that people write, and the fields that the API server adds. The latter are accepted and ignored,
/// because every object that was read from a cluster has them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "the fields only have to be readable")]
struct DocumentMetadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(default)]
    creation_timestamp: IgnoredAny,
    #[serde(default)]
    deletion_timestamp: IgnoredAny,
    #[serde(default)]
    deletion_grace_period_seconds: IgnoredAny,
    #[serde(default)]
    finalizers: IgnoredAny,
    #[serde(default)]
    generate_name: IgnoredAny,
    #[serde(default)]
    generation: IgnoredAny,
    #[serde(default)]
    managed_fields: IgnoredAny,
    #[serde(default)]
    owner_references: IgnoredAny,
    #[serde(default)]
    resource_version: IgnoredAny,
    #[serde(default)]
    self_link: IgnoredAny,
    #[serde(default)]
    uid: IgnoredAny,
}

impl Document<'_> {
    /// Returns the documents in this one: the items of a List, as `kubectl get -o yaml` writes it, or the document
    /// itself.
    ///
    /// # Errors
    /// The file, the line, and what was expected there.
    pub(super) fn items(&self) -> Result<Vec<Document<'_>>, String> {
        let head: TypeMeta = self.parse()?;
        if !(head.kind.ends_with("List") && matches!(&*head.api_version, "v1" | API_VERSION)) {
            return Ok(vec![Document { text: self.text.clone(), ..*self }]);
        }
        let items = list::items(&self.text);
        let known: Items = self.parse()?;
        if items.len() != known.items.len() {
            return Err(self.wrong("items", "a list with an entry a line is expected".to_owned()));
        }
        let document = |(line, text)| Document { file: self.file, line: self.line + line, text: Cow::Owned(text) };
        Ok(items.into_iter().map(document).collect())
    }

    /// Reads the resource that the document describes. `number` is its position among the resources of the folder.
    ///
    /// # Errors
    /// The file, the line, the field, and what was expected there.
    pub(super) fn read(&self, number: usize) -> Result<Declaration, String> {
        let head: TypeMeta = self.parse()?;
        if head.api_version != API_VERSION {
            return Err(self.wrong("apiVersion", format!("'{API_VERSION}' is expected, not '{}'", head.api_version)));
        }
        if head.kind == Broker::kind(&()) {
            return self.broker();
        }
        let mut reader = Reader { document: self, kind: &head.kind, number, declaration: None, others: Vec::new() };
        visit_kinds(&mut reader);
        let Reader { declaration, others, .. } = reader;
        declaration.unwrap_or_else(|| {
            let (last, others) = others.split_last().map_or(("", &[][..]), |(last, others)| (last, others));
            let others: String = others.iter().map(|kind| format!(", {kind}")).collect();
            Err(self.wrong("kind", format!("Broker{others} or {last} is expected, not '{}'", head.kind)))
        })
    }

    fn broker(&self) -> Result<Declaration, String> {
        let name = self.resource::<Broker>()?.name;
        let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins_well || !name.bytes().all(is_label) || name.len() > BROKER_NAME_BYTES_MAX {
            let expected = "a Broker's name has at most 40 lower-case letters, digits and -, and begins with a letter";
            return Err(self.wrong("name", format!("{expected}: '{name}'")));
        }
        Ok(Declaration::NeedsKubernetes(format!("Broker {name}")))
    }

    fn topology_resource<K: Kind>(&self, number: usize) -> Result<Declaration, String> {
        let NamedResource { resource, name } = self.resource::<K>()?;
        // If two resources want the same object, the first one gets it.
        let age = Age { created: i64::try_from(number).unwrap_or(i64::MAX), uid: String::new() };
        let namespace = resource.meta().namespace.clone().unwrap_or_default();
        let resource = TopologyResource::new(&resource, namespace, name, age);
        resource.wanted.check().map_err(|FieldError { field, problem }| self.wrong(field, problem))?;
        Ok(Declaration::Resource(Arc::new(resource)))
    }

    fn resource<K: DeserializeOwned + CustomResourceExt>(&self) -> Result<NamedResource<K>, String> {
        let Strict { metadata, spec, .. } = self.parse()?;
        if !is_resource_name(&metadata.name) {
            let expected = "lower-case letters, digits, - and . are expected";
            return Err(self.wrong("name", format!("{expected}, not '{}'", metadata.name)));
        }
        if let Some(fields::UnknownField { name, known }) = fields::unknown::<K>(&spec) {
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            let (line, mistake) = (self.line_of(&name), mistake::unknown_field(&name, &known));
            return Err(format!("{}:{}: {mistake}", self.file, self.line + line + 1));
        }
        Ok(NamedResource { resource: self.parse()?, name: metadata.name })
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_saphyr::from_str(&self.text).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line() as usize);
            let text = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            format!("{}:{}: {}", self.file, self.line + line, mistake::text(&error, text))
        })
    }

    /// Returns the message for a mistake in a field, with the line of the field.
    fn wrong(&self, field: &str, problem: String) -> String {
        format!("{}:{}: {field}: {problem}", self.file, self.line + self.line_of(field) + 1)
    }

    /// Returns the line of a field: the last line that has its name, because the metadata comes before the spec.
    fn line_of(&self, field: &str) -> usize {
        let begins = |line: &str| line.trim_start().split(':').next() == Some(field);
        let contains = |line: &str| line.contains(&format!("{field}:"));
        let last = |is_it: &dyn Fn(&str) -> bool| {
            self.text.lines().enumerate().filter(|(_, line)| is_it(line)).last().map(|(at, _)| at)
        };
        last(&begins).or_else(|| last(&contains)).unwrap_or_else(|| self.first_line())
    }

    fn first_line(&self) -> usize {
        let has_content = |line: &str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
        self.text.lines().position(has_content).unwrap_or(0)
    }

    /// Returns `FILE:LINE` of the document's first line.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line + self.first_line() + 1)
    }
}

/// A resource and its name.
struct NamedResource<K> {
    resource: K,
    name: String,
}

/// Visits the kinds, and reads a document as a resource of the kind that it names.
struct Reader<'a> {
    document: &'a Document<'a>,
    kind: &'a str,
    number: usize,
    declaration: Option<Result<Declaration, String>>,
    /// The kinds visited so far, none of which is that of the document.
    others: Vec<Cow<'static, str>>,
}

impl KindVisitor for Reader<'_> {
    fn visit<K: Kind>(&mut self) {
        let kind = K::kind(&());
        if kind == self.kind {
            self.declaration = Some(self.document.topology_resource::<K>(self.number));
        } else {
            self.others.push(kind);
        }
    }
}

/// Returns whether Kubernetes accepts the name of a resource, which has to be a DNS subdomain.
fn is_resource_name(name: &str) -> bool {
    let is_edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.first().is_some_and(|byte| is_edge(*byte))
            && bytes.last().is_some_and(|byte| is_edge(*byte))
            && bytes.iter().all(|byte| is_edge(*byte) || *byte == b'-')
    };
    name.len() <= RESOURCE_NAME_BYTES_MAX && name.split('.').all(is_label)
}

const API_VERSION: &str = "leveret.dev/v1alpha1";
const RESOURCE_NAME_BYTES_MAX: usize = 253;
const BROKER_NAME_BYTES_MAX: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    fn mistake_in(text: &str) -> String {
        match (Document { file: "f.yaml", line: 0, text: text.into() }).read(0) {
            Ok(_) => String::new(),
            Err(mistake) => mistake,
        }
    }

    #[test]
    fn mistakes_are_named_with_line_field_and_what_was_expected() {
        let head = |kind: &str| format!("apiVersion: leveret.dev/v1alpha1\nkind: {kind}\nmetadata:\n  name: q\n");
        let queue = |spec: &str| format!("{}spec:\n  brokerRef: {{name: b}}\n  {spec}\n", head("Queue"));
        let table = [
            (queue("durable: true"), ""),
            (queue("durble: true"), "7: unknown field 'durble': did you mean 'durable'?"),
            (
                queue("ttl: 5"),
                "7: unknown field 'ttl': there are arguments, autoDelete, brokerRef, deletionPolicy, durable, name, vhost",
            ),
            (
                queue("vhost: /").replace("{name: b}", "{name: b, nmespace: n}"),
                "6: unknown field 'nmespace': did you mean 'namespace'?",
            ),
            (queue("arguments: {any: {thing: 1}}"), ""),
            (queue("durable: maybe"), "7: durable: true or false is expected"),
            (queue("deletionPolicy: delete"), "7: deletionPolicy: 'delete' is not known: did you mean 'Delete'?"),
            (
                queue("deletionPolicy: Zap"),
                "7: deletionPolicy: DeleteIfEmpty or Delete or Retain is expected, not 'Zap'",
            ),
            (queue("arguments: [1]"), "7: arguments: fields are expected"),
            (queue("brokerRef: {name: c}"), "7: the field 'brokerRef' is there twice"),
            (queue("name: amq.x"), "7: name: names that begin with amq. are reserved for the broker: 'amq.x'"),
            (queue("name: \"a\\nb\""), r#"7: name: a name has no line breaks: "a\nb""#),
            (queue("vhost: ''"), "7: vhost: 1 to 255 bytes are expected, not 0"),
            (
                head("Queue").replace("name: q", "name: Not Good") + "spec: {brokerRef: {name: b}}\n",
                "4: name: lower-case letters, digits, - and . are expected, not 'Not Good'",
            ),
            (
                head("Queue") + "  nmespace: x\nspec: {brokerRef: {name: b}}\n",
                "5: unknown field 'nmespace': did you mean 'namespace'?",
            ),
            (head("Queue") + "specs: {}\n", "5: unknown field 'specs': did you mean 'spec'?"),
            (head("Queue") + "spec: {}\n", "5: the field 'brokerRef' is missing"),
            (
                head("Exchange") + "spec:\n  brokerRef: {name: b}\n  type: topics\n",
                "7: type: 'topics' is not known: did you mean 'topic'?",
            ),
            (head("Binding") + "spec:\n  brokerRef: {name: b}\n  source: s\n", "7: the field 'destination' is missing"),
            (
                "# a pod\napiVersion: v1\nkind: Pod\n".to_owned(),
                "2: apiVersion: 'leveret.dev/v1alpha1' is expected, not 'v1'",
            ),
        ];
        for (text, expected) in table {
            let expected = if expected.is_empty() { String::new() } else { format!("f.yaml:{expected}") };
            assert_eq!(mistake_in(&text), expected, "{text}");
        }
        let kind = mistake_in(&head("Quee"));
        assert!(kind.starts_with("f.yaml:2: kind: Broker, Exchange, Queue"), "{kind}");
        assert!(kind.contains(" or ") && kind.ends_with(" is expected, not 'Quee'"), "{kind}");
        for definition in crate::crds::definitions() {
            assert!(kind.contains(&definition.spec.names.kind), "{kind}");
        }
        assert!(mistake_in("a: [").starts_with("f.yaml:1: "));
        let tab = mistake_in("kind: Queue\nspec:\n\tbrokerRef: {}\n");
        assert_eq!(tab, "f.yaml:3: brokerRef: tabs disallowed within this context (block indentation)");
    }

    #[test]
    fn resources_that_were_read_from_a_cluster_can_be_applied() {
        let text = r#"apiVersion: v1
items:
- apiVersion: leveret.dev/v1alpha1
  kind: Queue
  metadata:
    annotations:
      kubectl.kubernetes.io/last-applied-configuration: |
        {"apiVersion":"leveret.dev/v1alpha1"}
    creationTimestamp: "2026-01-01T00:00:00Z"
    finalizers:
    - leveret.dev/topology
    generation: 1
    managedFields:
    - manager: kubectl
    name: billing
    namespace: trade
    ownerReferences: []
    resourceVersion: "7"
    uid: 0a
  spec:
    brokerRef:
      name: shop
    vhost: /
  status:
    conditions:
    - {type: Ready, status: "True", reason: Declared, message: "", lastTransitionTime: "2026-01-01T00:00:00Z"}
- apiVersion: leveret.dev/v1alpha1
  kind: Exchange
  metadata: {name: orders, creationTimestamp: null, labels: null}
  spec:
    brokerRef: {name: shop}
    type: topics
kind: List
metadata:
  resourceVersion: ""
"#;
        let list = Document { file: "f.yaml", line: 10, text: text.into() };
        let items = list.items().unwrap();
        assert_eq!(items.len(), 2);
        let resource = match items[0].read(0) {
            Ok(Declaration::Resource(resource)) => resource,
            Ok(Declaration::NeedsKubernetes(what)) => panic!("skipped {what}"),
            Err(mistake) => panic!("{mistake}"),
        };
        assert_eq!(resource.key.to_string(), "Queue trade/billing");
        let mistake = items[1].read(1).err().unwrap();
        assert_eq!(mistake, "f.yaml:42: type: 'topics' is not known: did you mean 'topic'?");
        let empty = Document { file: "f.yaml", line: 0, text: "apiVersion: v1\nkind: List\nitems: []\n".into() };
        assert!(empty.items().unwrap().is_empty());
        let inline = Document { file: "f.yaml", line: 0, text: "apiVersion: v1\nkind: List\nitems: [{a: 1}]\n".into() };
        assert_eq!(inline.items().err().unwrap(), "f.yaml:3: items: a list with an entry a line is expected");
        let broker = "apiVersion: leveret.dev/v1alpha1\nkind: Broker\nmetadata: {name: 1shop}\nspec: {}\n";
        assert!(mistake_in(broker).contains("begins with a letter"));
    }
}
