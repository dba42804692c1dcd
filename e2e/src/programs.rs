//! Finds the programs that the tests run. If one is missing, the error names the command that installs or builds it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result, bail, ensure};

/// Returns the root folder of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// Returns the path of a tool that a script of `e2e/install` has put into `.tools`.
///
/// # Errors
/// If it is missing, naming `installer`.
pub fn tool(path: &str, installer: &str) -> Result<PathBuf> {
    let place = root().join(".tools").join(path);
    ensure!(place.try_exists()?, "{} is missing: run {installer}", place.display());
    Ok(place)
}

/// Returns the runtime (`node`) that the installer has put into `.tools`, or else the name of the machine's own.
///
/// # Errors
/// If the file system cannot be read.
pub fn runtime(name: &str) -> Result<PathBuf> {
    let brought = root().join(".tools/bin").join(name);
    Ok(if brought.try_exists()? { brought } else { PathBuf::from(name) })
}

/// Returns the path of a program of a Debian package, unpacked into `.tools` or installed.
///
/// # Errors
/// If it is missing, naming the command that installs it.
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

/// Returns the path of a program of this workspace, after building it with cargo, so that a test never runs an outdated
/// one. Builds nothing if the environment variable `LEVERET_BUILT` is set, which says that all programs are built.
///
/// # Errors
/// If the build fails.
pub fn built(package: &str, arguments: &[&str]) -> Result<PathBuf> {
    static BUILT: Mutex<Option<HashSet<String>>> = Mutex::new(None);
    let mut done = BUILT.lock().map_err(|_| anyhow::anyhow!("another test failed during its build"))?;
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

/// Returns the path of a program in the target folder of the running test, which is itself in its subfolder `deps`.
///
/// # Errors
/// If the program is missing, or the tests do not run with `--profile quick`.
pub fn beside(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    let folder =
        test.ancestors().find(|folder| folder.ends_with("quick")).context("the tests run with --profile quick")?;
    let place = folder.join(name);
    ensure!(place.is_file(), "{} is missing: run cargo build --profile quick --workspace", place.display());
    Ok(place)
}
