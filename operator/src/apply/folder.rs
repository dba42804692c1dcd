//! Reads a folder of YAML. Every mistake in it is found before anything is done.
use super::document::{Document, Said};
use crate::topology::object::Object;
use anyhow::{Context, bail};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What lies in a folder.
pub(super) struct Content {
    /// Resources with their place, in the order of files and lines.
    pub(super) objects: Vec<(String, Arc<Object>)>,
    /// Kinds that need Kubernetes: place, and kind with name.
    pub(super) skipped: Vec<(String, String)>,
}

/// Reads every `.yaml` and `.yml` file.
///
/// # Errors
/// What cannot be read, and all that is wrong in it, a line each: file, line, field, what was expected.
pub(super) fn read(folder: &Path) -> anyhow::Result<Content> {
    let mut content = Content { objects: Vec::new(), skipped: Vec::new() };
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
                match item.read(content.objects.len()) {
                    Ok(Said::Object(object)) => content.objects.push((item.place(), object)),
                    Ok(Said::Skipped(what)) => content.skipped.push((item.place(), what)),
                    Err(mistake) => wrong.push(mistake),
                }
            }
        }
    }
    if !wrong.is_empty() {
        bail!("nothing was done\n{}", wrong.join("\n"));
    }
    Ok(content)
}

/// The files of a folder, by name.
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

/// The documents of a file, each with the lines before it, so that lines are counted from the file's first.
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

/// `---`, with or without a comment.
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
    fn documents_are_parted_and_their_lines_counted_from_the_files_first() {
        let text = "# nothing\r\n---\r\na: 1\n--- # two\nb: |\n  ---\n---\n\n# c\n---\nd: 4\n---x: 5\n";
        assert_eq!(documents(text), [(2, "a: 1\n"), (4, "b: |\n  ---\n"), (10, "d: 4\n---x: 5\n")]);
    }
}
