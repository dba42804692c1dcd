//! Reads a folder of YAML. Every mistake in it is found before anything is done.
use crate::topology::kinds::Wanted;
use crate::topology::object::{Key, Kind, Object};
use anyhow::{Context, bail};
use leveret_api::{Binding, Broker, Exchange, Queue};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// What lies in a folder.
pub(super) struct Content {
    /// Resources with their place, in the order of files and lines.
    pub(super) objects: Vec<(String, Object)>,
    /// Kinds that need Kubernetes: place, and kind with name.
    pub(super) skipped: Vec<(String, String)>,
}

/// Reads every `.yaml` and `.yml` file.
///
/// # Errors
/// What cannot be read, and all that is wrong in it: file, line, field, what was expected.
pub(super) fn read(folder: &Path) -> anyhow::Result<Content> {
    let context = || format!("cannot read the folder {}", folder.display());
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .with_context(context)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .with_context(context)?;
    files.retain(|file| matches!(file.extension().and_then(|ending| ending.to_str()), Some("yaml" | "yml")));
    files.sort();
    if files.is_empty() {
        bail!("no .yaml or .yml file in {}", folder.display());
    }
    let mut content = Content { objects: Vec::new(), skipped: Vec::new() };
    let mut wrong = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for (line, document) in documents(&text) {
            if let Err(error) = add(&mut content, &file, line, document) {
                wrong.push(error.to_string());
            }
        }
    }
    if !wrong.is_empty() {
        bail!("{}", wrong.join("\n"));
    }
    Ok(content)
}

/// The documents of a file, each with the lines before it, so that lines are counted from the file's first.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.trim_end() == "---" {
            documents.push((start_line, &text[start..at]));
            start = at + line.len();
            start_line = number + 1;
        }
        at += line.len();
    }
    documents.push((start_line, &text[start..]));
    let has_content = |text: &str| text.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with('#'));
    documents.retain(|(_, document)| has_content(document));
    documents
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

fn add(content: &mut Content, file: &Path, line: usize, document: &str) -> anyhow::Result<()> {
    let place = format!("{}:{}", file.display(), line + 1);
    let head: Head = parse(file, line, document)?;
    if head.api_version != "leveret.dev/v1alpha1" {
        bail!("{place}: apiVersion: 'leveret.dev/v1alpha1' is expected, not '{}'", head.api_version);
    }
    match &*head.kind {
        "Exchange" => add_object::<Exchange>(content, (file, line), document),
        "Queue" => add_object::<Queue>(content, (file, line), document),
        "Binding" => add_object::<Binding>(content, (file, line), document),
        "Broker" => {
            let broker: Broker = parse(file, line, document)?;
            content.skipped.push((place, format!("Broker {}", broker.metadata.name.unwrap_or_default())));
            Ok(())
        }
        other => bail!("{place}: kind: Broker, Exchange, Queue or Binding is expected, not '{other}'"),
    }
}

fn add_object<K>(content: &mut Content, (file, line): (&Path, usize), document: &str) -> anyhow::Result<()>
where
    K: Kind + DeserializeOwned + kube::Resource<DynamicType = ()>,
{
    let resource: K = parse(file, line, document)?;
    let place = format!("{}:{}", file.display(), line + 1);
    let Some(name) = resource.meta().name.clone() else { bail!("{place}: metadata.name: a name is expected") };
    let wanted = resource.wanted(&name);
    check(&wanted).map_err(|problem| anyhow::anyhow!("{place}: {problem}"))?;
    let number = content.objects.len();
    let object = Object {
        key: Key { kind: K::KIND, namespace: resource.meta().namespace.clone().unwrap_or_default(), name },
        wanted,
        deletion_policy: resource.deletion_policy(),
        deleting: false,
        age: (number as i64, String::new()),
        generation: 1,
        was_declared: false,
        refused: None,
    };
    content.objects.push((place, object));
    Ok(())
}

