//! The definitions of all kinds as YAML: printed, or written one file a kind.
use anyhow::Context;
use std::path::Path;

/// Prints them, or writes them into `dir`.
pub(crate) fn run(dir: Option<&Path>) -> anyhow::Result<()> {
    for (name, yaml) in files()? {
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

/// File name and content of each kind.
fn files() -> anyhow::Result<Vec<(String, String)>> {
    let file = |crd: &_| {
        let crd: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition = crd;
        // Through a value: its keys are ordered, and so is the file.
        let yaml = serde_saphyr::to_string(&serde_json::to_value(crd)?)?;
        Ok((format!("{}.yaml", crd.spec.names.plural), yaml))
    };
    leveret_api::crds().iter().map(file).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_files_are_what_the_code_says() {
        for (name, yaml) in super::files().unwrap() {
            let file = format!("{}/../crds/{name}", env!("CARGO_MANIFEST_DIR"));
            let kept = std::fs::read_to_string(&file).unwrap_or_default();
            assert!(kept == yaml, "crds/{name} is stale: leveret-operator crds --dir crds");
        }
    }
}
