//! The limits on the definitions of one virtual host, and the refusals beyond them.
use leveret_model::refusal::Refusal;
use leveret_model::table::FieldTable;

/// The size of the definitions of a virtual host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    pub(super) bindings: usize,
    /// About how many bytes of memory names, keys, arguments and their indexes take.
    pub(super) bytes: usize,
}

impl Usage {
    /// Checks that definitions of this size may be added to these if `bytes_max` bytes are allowed.
    ///
    /// # Errors
    /// 406 naming the limit.
    pub(super) fn check(&self, added: Self, bytes_max: usize, vhost: &str) -> Result<(), Refusal> {
        check(self.bindings + added.bindings, BINDINGS_MAX, "bindings", vhost)?;
        check(self.bytes + added.bytes, bytes_max, "bytes of definitions", vhost)
    }

    pub(super) fn add(&mut self, added: Self) {
        self.bindings += added.bindings;
        self.bytes += added.bytes;
    }

    pub(super) fn remove(&mut self, removed: Self) {
        self.bindings -= removed.bindings;
        self.bytes -= removed.bytes;
    }

    /// Returns the size of definitions that take `bytes` bytes and are no bindings.
    pub(super) fn of(bytes: usize) -> Self {
        Self { bindings: 0, bytes }
    }

    /// Returns the size of a binding that takes `bytes` bytes.
    pub(super) fn of_binding(bytes: usize) -> Self {
        Self { bindings: 1, bytes }
    }
}

/// Checks that `count` is not more than `most`.
///
/// # Errors
/// 406 naming the limit.
pub(super) fn check(count: usize, most: usize, what: &str, vhost: &str) -> Result<(), Refusal> {
    if count > most {
        return Err(Refusal::precondition(format!("vhost '{vhost}' has the {most} {what} that it may have")));
    }
    Ok(())
}

/// Checks the arguments of one declaration.
///
/// # Errors
/// 406 naming the number of bytes that they take.
pub(super) fn check_arguments(what: &str, name: &str, arguments: &FieldTable) -> Result<(), Refusal> {
    let bytes = arguments.memory_bytes();
    if bytes > ARGUMENTS_BYTES_MAX {
        return Err(Refusal::precondition(format!(
            "arguments of {what} '{name}' take {bytes} bytes, more than {ARGUMENTS_BYTES_MAX}"
        )));
    }
    Ok(())
}

/// The most queues of one virtual host.
pub(super) const QUEUES_MAX: usize = 500_000;
/// The most exchanges of one virtual host.
pub(super) const EXCHANGES_MAX: usize = 100_000;
/// The most bindings of one virtual host.
pub(super) const BINDINGS_MAX: usize = 1_000_000;
/// The most memory of the definitions of one virtual host, in bytes, unless the configuration allows less.
pub(super) const BYTES_MAX: usize = 512 << 20;
/// The most memory of the arguments of one declaration, in bytes.
const ARGUMENTS_BYTES_MAX: usize = 64 << 10;