/// What the API server would check.
fn check(wanted: &Wanted) -> Result<(), String> {
    let names: &[(&str, &str)] = match wanted {
        Wanted::Exchange(exchange) => &[("spec.name", &exchange.name)],
        Wanted::Queue(queue) => &[("spec.name", &queue.name)],
        Wanted::Binding(binding) => &[("spec.source", &binding.source), ("spec.destination", &binding.destination)],
    };
    for (field, name) in names {
        if name.is_empty() || name.len() > 255 {
            return Err(format!("{field}: 1 to 255 bytes are expected, not {}", name.len()));
        }
        if field == &"spec.name" && name.starts_with("amq.") {
            return Err(format!("{field}: names that begin with amq. are reserved for the broker: '{name}'"));
        }
    }
    Ok(())
}

/// Parses a document; an error names file, line and what was expected there.
fn parse<T: DeserializeOwned>(file: &Path, lines_before: usize, document: &str) -> anyhow::Result<T> {
    serde_saphyr::from_str(document).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line() as usize) + lines_before;
        anyhow::anyhow!("{}:{line}: {}", file.display(), problem(&error.to_string(), document, line - lines_before))
    })
}

/// The error in one line, with the field that stands there and, for an unknown one, the name that was probably meant.
fn problem(error: &str, document: &str, line: usize) -> String {
    let message = error.lines().next().unwrap_or_default();
    let says_place = |start: &str| start.starts_with("error") || start.starts_with("line ");
    let message = message.split_once(": ").filter(|(start, _)| says_place(start)).map_or(message, |(_, rest)| rest);
    let field =
        document.lines().nth(line.saturating_sub(1)).and_then(|line| line.split(':').next()).unwrap_or_default();
    let field = field.trim().trim_start_matches("- ");
    if let Some((unknown, expected)) = unknown_field(message) {
        let nearest = expected
            .into_iter()
            .max_by(|a, b| strsim::jaro_winkler(a, unknown).total_cmp(&strsim::jaro_winkler(b, unknown)));
        if let Some(nearest) = nearest.filter(|nearest| strsim::jaro_winkler(nearest, unknown) > 0.75) {
            return format!("unknown field '{unknown}': did you mean '{nearest}'?");
        }
    }
    if field.is_empty() { message.to_owned() } else { format!("{field}: {message}") }
}

/// The unknown field and those that are known, out of serde's words.
fn unknown_field(message: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (unknown, rest) = rest.split_once('`')?;
    let known = rest.split_once("expected").map_or("", |(_, known)| known).trim().trim_start_matches("one of ");
    Some((unknown, known.split(", ").map(|name| name.trim_matches('`')).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors_of(text: &str) -> String {
        let mut content = Content { objects: Vec::new(), skipped: Vec::new() };
        let added =
            documents(text).into_iter().map(|(line, document)| add(&mut content, Path::new("f.yaml"), line, document));
        added.filter_map(|added| Some(added.err()?.to_string())).collect::<Vec<_>>().join("\n")
    }

    const HEAD: &str =
        "apiVersion: leveret.dev/v1alpha1\nkind: Queue\nmetadata: {name: q}\nspec:\n  brokerRef: {name: b}\n";

    #[test]
    fn mistakes_are_named_with_file_line_and_field() {
        assert_eq!(errors_of(HEAD), "");
        let text = format!("# nothing\n---\n{HEAD}  durble: true\n");
        assert_eq!(errors_of(&text), "f.yaml:8: unknown field 'durble': did you mean 'durable'?");
        let error = errors_of(&format!("{HEAD}  durable: maybe\n"));
        assert!(error.starts_with("f.yaml:6: durable: ") && error.contains("bool"), "{error}");
        assert_eq!(
            errors_of("apiVersion: v1\nkind: Pod\n"),
            "f.yaml:1: apiVersion: 'leveret.dev/v1alpha1' is expected, not 'v1'"
        );
        let error = errors_of("apiVersion: leveret.dev/v1alpha1\nkind: Quee\n");
        assert_eq!(error, "f.yaml:1: kind: Broker, Exchange, Queue or Binding is expected, not 'Quee'");
        let error = errors_of(&format!("{HEAD}  name: amq.x\n"));
        assert_eq!(error, "f.yaml:1: spec.name: names that begin with amq. are reserved for the broker: 'amq.x'");
        assert!(errors_of("a: [").starts_with("f.yaml:1: "));
    }
}
