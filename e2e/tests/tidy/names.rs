//! Checks that the crates of one program do not give one name to different types, so that a name means one thing whichever
//! crate a reader is in.
use super::{fail_on, files, is_production, parse};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use syn::{Item, Visibility};

/// Returns the names of the types in a file that other files can see.
fn names(file: &Path) -> Vec<String> {
    let parsed = parse(file);
    let visible = parsed.items.iter().filter_map(|item| match item {
        Item::Struct(item) => Some((&item.vis, &item.ident)),
        Item::Enum(item) => Some((&item.vis, &item.ident)),
        Item::Trait(item) => Some((&item.vis, &item.ident)),
        _ => None,
    });
    visible.filter(|(vis, _)| !matches!(vis, Visibility::Inherited)).map(|(_, name)| name.to_string()).collect()
}

#[test]
fn crates_of_a_program_do_not_give_one_name_to_different_types() {
    let mut users: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for file in files(&[".rs"]).iter().filter(|file| is_production(file)) {
        let path = file.to_string_lossy();
        let Some((folder, inside)) = path.split_once("src/") else { continue };
        let Some((program, _)) = folder.split_once('/') else { continue };
        if inside.contains("fake") {
            continue;
        }
        for name in names(file) {
            users.entry((program.to_owned(), name)).or_default().insert(folder.to_owned());
        }
    }
    assert!(users.len() > 200, "only {} types were found", users.len());
    let repeated = users.iter().filter(|(_, folders)| folders.len() > 1);
    fail_on(repeated.map(|((_, name), folders)| format!("{name} is a type of {folders:?}")).collect());
}
