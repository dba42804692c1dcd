//! Reads a folder of YAML. All mistakes in it are found before anything is done on the broker.
use super::document::{Declaration, Document};
use crate::topology::resource::TopologyResource;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The contents of a folder, in the order of files and lines.
#[derive(Default)]
pub(super) struct Folder {
    pub(super) resources: Vec<PlacedResource>,
    pub(super) skipped: Vec<SkippedResource>,
}

/// A resource of a folder.
pub(super) struct PlacedResource {
    /// `FILE:LINE` of the resource.
    pub(super) place: String,
    pub(super) resource: Arc<TopologyResource>,
}

/// A resource that needs Kubernetes.
pub(super) struct SkippedResource {
    /// `FILE:LINE` of the resource.
    pub(super) place: String,
    /// The kind and the name of the resource.
    pub(super) what: String,
}

/// Reads every `.yaml` and `.yml` file of a folder.
///
/// # Errors
/// A file that cannot be read, or all mistakes in the files, one per line: file, line, field, what was expected.
pub(super) fn read(folder: &Path) -> anyhow::Result<Folder> {
    let mut contents = Folder::default();
    let mut wrong = Vec::new();
    for file in files(folder)? {
        let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let name = file.display().to_string();
        for (line, text) in documents(&text) {
            let document = Document { file: &name, line, text: text.into() };
            let items = document.items().unwrap_or_else(|mistake| {
                wrong.push(mistake);
                Vec::new()
            });
            for item in items {
                let place = item.place();
                match item.read(contents.resources.len()) {
                    Ok(Declaration::Resource(resource)) => contents.resources.push(PlacedResource { place, resource }),
                    Ok(Declaration::NeedsKubernetes(what)) => contents.skipped.push(SkippedResource { place, what }),
                    Err(mistake) => wrong.push(mistake),
                }
            }
        }
    }
    if !wrong.is_empty() {
        bail!("nothing was done\n{}", wrong.join("\n"));
    }
    Ok(contents)
}

/// Returns the YAML files of a folder, ordered by name.
fn files(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let context = || format!("cannot read the folder {}", folder.display());
    let entries = std::fs::read_dir(folder).with_context(context)?;
    let mut files: Vec<PathBuf> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>().with_context(context)?;
    files.retain(|file| matches!(file.extension().and_then(|ending| ending.to_str()), Some("yaml" | "yml")));
    files.sort();
    if files.is_empty() {
        bail!("no .yaml or .yml file in {}", folder.display());
    }
    Ok(files)
}

/// Returns the documents of a file, each with the number of lines before it, so that messages give the line within the
/// file.
fn documents(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if is_separator(line) {
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

/// Returns whether a line separates two documents: `---`, with or without a comment.
fn is_separator(line: &str) -> bool {
    line.strip_prefix("---").is_some_and(|rest| {
        let comment = rest.trim_start();
        comment.is_empty() || rest.len() > comment.len() && comment.starts_with('#')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_separated_and_their_lines_are_counted_within_the_file() {
        let text = "# nothing\r\n---\r\na: 1\n--- # two\nb: |\n  ---\n---\n\n# c\n---\nd: 4\n---x: 5\n";
        assert_eq!(documents(text), [(2, "a: 1\n"), (4, "b: |\n  ---\n"), (10, "d: 4\n---x: 5\n")]);
    }
}
