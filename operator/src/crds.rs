//! The definitions of all kinds as YAML: printed, or written to one file per kind.
use crate::topology::kinds::{Kind, KindVisitor, visit_kinds};
use anyhow::Context;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use leveret_api::Broker;
use std::path::Path;

/// Prints the definitions, or writes them to files in `dir`.
///
/// # Errors
/// A file that cannot be written.
pub(crate) fn run(dir: Option<&Path>) -> anyhow::Result<()> {
    for File { name, yaml } in files()? {
        match dir {
            Some(dir) => {
                let file = dir.join(name);
                std::fs::write(&file, yaml).with_context(|| format!("cannot write {}", file.display()))?;
            }
            None => {
                #[expect(clippy::print_stdout, reason = "the answer of the command")]
                {
                    println!("---\n{yaml}");
                }
            }
        }
    }
    Ok(())
}

/// A file with the definition of one kind.
struct File {
    name: String,
    yaml: String,
}

fn files() -> anyhow::Result<Vec<File>> {
    let file = |crd: &CustomResourceDefinition| {
        // The keys of a JSON value are ordered, so that the file is too.
        let yaml = serde_saphyr::to_string(&serde_json::to_value(crd)?)?;
        Ok(File { name: format!("{}.yaml", crd.spec.names.plural), yaml })
    };
    definitions().iter().map(file).collect()
}

/// Returns the definitions of all kinds: of the Broker, and of those that stand for an object on a broker.
pub(crate) fn definitions() -> Vec<CustomResourceDefinition> {
    let mut definitions = Definitions(vec![Broker::crd()]);
    visit_kinds(&mut definitions);
    definitions.0
}

struct Definitions(Vec<CustomResourceDefinition>);

impl KindVisitor for Definitions {
    fn visit<K: Kind>(&mut self) {
        self.0.push(K::crd());
    }
}

/// Returns the names of all kinds in paths of the API server.
#[cfg(test)]
pub(crate) fn plural_names() -> Vec<String> {
    definitions().into_iter().map(|definition| definition.spec.names.plural).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str) -> String {
        let file = format!("{}/../{path}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&file).unwrap_or_default()
    }

    #[test]
    fn the_files_are_what_the_code_says() {
        for File { name, yaml } in files().unwrap() {
            assert!(read(&format!("crds/{name}")) == yaml, "crds/{name} is stale: leveret-operator crds --dir crds");
        }
    }

    #[test]
    fn the_chart_gives_the_operator_its_rights_to_every_kind() {
        let rights = read("charts/leveret/templates/rbac.yaml") + &read("charts/leveret/templates/_helpers.tpl");
        let lists = |suffix: &str| {
            let names: Vec<_> = plural_names().iter().map(|name| format!("{name}{suffix}")).collect();
            format!("resources: [{}]", names.join(", "))
        };
        for list in [lists(""), lists("/status")] {
            assert!(rights.contains(&list), "charts/leveret/templates: the operator has no rights to `{list}`");
        }
    }

    #[test]
    fn every_kind_has_a_sample() {
        let samples = read("config/samples/broker.yaml") + &read("config/samples/topology.yaml");
        for definition in definitions() {
            let kind = format!("\nkind: {}\n", definition.spec.names.kind);
            assert!(samples.contains(&kind), "config/samples: there is no {}", definition.spec.names.kind);
        }
    }
}
