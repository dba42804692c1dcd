//! Splits a `kind: List` into its items, each as a document of its own with its place in the file.
//!
//! The list is split as text, so that a mistake in an item can be reported with its line. An item begins at a dash and
//! continues as long as lines are indented further. The dash is replaced by a blank, so that the item is a document of
//! its own.

/// Returns the items, each with the number of lines before it.
pub(super) fn items(text: &str) -> Vec<(usize, String)> {
    let mut items: Vec<(usize, String)> = Vec::new();
    let mut lines = text.lines().enumerate().skip_while(|(_, line)| !is_field(line, "items"));
    lines.next();
    let mut dash = None;
    for (number, line) in lines {
        let indent = line.len() - line.trim_start().len();
        let (has_dash, is_blank) = (line.trim_start().starts_with("- "), line.trim().is_empty());
        match dash {
            _ if is_blank => {}
            None if has_dash => dash = Some(indent),
            Some(dash) if indent > dash || indent == dash && has_dash => {}
            // A comment before the first item. Any other line ends the list.
            None if line.trim_start().starts_with('#') => continue,
            _ => break,
        }
        if has_dash && dash == Some(indent) {
            let dash = indent;
            items.push((number, format!("{} {}\n", &line[..dash], &line[dash + 1..])));
        } else if let Some((_, item)) = items.last_mut() {
            item.push_str(line);
            item.push('\n');
        }
    }
    items
}

fn is_field(line: &str, name: &str) -> bool {
    line.strip_prefix(name).is_some_and(|rest| rest.trim_end() == ":")
}

#[cfg(test)]
mod tests {
    use super::items;

    #[test]
    fn items_are_split_with_their_lines() {
        let text = "kind: List\nitems:\n# one\n  - a: 1\n    b:\n      - c\n\n  - a: 2\nmetadata: {}\n- x: 1\n";
        assert_eq!(items(text), [(3, "    a: 1\n    b:\n      - c\n\n".to_owned()), (7, "    a: 2\n".to_owned())]);
        assert!(items("items: []\n").is_empty() && items("a: 1\n").is_empty());
    }
}
