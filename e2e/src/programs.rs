//! Where the programs are that the tests run. One that is missing is an error that names the command which brings it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// What `e2e/install` put into the project's own folder of tools.
pub fn tool(path: &str, installer: &str) -> Result<PathBuf> {
    let place = root().join(".tools").join(path);
    ensure!(place.try_exists()?, "{} is missing: run {installer}", place.display());
    Ok(place)
}

/// A runtime that the installer brought because the machine had none, or the machine's.
pub fn runtime(name: &str) -> Result<PathBuf> {
    let brought = root().join(".tools/bin").join(name);
    Ok(if brought.try_exists()? { brought } else { PathBuf::from(name) })
}

/// A program of Debian's, unpacked into the project's folder or installed.
pub fn debian(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let unpacked = root().join(".tools/debian/usr/bin");
    for folder in std::iter::once(unpacked).chain(std::env::split_paths(&path)) {
        let place = folder.join(name);
        if place.is_file() {
            return Ok(place);
        }
    }
    bail!("{name} is missing: run e2e/install/debian {name}")
}

/// A program of this workspace, built by cargo now if it is not fresh: a test never runs yesterday's broker. Nothing is built
/// where the variable `LEVERET_BUILT` says that this was done for all tests.
pub fn built(package: &str, arguments: &[&str]) -> Result<PathBuf> {
    static BUILT: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut done = BUILT.lock().map_err(|_| anyhow::anyhow!("another test failed while it built"))?;
    let was_built = std::env::var_os("LEVERET_BUILT").is_some();
    if !was_built && done.get_or_insert_default().insert(package.to_owned()) {
        let status = Command::new(env!("CARGO"))
            .current_dir(root())
            .args(["build", "--quiet", "--profile", "quick", "--package", package])
            .args(arguments)
            .status()
            .context("starting cargo")?;
        ensure!(status.success(), "cargo build --profile quick -p {package} failed");
    }
    beside(package)
}

/// A program in the folder where cargo put the running test (which lies in `deps/` of it).
pub fn beside(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder =
        test.ancestors().find(|folder| folder.ends_with("quick")).context("the tests run with --profile quick")?;
    let place = folder.join(name);
    ensure!(place.is_file(), "{} is missing: run cargo build --profile quick --workspace", place.display());
    Ok(place)
}
