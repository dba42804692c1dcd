//! One document of YAML becomes an object. What the API server would refuse is refused here.
use super::{fields, list, mistake};
use crate::topology::kinds::Wanted;
use crate::topology::object::{Key, Kind, Object};
use leveret_api::{Binding, Broker, Exchange, Queue};
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A part of a file.
pub(super) struct Document<'a> {
    /// Name of the file, for texts.
    pub(super) file: &'a str,
    /// Lines of the file before it.
    pub(super) line: usize,
    pub(super) text: Cow<'a, str>,
}

/// What a document says.
pub(super) enum Said {
    /// Something inside a broker.
    Object(Arc<Object>),
    /// Kind and name of what needs Kubernetes.
    Skipped(String),
}

/// The part that says what a document is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
}

/// A List: how many items it has.
#[derive(Deserialize)]
struct ListOf {
    #[serde(default)]
    items: Vec<IgnoredAny>,
}

/// A whole document, with no field that is not known beside its spec.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "that they can be read is all that is asked of them")]
struct Strict {
    api_version: String,
    kind: String,
    metadata: Meta,
    spec: Value,
    #[serde(default)]
    status: IgnoredAny,
}

/// What a person writes, and what the API server adds to it: that stands in every object that was read from a cluster, and
/// says nothing here.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(dead_code, reason = "that they can be read is all that is asked of them")]
struct Meta {
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
    /// The documents in it: its items if it is a List, as `kubectl get -o yaml` writes one, and else itself.
    ///
    /// # Errors
    /// File, line, what was expected there.
    pub(super) fn items(&self) -> Result<Vec<Document<'_>>, String> {
        let head: Head = self.parse()?;
        if !(head.kind.ends_with("List") && matches!(&*head.api_version, "v1" | API_VERSION)) {
            return Ok(vec![Document { text: self.text.clone(), ..*self }]);
        }
        let items = list::items(&self.text);
        let known: ListOf = self.parse()?;
        if items.len() != known.items.len() {
            return Err(self.wrong("items", "a list with an entry a line is expected".to_owned()));
        }
        let document = |(line, text)| Document { file: self.file, line: self.line + line, text: Cow::Owned(text) };
        Ok(items.into_iter().map(document).collect())
    }

    /// The object that it describes, the `number`th of its folder.
    ///
    /// # Errors
    /// File, line, field, what was expected there.
    pub(super) fn read(&self, number: usize) -> Result<Said, String> {
        let head: Head = self.parse()?;
        if head.api_version != API_VERSION {
            return Err(self.wrong("apiVersion", format!("'{API_VERSION}' is expected, not '{}'", head.api_version)));
        }
        match &*head.kind {
            "Exchange" => self.object::<Exchange>(number),
            "Queue" => self.object::<Queue>(number),
            "Binding" => self.object::<Binding>(number),
            "Broker" => {
                let (_, broker) = self.resource::<Broker>()?;
                let is_label = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
                let begins_well = broker.starts_with(|c: char| c.is_ascii_lowercase());
                if !begins_well || !broker.bytes().all(is_label) || broker.len() > BROKER_NAME_BYTES_MAX {
                    let expected =
                        "a Broker's name has at most 40 lower-case letters, digits and -, and begins with a letter";
                    return Err(self.wrong("name", format!("{expected}: '{broker}'")));
                }
                Ok(Said::Skipped(format!("Broker {broker}")))
            }
            other => Err(self.wrong("kind", format!("Broker, Exchange, Queue or Binding is expected, not '{other}'"))),
        }
    }

    fn object<K: Kind + DeserializeOwned + kube::Resource>(&self, number: usize) -> Result<Said, String> {
        let (resource, name) = self.resource::<K>()?;
        let wanted = resource.wanted(&name);
        check(&wanted).map_err(|(field, problem)| self.wrong(field, problem))?;
        Ok(Said::Object(Arc::new(Object {
            key: Key { kind: K::KIND, namespace: resource.meta().namespace.clone().unwrap_or_default(), name },
            wanted,
            deletion_policy: resource.deletion_policy(),
            deleting: false,
            // Of two that want the same, the first has it.
            age: (i64::try_from(number).unwrap_or(i64::MAX), String::new()),
            generation: 1,
            was_declared: false,
            changed: None,
            refused: None,
        })))
    }

    /// The resource and its name.
    fn resource<K: DeserializeOwned>(&self) -> Result<(K, String), String> {
        let Strict { kind, metadata, spec, .. } = self.parse()?;
        if !is_resource_name(&metadata.name) {
            let expected = "lower-case letters, digits, - and . are expected";
            return Err(self.wrong("name", format!("{expected}, not '{}'", metadata.name)));
        }
        if let Some(fields::Unknown { name, known }) = fields::unknown(&kind, &spec) {
            let known: Vec<_> = known.iter().map(String::as_str).collect();
            let (line, mistake) = (self.line_of(&name), mistake::unknown_field(&name, &known));
            return Err(format!("{}:{}: {mistake}", self.file, self.line + line + 1));
        }
        Ok((self.parse()?, metadata.name))
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, String> {
        serde_saphyr::from_str(&self.text).map_err(|error| {
            let line = error.location().map_or(1, |location| location.line() as usize);
            let text = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
            format!("{}:{}: {}", self.file, self.line + line, mistake::text(&error, text))
        })
    }

    /// A mistake in the field of that name, at the line that it stands in.
    fn wrong(&self, field: &str, problem: String) -> String {
        format!("{}:{}: {field}: {problem}", self.file, self.line + self.line_of(field) + 1)
    }

    /// The line that a field stands in: the last one of that name, since metadata stands before spec.
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

    /// `FILE:LINE` of its first line.
    pub(super) fn place(&self) -> String {
        format!("{}:{}", self.file, self.line + self.first_line() + 1)
    }
}

/// What the API server would check: the field and what was expected.
fn check(wanted: &Wanted) -> Result<(), (&'static str, String)> {
    let (names, own): (&[(&'static str, &str)], _) = match wanted {
        Wanted::Exchange(exchange) => (&[("name", &exchange.name), ("vhost", &exchange.vhost)], Some(&exchange.name)),
        Wanted::Queue(queue) => (&[("name", &queue.name), ("vhost", &queue.vhost)], Some(&queue.name)),
        Wanted::Binding(binding) => {
            (&[("source", &binding.source), ("destination", &binding.destination), ("vhost", &binding.vhost)], None)
        }
    };
    if let Some((field, name)) = names.iter().find(|(_, name)| name.is_empty() || name.len() > NAME_BYTES_MAX) {
        return Err((field, format!("1 to {NAME_BYTES_MAX} bytes are expected, not {}", name.len())));
    }
    if let Some((field, name)) = names.iter().find(|(_, name)| name.contains(['\r', '\n'])) {
        return Err((field, format!("a name has no line breaks: {name:?}")));
    }
    match own {
        Some(name) if name.starts_with("amq.") => {
            Err(("name", format!("names that begin with amq. are reserved for the broker: '{name}'")))
        }
        _ => Ok(()),
    }
}

/// As Kubernetes has it: a DNS subdomain.
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
/// AMQP's short strings.
const NAME_BYTES_MAX: usize = 255;
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
            (head("Quee"), "2: kind: Broker, Exchange, Queue or Binding is expected, not 'Quee'"),
            (
                "# a pod\napiVersion: v1\nkind: Pod\n".to_owned(),
                "2: apiVersion: 'leveret.dev/v1alpha1' is expected, not 'v1'",
            ),
        ];
        for (text, expected) in table {
            let expected = if expected.is_empty() { String::new() } else { format!("f.yaml:{expected}") };
            assert_eq!(mistake_in(&text), expected, "{text}");
        }
        assert!(mistake_in("a: [").starts_with("f.yaml:1: "));
        let tab = mistake_in("kind: Queue\nspec:\n\tbrokerRef: {}\n");
        assert_eq!(tab, "f.yaml:3: brokerRef: tabs disallowed within this context (block indentation)");
    }

    #[test]
    fn what_was_read_from_a_cluster_can_be_applied() {
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
        let object = match items[0].read(0) {
            Ok(Said::Object(object)) => object,
            Ok(Said::Skipped(what)) => panic!("skipped {what}"),
            Err(mistake) => panic!("{mistake}"),
        };
        assert_eq!(object.key.to_string(), "Queue trade/billing");
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
